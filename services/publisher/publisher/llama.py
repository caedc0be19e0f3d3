"""A GGUF file in llama.cpp: QMD's prompt and decode, next-token logits, and smaller files made of it."""

import ctypes
import logging
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from qmd_schema.contract import GRAMMAR, QMD_DECODE, prompt_text
from qmd_schema.errors import ArtifactError, UserError

Logits = NDArray[np.float32]

_BATCH_TOKENS = 512
"""Tokens in one pass through the model."""
_LINE_BEGINNING = len(b"hyde: ") + 1
"""Bytes of a line after which it is all content to the grammar."""
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
"""llama.cpp's `llama_token_data`."""


class Answer(NamedTuple):
    """What a model wrote for a query, unfiltered."""

    text: str
    ended: bool
    """By itself, not at QMD's limit of tokens."""


class _Step(NamedTuple):
    """One token that a sequence reads."""

    sequence: int
    position: int
    token: int
    wants_logits: bool


@dataclass
class _Writing:
    """An answer that is being written."""

    place: int
    sequence: int
    grammar: Any
    random: np.random.Generator
    position: int
    """Of `token`, the next that the sequence reads."""
    token: int
    answer: list[int] = field(default_factory=list)
    line: bytes = b""
    """What the answer's last line holds so far."""
    ended: bool = False


