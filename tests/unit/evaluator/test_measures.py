from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluator.config import EvaluatorConfig
from evaluator.evalset import EvalSet
from evaluator.measures import (
    Measured,
    entities_dropped,
    is_valid,
    measure_model,
    measure_none,
    model_figures,
    retrieval_figures,
    side_values,
)
from evaluator.models import Model
from evaluator.paired import IncompleteError
from evaluator.retrieval import Retrieval
from evaluator.store import Answer
from qmd_schema.expansion import Line

MODEL = Model(Path("/model"), "0" * 64, None, frozenset(), weight_bytes=1000, cache_bytes=500)
GOOD = (
    "hyde: Late blight shows as brown spots on the leaves of tomato plants in a wet July.\n"
    "lex: tomato blight\nlex: tomato leaves\n"
    "vec: what causes brown spots on tomato plants\nvec: disease of tomato leaves in summer\n"
)


@pytest.fixture(scope="module")
def retrieval(eval_set: EvalSet, tiny_config: EvaluatorConfig) -> Iterator[Retrieval]:
    with Retrieval(eval_set, tiny_config.search_cache, lambda *_: None) as opened:
        yield opened


def answer(query: str, text: str, seed: int = 1, **changes: object) -> Answer:
    values = {"grammar": True, "tokens": 40, "ended": True, "leaked": False} | changes
    return Answer(query, seed, text=text, **values)  # type: ignore[arg-type]


def everything(eval_set: EvalSet, text_of: dict[str, str], free: bool = True) -> list[Answer]:
    """An answer for every query and seed: what `text_of` gives, else one line that repeats the query's first word."""
    texts = {key: text_of.get(key, f"lex: {query.split()[0]}\n") for key, query in eval_set.texts.items()}
    answers = [answer(key, text, seed) for key, text in texts.items() for seed in (1, 2)]
    return answers + [answer(key, texts[key], grammar=False) for key in eval_set.eval_texts if free]


def measure(eval_set, retrieval, config, text_of, free=True) -> Measured:
    return measure_model(MODEL, everything(eval_set, text_of, free), [1.0, 3.0], eval_set, retrieval, config)


def test_a_useful_expansion_lifts_ndcg_over_none(eval_set, retrieval, tiny_config):
    none = measure_none(eval_set, retrieval)["ndcg@10"]
    useful = measure(eval_set, retrieval, tiny_config, {"garden/n1": "lex: tomato blight\n"})
    assert none.keys() == useful.by_query["ndcg@10"].keys() == {"garden/n1", "garden/n2", "garden/n3"}
    assert useful.by_query["ndcg@10"]["garden/n1"] >= none["garden/n1"]


def test_a_query_counts_with_its_mean_over_seeds(eval_set, retrieval, tiny_config):
    answers = everything(eval_set, {})
    answers = [a for a in answers if (a.query, a.seed, a.grammar) != ("garden/n1", 2, True)]
    answers.append(answer("garden/n1", "lex: unicorn rainbow\n", seed=2))
    measured = measure_model(MODEL, answers, [1.0], eval_set, retrieval, tiny_config)
    assert measured.by_query["dropped_lines"]["garden/n1"] == 0.5
    assert measured.by_query["fallback"]["garden/n1"] == 0.5


def test_a_lex_line_that_matches_no_document_is_counted_on_judged_queries_only(eval_set, retrieval, tiny_config):
    texts = {"garden/n1": "lex: tomato leaves\nlex: tomato unicorn\n", "garden/n2": "vec: the frost alarm of Greta\n"}
    unmatched = measure(eval_set, retrieval, tiny_config, texts).by_query["lex_without_match"]
    assert unmatched == {"garden/n1": 0.5, "garden/n2": 1.0, "garden/n3": 0.0}


def test_an_answer_without_any_line_drops_everything_and_falls_back(eval_set, retrieval, tiny_config):
    measured = measure(eval_set, retrieval, tiny_config, dict.fromkeys(eval_set.texts, ""))
    assert set(measured.by_query["dropped_lines"].values()) == {1.0}
    assert set(measured.by_query["fallback"].values()) == {1.0}
    assert measured.valid is not None and not any(any(flags) for flags in measured.valid.values())


