"""The gates of data/: what the project trains on is worth training on."""

from collections import Counter
from pathlib import Path
from statistics import mean

import pytest

from qmd_schema.config import load_config
from qmd_schema.examples import LoadedExample, load_examples
from trainer.config import PrepareConfig
from trainer.curation import check_training_set, score_row
from trainer.dataset import load_eval_queries, slice_of

MINIMUM_ROWS = 2000
MINIMUM_SLICE = 120
SMALL_SLICES = {"other_languages"}


@pytest.fixture(scope="module")
def examples(root: Path) -> list[LoadedExample]:
    return load_examples(sorted((root / "data").glob("*.jsonl")))


@pytest.mark.parametrize("profile", ["configs", "configs/cpu"])
def test_lint_finds_nothing(root: Path, examples: list[LoadedExample], profile: str) -> None:
    config = load_config(root / profile / "prepare.yaml", PrepareConfig)
    judged = load_eval_queries(config.model_copy(update={"evals": root / "evals"}))
    findings = check_training_set(examples, judged, config)
    assert "\n".join(map(str, findings)) == ""


def test_the_rubric_mean_is_at_least_95_and_no_row_is_below_75(examples: list[LoadedExample]) -> None:
    percentages = [score_row(loaded.example).percentage for loaded in examples]
    assert mean(percentages) >= 95
    assert min(percentages) >= 75


def test_there_are_enough_rows_in_every_slice(examples: list[LoadedExample]) -> None:
    rows = Counter(map(slice_of, examples))
    assert len(examples) >= MINIMUM_ROWS
    small = {name: count for name, count in rows.items() if count < MINIMUM_SLICE and name not in SMALL_SLICES}
    assert small == {}


def test_a_file_is_a_slice(examples: list[LoadedExample]) -> None:
    misplaced = [loaded.where for loaded in examples if slice_of(loaded) != loaded.path.stem]
    assert misplaced == []
