"""What the engine asks of a model that it runs itself, whichever library computes it."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import xgrammar
from torch import Tensor


class ModelError(Exception):
    """A model that cannot be loaded, or a pass that it could not make."""


class Step(NamedTuple):
    """One token that a sequence reads."""

    sequence: int
    position: int
    token: int
    wants_logits: bool
    """Whether the logits of the token after it are wanted: only of the last step of a sequence in a pass."""


class LanguageModel(Protocol):
    """Tokens, and the logits that follow them, for many sequences at once.

    For one thread at a time. Sequences are numbered from 0; each has room for `context` tokens.
    """

    batch_tokens: int
    """Tokens in one pass, at most."""
    context: int
    sequences: int
    end_tokens: frozenset[int]

    def tokenize(self, text: str) -> list[int]:
        """Tokens of a text in which template tokens are read as such; none are added."""

    def text(self, tokens: Sequence[int]) -> str:
        """What the tokens write; template tokens write nothing, and a character that is not whole is left out."""

    def grammar_tokens(self) -> xgrammar.TokenizerInfo: ...

    def read(self, steps: Sequence[Step]) -> Tensor:
        """Reads at most `batch_tokens` tokens. Returns the logits of the steps that want them, [steps, vocabulary].

        The steps of one sequence are neighbours, in order. Raises ModelError.
        """

    def copy(self, source: int, target: int) -> None:
        """Makes a sequence hold what another one holds."""

    def forget(self, sequence: int) -> None: ...

    def close(self) -> None: ...


def affordable_sequences(wanted: int, cache_bytes: int, context: int, bytes_per_token: int) -> int:
    """Sequences whose keys and values fit into `cache_bytes`: at most `wanted`, at least two."""
    return max(2, min(wanted, cache_bytes // (context * bytes_per_token)))