def test_the_rubric_is_measured_on_eval_queries_and_retrieval_on_judged_ones(eval_set, retrieval, tiny_config):
    measured = measure(eval_set, retrieval, tiny_config, {})
    assert measured.by_query["rubric"].keys() == eval_set.slices.keys()
    assert measured.by_query["recall@20"].keys() == {"garden/n1", "garden/n2", "garden/n3"}


@pytest.mark.parametrize("lost", ["garden/n2", "queries/short-1"])
def test_a_missing_answer_is_no_measurement(eval_set, retrieval, tiny_config, lost):
    answers = [a for a in everything(eval_set, {}) if (a.query, a.seed, a.grammar) != (lost, 2, True)]
    with pytest.raises(IncompleteError, match=f"1 answers are missing for seed 2, such as {lost}"):
        measure_model(MODEL, answers, None, eval_set, retrieval, tiny_config)


def test_a_missing_output_without_grammar_is_no_measurement(eval_set, retrieval, tiny_config):
    answers = [a for a in everything(eval_set, {}) if a.grammar or a.query != "queries/only-1"]
    with pytest.raises(IncompleteError, match="5 of 6 outputs without grammar"):
        measure_model(MODEL, answers, None, eval_set, retrieval, tiny_config)


def test_figures_leave_out_what_was_not_measured(eval_set, retrieval, tiny_config):
    base = measure_model(MODEL, everything(eval_set, {}, free=False), None, eval_set, retrieval, tiny_config)
    figures = model_figures(base, eval_set.slices, 0.95)
    assert not {"latency_p50", "valid_outputs"} & figures.keys()
    assert side_values(base).valid is None and side_values(base).latency is None


def test_figures_name_collections_and_slices(eval_set, retrieval, tiny_config):
    figures = model_figures(measure(eval_set, retrieval, tiny_config, {}), eval_set.slices, 0.95)
    assert figures["ndcg@10"] == figures["ndcg@10: garden"]
    assert figures["latency_p50"] == 2.0
    assert figures["weight_bytes"] == 1000 and figures["memory_bytes"] == 1500
    assert {"rubric: only", "valid_outputs: short", "excellent: named_entity"} <= figures.keys()
    # Only the two lex-only answers keep the rules: of the others a line is missing.
    assert figures["valid_outputs"] == pytest.approx(1 / 6)


def test_retrieval_figures_give_every_collection_the_same_weight():
    figures = retrieval_figures(
        {metric: {"a/1": 1.0, "b/1": 0.0, "b/2": 0.0, "b/3": 0.0} for metric in ("ndcg@10", "recall@20", "mrr@10")}
    )
    assert figures["ndcg@10"] == 0.5
    assert figures["mrr@10: b"] == 0.0


@pytest.mark.parametrize(
    ("query", "text", "changes", "valid"),
    [
        ("tomato spots", GOOD, {}, True),
        ("tomato spots", GOOD, {"ended": False}, False),
        ("tomato spots", GOOD, {"leaked": True}, False),
        ("tomato spots", GOOD.removesuffix("\n"), {}, False),
        ("tomato spots", GOOD.split("\n", 1)[1] + GOOD.split("\n", 1)[0] + "\n", {}, False),
        ("tomato spots", "Sure! Here is an expansion.\n" + GOOD, {}, False),
        ("tomato spots", "", {}, False),
        ("tomato /only:lex", "lex: tomato\nlex: tomato vine\n", {}, True),
        ("tomato /only:lex", GOOD, {}, False),
    ],
)
def test_an_output_is_valid_when_it_ends_by_itself_and_keeps_every_rule(query, text, changes, valid):
    assert is_valid(query, answer("q", text, grammar=False, **changes)) is valid


@pytest.mark.parametrize(
    ("query", "lines", "dropped"),
    [
        ("warm tea", (Line("lex", "warm tea"),), None),
        ("Kubernetes ingress on Hetzner", (Line("lex", "kubernetes ingress"), Line("vec", "hetzner ingress")), 0.0),
        ("backups with Hetzner and Postgres", (Line("hyde", "Hetzner and Postgres"), Line("lex", "postgres")), 0.5),
        ("moving Hetzner /only:hyde", (Line("hyde", "Moving away from Hetzner took a day."),), 0.0),
        ("moving Hetzner", (), 1.0),
    ],
)
def test_an_entity_is_dropped_when_no_lex_or_vec_line_holds_it(query, lines, dropped):
    assert entities_dropped(query, lines) == dropped
