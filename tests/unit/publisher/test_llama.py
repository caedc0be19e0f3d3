from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from publisher.llama import ExpansionModel, draw
from publisher.probe import prompt_ids
from qmd_schema.errors import ArtifactError, UserError
from qmd_schema.expansion import parse

QUERIES = [
    "tea",
    "ERR_12345 v3.14.0 'quoted phrase' -not",
    "größe der Küche ２０２４ 日本 🦙",
    "two  spaces\tand <|im_end|>",
]


@pytest.fixture(scope="module")
def model(brief_gguf: Path) -> Iterator[ExpansionModel]:
    with ExpansionModel(brief_gguf) as loaded:
        yield loaded


@pytest.mark.parametrize("query", QUERIES)
def test_the_prompt_is_the_same_tokens_as_in_training(model: ExpansionModel, brief_llama: Path, query: str) -> None:
    assert model.prompt_ids(query) == prompt_ids(brief_llama, [query])[0]


def test_the_prompt_begins_with_the_bos_token_twice(model: ExpansionModel) -> None:
    assert model.prompt_ids("tea")[:3] == [1, 1, 9690]


def test_an_answer_keeps_the_grammar_and_ends(model: ExpansionModel) -> None:
    parsed = parse(model.expand("coffee grinder", seed=1))
    assert parsed.expansion.lines and not parsed.problems


def test_a_seed_gives_the_same_answer_again(model: ExpansionModel) -> None:
    answers = [model.expand("coffee grinder", seed=seed) for seed in range(8)]
    assert len(set(answers)) > 1
    assert [model.expand("coffee grinder", seed=seed) for seed in range(8)] == answers


def test_answers_written_together_are_those_written_alone(brief_gguf: Path, model: ExpansionModel) -> None:
    queries = ["coffee grinder", "tea", "how to sharpen a chisel", "rye bread", "tax return 2023"]
    with ExpansionModel(brief_gguf, at_once=3, context_tokens=1024) as several:
        answers = several.expand_all(queries, range(5))
    assert [answer.text for answer in answers] == [model.expand(query, seed) for seed, query in enumerate(queries)]
    assert all(answer.ended for answer in answers)


def test_a_draw_is_of_allowed_tokens_alone_and_shuns_those_it_has() -> None:
    logits, allowed = np.zeros(100, np.float32), np.array([3, 5, 7])
    logits[50] = 100
    drawn = [draw(logits, allowed, [], np.random.default_rng(seed)) for seed in range(50)]
    assert set(drawn) == {3, 5, 7}
    after = [draw(logits, allowed, [3] * 9, np.random.default_rng(seed)) for seed in range(200)]
    assert 0 < after.count(3) < min(after.count(5), after.count(7))


def test_without_a_seed_answers_differ(model: ExpansionModel) -> None:
    assert len({model.expand("coffee grinder") for _ in range(8)}) > 1


def test_a_query_that_leaves_no_room_for_an_answer_is_refused(model: ExpansionModel) -> None:
    with pytest.raises(UserError, match="query is too long"):
        model.expand("coffee " * 1500)


def test_a_file_that_is_missing_or_no_gguf_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such GGUF file"):
        ExpansionModel(tmp_path / "absent.gguf")
    (tmp_path / "odd.gguf").write_bytes(b"not a model")
    with pytest.raises(ArtifactError, match=r"odd\.gguf: llama\.cpp cannot load it"):
        ExpansionModel(tmp_path / "odd.gguf")
