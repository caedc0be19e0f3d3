"""How QMD's client draws a token: presence penalty, top-k, top-p, temperature, draw, in this order.

Read off node-llama-cpp 3.20 over llama.cpp, which is what QMD runs.
"""

from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import Tensor

from qmd_schema.contract import Decode

_COLDEST = 1e-6
"""Stands for a temperature of 0: only the best token has weight."""


def subtract_presence_penalty(logits: Tensor, windows: Sequence[set[int]], penalty: float) -> None:
    """Lowers, in place, the logit of every token that occurs in its row's window, once however often it occurs.

    logits: [rows, vocabulary]; windows: a set of token ids a row.
    """
    rows = [row for row, window in enumerate(windows) for _ in window]
    tokens = [token for window in windows for token in window]
    logits[rows, tokens] -= penalty


def penalty_window(answer: Sequence[int], decode: Decode, newline: int) -> set[int]:
    """The tokens to penalise after the answer so far: those of its last tokens, newlines counted but left out."""
    return set(answer[-decode.penalty_window :] if decode.penalty_window else ()) - {newline}


def draw(logits: Tensor, decode: Decode, uniforms: Tensor) -> Tensor:
    """One token a row: the `top_k` best, of these the fewest that reach `top_p`, then by temperature.

    logits: [rows, vocabulary], penalised and masked, -inf where a token is forbidden.
    uniforms: [rows], float64, in [0, 1); the same number draws the same token.
    `top_p` is taken on the softmax of the `top_k` at temperature 1. A `top_k` of 0 keeps the whole vocabulary.
    Returns token ids, [rows].
    """
    vocabulary = logits.shape[-1]
    if decode.top_k or decode.top_p < 1:
        values, tokens = logits.topk(min(decode.top_k or vocabulary, vocabulary))
        probabilities = values.softmax(-1)
        before = probabilities.cumsum(-1) - probabilities
        values = values.masked_fill(before >= decode.top_p, float("-inf"))
    else:
        values, tokens = logits, None
    mass = (values / max(decode.temperature, _COLDEST)).softmax(-1).cumsum(-1, dtype=torch.float64)
    picked = torch.searchsorted(mass, uniforms[:, None] * mass[:, -1:], right=True)
    return (picked if tokens is None else tokens.gather(-1, picked)).squeeze(-1)


def uniform(seed: int, position: int, attempt: int) -> float:
    """The random number in [0, 1) for one draw, from its seed, its place in the answer and its attempt alone.

    So an answer is the same whichever answers are drawn beside it, and after it was interrupted and resumed.
    """
    digest = blake2b(f"{seed} {position} {attempt}".encode(), digest_size=4).digest()
    return int.from_bytes(digest) / 2**32
