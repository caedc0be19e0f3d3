"""The gate on the answers of simulated models, from their text to the verdict."""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from evaluator.config import EvaluatorConfig, GateConfig
from evaluator.evalset import load_eval_set
from evaluator.measures import is_valid
from evaluator.planted import faults, write_answers
from evaluator.rehearsal import Rehearsal, broken_guards
from evaluator.retrieval import Retrieval
from qmd_schema.config import CollectionConfig

TOPICS, DOCUMENTS = 8, 5
"""Topics of a collection, and documents of a topic, each of which answers one query."""


def write_collection(folder: Path) -> CollectionConfig:
    """Documents that share their topic's word and differ in words of their own."""
    random = Random(folder.name)

    def word() -> str:
        return "".join(random.choice("bdfgklmnprst") + random.choice("aeiou") for _ in range(4))

    filler = [word() for _ in range(30)]
    documents, queries, judgements = [], [], ["query-id\tcorpus-id\tscore"]
    for topic in [word() for _ in range(TOPICS)]:
        for number in range(DOCUMENTS):
            own = [word() for _ in range(6)]
            text = " ".join([topic, *own, *random.sample(filler, 12)])
            documents.append({"_id": f"{topic}{number}", "title": "", "text": text})
            queries.append({"_id": f"q{len(queries)}", "text": f"{topic} {random.choice(filler)} {own[0]}"})
            judgements.append(f"{queries[-1]['_id']}\t{documents[-1]['_id']}\t1")
    folder.mkdir()
    for name, rows in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "qrels.tsv").write_text("\n".join(judgements) + "\n")
    return CollectionConfig(path=folder)


@pytest.fixture(scope="module")
def rehearsal(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    folder = tmp_path_factory.mktemp("planted")
    config = EvaluatorConfig(
        queries=root / "evals/queries.jsonl",
        queries_per_slice=10,
        collections=[write_collection(folder / name) for name in ("harbour", "orchard")],
        search_cache=folder / "search",
        gate=GateConfig(resamples=1000, minimum_queries=10),
    )
    eval_set = load_eval_set(config)
    with Retrieval(eval_set, config.search_cache, lambda *_: None) as retrieval:
        yield Rehearsal(eval_set, retrieval, config, usual=0.3, better=0.9, samples=4)


def test_every_planted_answer_keeps_every_rule(rehearsal):
    queries = rehearsal.eval_set.texts
    answers = write_answers(rehearsal.eval_set, skill=0.9, seed=1)
    assert all(is_valid(queries[answer.query], answer) for answer in answers)


def test_skill_is_worth_something(rehearsal):
    assert rehearsal.full_gain > 0.05


def test_a_better_model_passes(rehearsal):
    decision = rehearsal.compare_better(None)
    assert decision.outcome == "PASS", decision.reasons


@pytest.mark.parametrize("name", faults("harbour"))
def test_a_better_model_with_a_fault_fails_by_the_guard_that_looks_for_it(rehearsal, name):
    fault = faults("harbour")[name]
    decision = rehearsal.compare_better(fault)
    assert decision.outcome == "FAIL"
    assert any(guard.startswith(fault.guard) for guard in broken_guards(decision)), broken_guards(decision)


def test_a_model_against_itself_seldom_passes_and_a_much_better_one_does(rehearsal):
    assert sum(rehearsal.compare(0, run).outcome == "PASS" for run in range(40)) <= 2
    assert sum(rehearsal.compare(0.8, run).outcome == "PASS" for run in range(10)) >= 8
