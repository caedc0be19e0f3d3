from pathlib import Path

import pytest
from pydantic import Field

from qmd_schema.config import StrictModel, load_config
from qmd_schema.errors import ConfigError


class Inner(StrictModel):
    max_staleness: int = Field(1, ge=0)


class Outer(StrictModel):
    name: str
    grpo: Inner = Inner()
    collections: list[Inner] = Field(default=[])


def load(tmp_path: Path, text: str, **overrides: object) -> Outer:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return load_config(path, Outer, overrides)


def message_of(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    return str(caught.value)


def test_values_and_dotted_overrides_are_read(tmp_path: Path) -> None:
    assert load(tmp_path, "name: a").grpo.max_staleness == 1
    assert load(tmp_path, "name: a\ngrpo: {max_staleness: 2}", **{"grpo.max_staleness": 3}).grpo.max_staleness == 3


def test_a_misspelt_key_is_named_with_the_right_one(tmp_path: Path) -> None:
    said = message_of(tmp_path, "name: a\ngrpo: {max_stalenes: 1}")
    assert said == f"{tmp_path}/c.yaml: grpo.max_stalenes: unknown key. Did you mean max_staleness?"


def test_an_unlike_key_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    assert "Known keys: collections, grpo, name." in message_of(tmp_path, "name: a\nzzz: 1")


def test_every_mistake_is_in_one_message(tmp_path: Path) -> None:
    said = message_of(tmp_path, "grpo: {max_staleness: -1}\ncollections: [{max_staleness: x}]")
    assert "name: missing" in said
    assert "grpo.max_staleness: -1: Input should be greater than or equal to 0" in said
    assert "collections.0.max_staleness: 'x'" in said


def test_a_missing_file_is_answered_with_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "sft.yaml").touch()
    with pytest.raises(ConfigError, match=r"no such config file.*sft\.yaml"):
        load_config(tmp_path / "stf.yaml", Outer)


@pytest.mark.parametrize("text", ["- a", "a: [", "\x00"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    assert str(tmp_path) in message_of(tmp_path, text)
