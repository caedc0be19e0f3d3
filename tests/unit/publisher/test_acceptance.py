from dataclasses import replace
from pathlib import Path

import pytest

from publisher.acceptance import Acceptance, read_acceptance
from qmd_schema.artifacts import sha256_file
from qmd_schema.errors import ArtifactError
from support.qmd_acceptance import Row, mean_row, missed_targets, table

GOOD = Row(
    queries=60,
    dropped=0.02,
    fallbacks=0.0,
    cut=0.01,
    milliseconds=900.0,
    tokens=80.0,
    expanded={"ndcg@10": 0.62, "recall@20": 0.8},
    plain={"ndcg@10": 0.6, "recall@20": 0.8},
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"GGUF and more")
    return path


def test_what_was_measured_counts_for_the_files_it_is_about_alone(file: Path, tmp_path: Path) -> None:
    acceptance = Acceptance(files={"mine": sha256_file(file)}, table=table({("mine", "notes"): GOOD}))
    path = tmp_path / "acceptance.json"
    assert read_acceptance(path, [file]) is None
    path.write_text(acceptance.model_dump_json())
    assert read_acceptance(path, [file]) == acceptance
    file.write_bytes(b"GGUF and other weights")
    assert read_acceptance(path, [file]) is None


def test_a_file_that_is_no_acceptance_is_named(file: Path, tmp_path: Path) -> None:
    (tmp_path / "acceptance.json").write_text('{"table": 3}')
    with pytest.raises(ArtifactError, match=r"acceptance\.json: not what `make qmd-acceptance` writes"):
        read_acceptance(tmp_path / "acceptance.json", [file])


def test_each_collection_weighs_the_same_in_the_mean() -> None:
    worse = replace(GOOD, queries=30, dropped=0.06, expanded={"ndcg@10": 0.5, "recall@20": 0.6})
    mean = mean_row([GOOD, worse])
    assert (mean.queries, mean.dropped, mean.milliseconds) == (90, pytest.approx(0.04), 900.0)
    assert mean.expanded == pytest.approx({"ndcg@10": 0.56, "recall@20": 0.7}) and mean.plain == GOOD.plain


def test_a_model_is_told_every_target_that_it_misses() -> None:
    assert missed_targets(GOOD) == []
    bad = replace(GOOD, dropped=0.92, fallbacks=0.7, cut=0.9, expanded={"ndcg@10": 0.6, "recall@20": 0.9})
    assert missed_targets(bad) == [
        "lines dropped 92.0%, at most 3%",
        "fallbacks 70.0%, at most 1%",
        "cut at 600 90.0%, at most 1%",
        "nDCG@10 +0.000 against no expansion",
    ]