class ExpansionModel:
    """A GGUF file that expands queries with QMD's prompt, grammar and sampling. Not for several threads at once."""

    def __init__(
        self,
        path: Path,
        at_once: int = 1,
        context_tokens: int = QMD_DECODE.context_tokens,
        threads: int | None = None,
    ) -> None:
        """at_once: answers that are written at the same time, each in `context_tokens` with its prompt.

        threads: default half of the cores, since llama.cpp's threads spin while they wait for each other.
        Raises ArtifactError for a file that llama.cpp does not load.
        """
        import llama_cpp

        if not path.is_file():
            raise ArtifactError(f"{path}: no such GGUF file.")
        logging.getLogger("llama-cpp-python").setLevel(logging.ERROR)
        self._cpp = llama_cpp
        options = llama_cpp.llama_model_default_params()
        # Weights are used as they are mapped: copies for AMX cost memory, and fault in virtual machines that lack it.
        options.use_extra_bufts = False
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
        if not self._model:
            raise ArtifactError(f"{path}: llama.cpp cannot load it. Is it a whole GGUF file?")
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self._words: int = llama_cpp.llama_vocab_n_tokens(self._vocab)
        self._at_once, self._context_tokens = at_once, context_tokens
        self._lead: list[int] = []
        sequences = at_once + 1 if at_once > 1 else 1
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = sequences * context_tokens
        parameters.n_seq_max = sequences
        parameters.n_batch = parameters.n_ubatch = _BATCH_TOKENS
        parameters.n_threads = parameters.n_threads_batch = threads or max(1, len(os.sched_getaffinity(0)) // 2)
        parameters.kv_unified = False
        self._context = llama_cpp.llama_init_from_model(self._model, parameters)
        if not self._context:
            raise ArtifactError(f"{path}: llama.cpp makes no context of {parameters.n_ctx} tokens for it.")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(_BATCH_TOKENS, 0, 1)
        self._allowed_after: dict[tuple[bool, bytes, bytes], NDArray[np.intp]] = {}

    @property
    def chat_template(self) -> str:
        """The template in the file, empty where there is none."""
        template = self._cpp.llama_model_chat_template(self._model, None)
        return template.decode("utf-8", errors="replace") if template else ""

    def prompt_ids(self, query: str) -> list[int]:
        """The token ids of QMD's prompt for a query."""
        bos = self._cpp.llama_vocab_bos(self._vocab)
        bos_token = self._cpp.llama_vocab_get_text(self._vocab, bos).decode() if bos >= 0 else None
        return self._tokenize(prompt_text(query, bos_token))

    def share(self, lead: Sequence[int]) -> None:
        """Reads the tokens that all prompts to come begin with, once, in a sequence of their own; for `at_once` > 1."""
        self._lead = []
        self._cpp.llama_memory_clear(self._memory, True)
        self._read_prompt(self._at_once, lead)
        self._lead = list(lead)

    def logits(self, ids: Sequence[int], first: int) -> Logits:
        """The logits of the token after each of `ids` from place `first` on, which is not in what is shared.

        Returns [tokens, vocabulary].
        """
        self._forget(0)
        return self._read_prompt(0, ids, first)

    def expand(self, query: str, seed: int | None = None) -> str:
        """What the model writes for a query, unfiltered; without a seed another answer each time, as in QMD.

        Raises UserError for a query that leaves no room for an answer.
        """
        return self.expand_all([query], [random.getrandbits(32) if seed is None else seed])[0].text

    def expand_all(self, queries: Sequence[str], seeds: Sequence[int]) -> list[Answer]:
        """An answer to each query with its seed, as many written at the same time as the model was opened for.

        Raises UserError as `expand`.
        """
        waiting = [(place, self._prompt(query), seeds[place]) for place, query in enumerate(queries)]
        free = list(range(self._at_once))
        writing: list[_Writing] = []
        answers: dict[int, Answer] = {}
        while waiting or writing:
            while waiting and free:
                self._forget(free[-1])
                writing.append(self._begin(free.pop(), *waiting.pop(0)))
            self._advance(writing)
            for one in [one for one in writing if one.ended or len(one.answer) == QMD_DECODE.max_tokens]:
                answers[one.place] = Answer(self._text(one.answer), one.ended)
                self._cpp.llama_sampler_free(one.grammar)
                writing.remove(one)
                free.append(one.sequence)
        return [answers[place] for place in range(len(queries))]

    def close(self) -> None:
        self._cpp.llama_batch_free(self._batch)
        self._cpp.llama_free(self._context)
        self._cpp.llama_model_free(self._model)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prompt(self, query: str) -> list[int]:
        prompt = self.prompt_ids(query)
        room = self._context_tokens - QMD_DECODE.max_tokens
        if len(prompt) > room:
            raise UserError(f"the query is too long: with QMD's prompt {len(prompt)} tokens, at most {room} fit.")
        return prompt

    def _begin(self, sequence: int, place: int, prompt: Sequence[int], seed: int) -> "_Writing":
        """Reads all of a prompt but its last token, which `_advance` reads."""
        self._read_prompt(sequence, prompt[:-1])
        grammar = self._cpp.llama_sampler_init_grammar(self._vocab, GRAMMAR.encode(), b"root")
        return _Writing(place, sequence, grammar, np.random.default_rng(seed), len(prompt) - 1, prompt[-1])

    def _advance(self, writing: Sequence["_Writing"]) -> None:
        """Draws one more token for each answer that is being written."""
        logits = self._read([_Step(one.sequence, one.position, one.token, True) for one in writing])
        for row, one in zip(logits, writing, strict=True):
            one.position += 1
            one.token = draw(row, self._allowed(one), one.answer, one.random)
            one.ended = self._cpp.llama_vocab_is_eog(self._vocab, one.token)
            if not one.ended:
                self._cpp.llama_sampler_accept(one.grammar, one.token)
                one.answer.append(one.token)
                one.line = (one.line + self._piece(one.token)).rpartition(b"\n")[2]

    def _allowed(self, one: "_Writing") -> NDArray[np.intp]:
        """The tokens that the grammar takes next.

        Asking llama.cpp about a whole vocabulary takes longer than the model itself, so what it says is kept: it
        depends on the line's beginning, on whether it is the first, and on the bytes of a character that is not whole
        yet.
        """
        whole = len(one.line.decode("utf-8", errors="ignore").encode())
        key = bool(one.answer), one.line[:_LINE_BEGINNING], one.line[whole:]
        if key not in self._allowed_after:
            candidates = np.zeros(self._words, _CANDIDATE)
            candidates["id"] = np.arange(self._words)
            data = candidates.ctypes.data_as(ctypes.POINTER(self._cpp.llama_token_data))
            array = self._cpp.llama_token_data_array(data=data, size=self._words, selected=-1, sorted=False)
            self._cpp.llama_sampler_apply(one.grammar, ctypes.byref(array))
            self._allowed_after[key] = np.flatnonzero(np.isfinite(candidates["logit"]))
        return self._allowed_after[key]

    def _read_prompt(self, sequence: int, ids: Sequence[int], first: int | None = None) -> Logits:
        """Reads tokens into an empty sequence, what is shared by copying it; logits from place `first` on."""
        known = len(self._lead) if list(ids[: len(self._lead)]) == self._lead else 0
        if known:
            self._cpp.llama_memory_seq_cp(self._memory, self._at_once, sequence, -1, -1)
        wanted = len(ids) if first is None else first
        steps = [_Step(sequence, place, ids[place], place >= wanted) for place in range(known, len(ids))]
        parts = [steps[start : start + _BATCH_TOKENS] for start in range(0, len(steps), _BATCH_TOKENS)]
        return np.concatenate([np.empty((0, self._words), np.float32), *(self._read(part).copy() for part in parts)])

    def _forget(self, sequence: int) -> None:
        self._cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def _read(self, steps: Sequence[_Step]) -> Logits:
        """Reads at most `_BATCH_TOKENS` tokens; the logits of those that want them, [tokens, vocabulary]."""
        batch = self._batch
        batch.n_tokens = len(steps)
        for place, step in enumerate(steps):
            batch.token[place] = step.token
            batch.pos[place] = step.position
            batch.n_seq_id[place] = 1
            batch.seq_id[place][0] = step.sequence
            batch.logits[place] = step.wants_logits
        if code := self._cpp.llama_decode(self._context, batch):
            raise ArtifactError(f"llama.cpp could not read {len(steps)} tokens (code {code}).")
        wanted = sum(step.wants_logits for step in steps)
        if not wanted:
            return np.empty((0, self._words), np.float32)
        return np.ctypeslib.as_array(self._cpp.llama_get_logits(self._context), (wanted, self._words))

    def _tokenize(self, text: str) -> list[int]:
        data = text.encode()
        room = (self._cpp.llama_token * (len(data) + 1))()
        count = self._cpp.llama_tokenize(self._vocab, data, len(data), room, len(room), False, True)
        return list(room[:count])

    def _text(self, tokens: Sequence[int]) -> str:
        return b"".join(map(self._piece, tokens)).decode("utf-8", errors="replace")

    def _piece(self, token: int) -> bytes:
        room = ctypes.create_string_buffer(256)
        length = self._cpp.llama_token_to_piece(self._vocab, token, room, len(room), 0, False)
        return room.raw[:length] if length > 0 else b""


def draw(logits: Logits, allowed: NDArray[np.intp], answer: Sequence[int], random: np.random.Generator) -> int:
    """QMD's draw of the next token: presence penalty, grammar, top-k, top-p, temperature.

    logits: [vocabulary]. allowed: the tokens that the grammar takes.
    """
    penalised = logits.copy()
    penalised[list(set(answer[-QMD_DECODE.penalty_window :]))] -= QMD_DECODE.presence_penalty
    scores = penalised[allowed]
    count = min(QMD_DECODE.top_k, len(scores))
    best = np.argpartition(-scores, count - 1)[:count]
    best = best[np.argsort(-scores[best], kind="stable")]
    probabilities = _softmax(scores[best])
    kept = int(np.searchsorted(np.cumsum(probabilities), QMD_DECODE.top_p)) + 1
    probabilities = _softmax(scores[best[:kept]] / QMD_DECODE.temperature)
    return int(allowed[best[random.choice(len(probabilities), p=probabilities)]])


def _softmax(scores: Logits) -> NDArray[np.float64]:
    weights = np.exp(scores.astype(np.float64) - scores.max())
    return np.asarray(weights / weights.sum())


def quantise(source: Path, target: Path, quantisation: str) -> None:
    """Writes a bf16 GGUF file in fewer bits; quantisation: llama.cpp's name, such as "Q8_0"."""
    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{quantisation}")
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), parameters):
        raise ArtifactError(f"{source}: llama.cpp could not quantise it to {quantisation}.")
