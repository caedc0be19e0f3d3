"""QMD's draws for the rows of a batch, whichever engine worked out their logits."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import xgrammar
from torch import Tensor

from inference_service.sampling import draw, penalty_window, subtract_presence_penalty, uniform
from qmd_schema.contract import GRAMMAR, Decode


@dataclass
class Row:
    """One answer that is being written."""

    decode: Decode
    seed: int
    answer: list[int]
    """The engine's own list: it grows by every token that was kept."""
    matcher: xgrammar.GrammarMatcher | None
    matched: int = 0
    """Tokens of the answer that the matcher has read."""

    def allows(self, token: int) -> bool:
        """Whether the grammar allows the token next. The matcher does not keep it: the engine may still discard it."""
        if self.matcher is None:
            return True
        for kept in self.answer[self.matched :]:
            self.matcher.accept_token(kept)
        self.matched = len(self.answer)
        allowed = self.matcher.accept_token(token)
        if allowed:
            self.matcher.rollback(1)
        return allowed


class Drawer:
    """Draws tokens of one vocabulary as QMD's client does."""

    def __init__(self, tokens: xgrammar.TokenizerInfo, newline: int) -> None:
        """newline: the token of a line's end, which the presence penalty leaves alone."""
        self._vocabulary = tokens.vocab_size
        self._end = tokens.stop_token_ids[0]
        self._newline = newline
        self._grammar = xgrammar.GrammarCompiler(tokens).compile_grammar(GRAMMAR)

    def row(self, decode: Decode, seed: int, answer: list[int], with_grammar: bool) -> Row:
        return Row(decode, seed, answer, xgrammar.GrammarMatcher(self._grammar) if with_grammar else None)

    def draw(self, logits: Tensor, rows: Sequence[Row]) -> Tensor:
        """The next token of each row, [rows]; all of them have the same decode.

        logits: [rows, vocabulary], float32; penalised in place. A token that the grammar forbids is drawn again under
        the grammar. Where a logit is not a number the answer ends, whatever the grammar wants.
        """
        decode = rows[0].decode
        broken = logits.amax(-1).isnan()  # it is not a number if any of the row is not
        logits[broken] = 0.0
        if decode.presence_penalty:
            windows = [penalty_window(row.answer, decode, self._newline) for row in rows]
            subtract_presence_penalty(logits, windows, decode.presence_penalty)
        tokens = draw(logits, decode, _uniforms(rows, attempt=0, device=logits.device))
        tokens[broken] = self._end
        illegal = [
            place for place, token in enumerate(tokens.tolist()) if not broken[place] and not rows[place].allows(token)
        ]
        if illegal:
            again = [rows[place] for place in illegal]
            masked = self._mask(logits[illegal], again)
            tokens[illegal] = draw(masked, decode, _uniforms(again, attempt=1, device=logits.device))
        return tokens

    def _mask(self, logits: Tensor, rows: Sequence[Row]) -> Tensor:
        bitmask = xgrammar.allocate_token_bitmask(len(rows), self._vocabulary)
        for place, row in enumerate(rows):
            assert row.matcher is not None
            row.matcher.fill_next_token_bitmask(bitmask, place)
        xgrammar.apply_token_bitmask_inplace(logits, bitmask.to(logits.device))
        return logits


def _uniforms(rows: Sequence[Row], attempt: int, device: torch.device) -> Tensor:
    numbers = [uniform(row.seed, len(row.answer), attempt) for row in rows]
    return torch.tensor(numbers, dtype=torch.float64, device=device)
