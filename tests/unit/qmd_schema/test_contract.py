import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmd_schema.contract import bos_token, fallback, keeps, prompt_text, query_terms, serve
from qmd_schema.errors import ArtifactError
from qmd_schema.expansion import Line


def test_the_prompt_opens_with_a_doubled_turn_marker_where_bos_is_that_marker() -> None:
    assert prompt_text("tea", "<|im_start|>").startswith("<|im_start|><|im_start|>system\nYou are a helpful")
    assert prompt_text("tea", None).startswith("<|im_start|>system\n")
    assert prompt_text("tea", "<|endoftext|>") == prompt_text("tea", None)


def test_the_prompt_ends_where_the_answer_begins() -> None:
    assert prompt_text("tea", None).endswith(
        "<|im_end|>\n<|im_start|>user\n/no_think Expand this search query: tea<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_bos_token_is_read_from_the_model_folder(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no tokenizer_config"):
        bos_token(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": {"content": "<s>"}}))
    assert bos_token(tmp_path) == "<s>"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": None}))
    assert bos_token(tmp_path) is None


def test_terms_are_what_is_left_of_a_to_z_and_digits() -> None:
    assert query_terms("Café-Öffnung 2026: C++?") == ["caf", "ffnung", "2026", "c"]


def test_a_line_is_kept_when_it_holds_any_query_term_as_a_substring() -> None:
    assert keeps("reset Postgres", "PostgreSQL passwords")
    assert not keeps("reset postgres", "database password")
    assert keeps("日本語", "anything")


def test_dropped_lines_are_told_apart_from_kept_ones() -> None:
    served = serve("green tea", "hyde: Tea is steeped.\nlex: camellia leaf\nnonsense\nvec: how is tea: made\n")
    assert served.lines == (Line("hyde", "Tea is steeped."), Line("vec", "how is tea: made"))
    assert served.dropped == (Line("lex", "camellia leaf"),)
    assert not served.is_fallback


def test_the_fallback_stands_in_when_every_line_is_dropped_and_its_echoes_go() -> None:
    served = serve("green tea", "lex: camellia\n")
    assert served.is_fallback
    assert served.lines == (Line("hyde", "Information about green tea"),)
    assert len(fallback("green tea")) == 3


@given(st.text(), st.text())
def test_serving_never_raises_and_never_keeps_an_echo(query: str, answer: str) -> None:
    assert all(line.text != query for line in serve(query, answer).lines)
