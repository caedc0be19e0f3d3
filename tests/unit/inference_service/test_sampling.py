import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_service.sampling import draw, penalty_window, subtract_presence_penalty, uniform
from qmd_schema.contract import QMD_DECODE, Decode

DRAWS = 20_000


def reference(logits: list[float], window: set[int], decode: Decode) -> dict[int, float]:
    """llama.cpp's chain as it is written there: a list of candidates that shrinks. Probability by token."""
    candidates = [(logit - decode.presence_penalty * (token in window), token) for token, logit in enumerate(logits)]
    candidates.sort(reverse=True)
    if decode.top_k:
        candidates = candidates[: decode.top_k]
    reached, kept = 0.0, []
    total = sum(math.exp(logit) for logit, _ in candidates)
    for logit, token in candidates:
        kept.append((logit, token))
        reached += math.exp(logit) / total
        if reached >= decode.top_p:
            break
    weights = {token: math.exp((logit - kept[0][0]) / decode.temperature) for logit, token in kept}
    return {token: weight / sum(weights.values()) for token, weight in weights.items()}


def frequencies(logits: list[float], window: set[int], decode: Decode) -> dict[int, float]:
    """How often `draw` gives each token over evenly spaced random numbers, which is its probability to 1 in DRAWS."""
    rows = torch.tensor([logits])
    subtract_presence_penalty(rows, [window], decode.presence_penalty)
    uniforms = (torch.arange(DRAWS, dtype=torch.float64) + 0.5) / DRAWS
    tokens, counts = draw(rows.expand(DRAWS, -1), decode, uniforms).unique(return_counts=True)
    return dict(zip(tokens.tolist(), (counts / DRAWS).tolist(), strict=True))


@pytest.mark.parametrize(
    "decode",
    [
        QMD_DECODE,
        Decode(temperature=1.0, top_k=0, top_p=1.0, presence_penalty=0.0),
        Decode(temperature=1.3, top_k=0, top_p=0.6),
        Decode(temperature=0.4, top_k=3, top_p=1.0, presence_penalty=2.0),
        Decode(top_k=500, top_p=0.05),
    ],
)
def test_tokens_come_as_often_as_in_llama_cpp(decode: Decode) -> None:
    logits = (torch.randn(300, generator=torch.Generator().manual_seed(1)) * 2).tolist()
    window = set(range(0, 300, 3))
    expected = reference(logits, window, decode)
    drawn = frequencies(logits, window, decode)
    assert drawn.keys() <= expected.keys()
    assert all(drawn.get(token, 0.0) == pytest.approx(share, abs=3 / DRAWS) for token, share in expected.items())


@settings(max_examples=50, deadline=None)
@given(
    logits=st.lists(st.integers(-40, 40).map(lambda step: step / 8), min_size=2, max_size=40, unique=True),
    window=st.sets(st.integers(0, 1)),
    decode=st.builds(
        Decode,
        temperature=st.floats(0.1, 2),
        top_k=st.integers(0, 50),
        top_p=st.floats(0.02, 0.97),
        presence_penalty=st.sampled_from([0.0, 0.03, 1.01]),
    ),
)
def test_no_token_is_drawn_that_llama_cpp_could_not_draw(logits: list[float], window: set[int], decode: Decode) -> None:
    assert frequencies(logits, window, decode).keys() <= reference(logits, window, decode).keys()


def test_a_temperature_of_zero_takes_the_best_token() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.999]])
    assert draw(logits, Decode(temperature=0.0), torch.tensor([0.999], dtype=torch.float64)).tolist() == [1]


def test_the_greatest_random_number_draws_an_allowed_token() -> None:
    logits = torch.full((1, 1000), float("-inf"))
    logits[0, :3] = torch.tensor([0.1, 0.2, 0.3])
    greatest = torch.tensor([1 - 2**-32], dtype=torch.float64)
    for decode in (QMD_DECODE, Decode(temperature=1.0, top_k=0, top_p=1.0)):
        assert draw(logits, decode, greatest).item() < 3


def test_the_penalty_looks_at_the_last_64_tokens_and_leaves_newlines_alone() -> None:
    answer = [7, 8, *range(100, 162), 198]
    assert penalty_window(answer, QMD_DECODE, newline=198) == {8, *range(100, 162)}
    assert penalty_window(answer, Decode(penalty_window=0), newline=198) == set()


def test_a_token_that_occurs_twice_is_penalised_once() -> None:
    logits = torch.zeros(2, 4)
    subtract_presence_penalty(logits, [penalty_window([1, 1, 2], QMD_DECODE, newline=2), set()], 0.5)
    assert logits.tolist() == [[0, -0.5, 0, 0], [0, 0, 0, 0]]


def test_random_numbers_are_uniform_and_depend_on_seed_place_and_attempt() -> None:
    numbers = torch.tensor(
        [uniform(seed, place, attempt) for seed in range(100) for place in range(50) for attempt in (0, 1)]
    )
    counts = torch.histc(numbers, bins=20, min=0, max=1)
    assert len(set(numbers.tolist())) > 9_990
    assert ((counts - 500) ** 2 / 500).sum() < 43.8  # the 99.9 % point of chi-squared with 19 degrees of freedom
