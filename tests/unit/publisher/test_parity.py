import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.config import Margins
from publisher.parity import (
    FileParity,
    Worth,
    broken_margins,
    choose_default,
    distance,
    fell_back,
    is_valid,
    shared_lead,
    template_problem,
    tie_problem,
    token_problem,
)
from publisher.questions import evenly

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARGINS = Margins(valid=0.1, rubric=0.05, gain=0.02)
BF16 = Worth(valid=1.0, rubric=0.8, gain=0.03)


def file(quantisation: str, size: int, *broken: str) -> FileParity:
    return FileParity(quantisation, size, 0.01, BF16, broken)


def test_the_same_tokens_are_no_problem() -> None:
    assert token_problem([[1, 1, 2], [1, 1, 3]], [[1, 1, 2], [1, 1, 3]]) is None


def test_the_first_other_token_is_named() -> None:
    assert token_problem([[5], [1, 1, 2]], [[5], [1, 7, 2]]) == (
        "reads QMD's prompt as other tokens than the model was trained on: [7, 2]… instead of [1, 2]… from token 1"
    )
    assert token_problem([[1, 1, 2]], [[1, 1]]) is not None


def test_a_template_that_writes_chatml_is_no_problem() -> None:
    assert template_problem(CHATML) is None


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (" ", "no chat template"),
        (CHATML.replace("<|im_end|>", "</s>"), "does not write ChatML"),
        (CHATML.replace("messages %}", "messages if message.role != 'system' %}"), "does not write ChatML"),
        ("{% for message in %}", "cannot be rendered"),
    ],
    ids=["none", "other marks", "no system turn", "broken"],
)
def test_a_template_that_writes_anything_else_is_named(template: str, reason: str) -> None:
    assert reason in (template_problem(template) or "")


def test_an_output_of_its_own_breaks_tied_embeddings() -> None:
    assert tie_problem({"token_embd.weight", "output.weight"}, is_tied=True) is not None
    assert tie_problem({"token_embd.weight", "output.weight"}, is_tied=False) is None
    assert tie_problem({"token_embd.weight"}, is_tied=True) is None


def test_the_distance_is_nothing_between_equals_and_one_between_certain_opposites() -> None:
    logits = np.array([[50.0, 0.0, 0.0], [0.0, 50.0, 0.0]], np.float32)
    assert distance(logits, logits + 3) == pytest.approx(0, abs=1e-6)
    assert distance(logits, logits[::-1]) == pytest.approx(1)


@given(st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=8), min_size=2, max_size=5))
def test_prompts_share_their_lead_and_each_has_a_token_behind_it(prompts: list[list[int]]) -> None:
    lead = shared_lead(prompts)
    assert len({tuple(prompt[:lead]) for prompt in prompts}) == 1
    assert all(len(prompt) > lead for prompt in prompts)
    longer = {tuple(prompt[: lead + 1]) for prompt in prompts}
    assert len(longer) > 1 or min(map(len, prompts)) == lead + 1


def test_an_answer_that_was_cut_or_breaks_a_rule_is_not_valid() -> None:
    whole = "hyde: tea is steeped\nlex: tea steep\nvec: how to steep tea\n"
    assert is_valid("tea", whole, ended=True)
    assert not is_valid("tea", whole, ended=False)
    assert not is_valid("tea", "lex: tea steep\n", ended=True)


@pytest.mark.parametrize(
    ("worth", "broken"),
    [
        (Worth(0.9, 0.75, 0.01), ()),
        (Worth(1.0, 0.9, 0.5), ()),
        (Worth(0.85, 0.8, 0.03), ("valid answers 0.150 below bf16, at most 0.1 is allowed",)),
        (Worth(1.0, 0.7, 0.03), ("rubric score 0.100 below bf16, at most 0.05 is allowed",)),
        (Worth(1.0, 0.8, -0.01), ("gain in nDCG@10 0.040 below bf16, at most 0.02 is allowed",)),
        (Worth(1.0, 0.8, None), ()),
    ],
)
def test_only_losses_beyond_their_margin_break_it(worth: Worth, broken: tuple[str, ...]) -> None:
    assert broken_margins(worth, BF16, MARGINS) == broken


def test_the_smallest_file_that_holds_every_margin_is_for_qmd() -> None:
    files = [file("bf16", 300), file("Q8_0", 150), file("Q4_K_M", 100, "rubric score 0.2 below")]
    assert choose_default(files) == "Q8_0"
    assert choose_default([files[0], file("Q8_0", 150, "broken")]) == "bf16"


def test_only_k_types_fall_back() -> None:
    assert fell_back("Q4_K_M", {"Q5_0": 180, "Q6_K": 15, "Q8_0": 15, "F32": 61}) == 195
    assert fell_back("Q4_K_M", {"Q4_K": 190, "Q6_K": 20, "F32": 61}) == 0
    assert fell_back("Q8_0", {"Q8_0": 210, "F32": 61}) == 0


@given(st.integers(1, 50), st.integers(1, 50))
def test_questions_are_taken_from_the_whole_of_a_list(size: int, count: int) -> None:
    taken = evenly(range(size), count)
    assert len(taken) == min(size, count) and taken[0] == 0
    assert taken == sorted(set(taken))
