from pathlib import Path

import pytest

from qmd_schema.artifacts import (
    folder_written_atomically,
    read_manifest,
    sha256_folder,
    write_manifest,
    write_text_atomically,
)
from qmd_schema.config import StrictModel
from qmd_schema.errors import ArtifactError


class Config(StrictModel):
    rate: float = 0.1


def test_a_folder_hash_sees_names_and_contents_and_not_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    before = sha256_folder(tmp_path)
    write_manifest(tmp_path, "sft", Config(), {"data": "00"}, seconds=1.0, packages=["pydantic"], seed=7)
    assert sha256_folder(tmp_path) == before
    (tmp_path / "a").write_text("2")
    changed = sha256_folder(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert len({before, changed, sha256_folder(tmp_path)}) == 3


def test_a_stage_without_a_manifest_is_unfinished(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    (tmp_path / "out.txt").write_text("x")
    written = write_manifest(tmp_path, "sft", Config(), {}, seconds=1.0, packages=["pydantic"], figures={"loss": 2})
    assert read_manifest(tmp_path) == written
    assert set(written.outputs) == {"out.txt"}
    assert written.config == {"rate": 0.1} and "pydantic" in written.versions


def test_a_torn_manifest_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"stage": "sft"')
    with pytest.raises(ArtifactError, match="Delete the folder"):
        read_manifest(tmp_path)


def test_a_failed_folder_write_leaves_the_old_folder_and_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with folder_written_atomically(target) as folder:
        (folder / "w").write_text("old")
    with pytest.raises(RuntimeError), folder_written_atomically(target) as folder:
        (folder / "w").write_text("new")
        raise RuntimeError("disk")
    assert (target / "w").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_text_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    write_text_atomically(path, "one")
    write_text_atomically(path, "two")
    assert path.read_text() == "two"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]
