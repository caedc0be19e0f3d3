import pytest

from qmd_schema.contract import serve
from qmd_search.collections import Collection, Document
from qmd_search.fusion import Hit
from qmd_search.hybrid import HybridSearch
from qmd_search.metrics import measure
from reward_service.retrieval import JudgedSearch
from reward_service.retrieval_queue import Job, NotJudgedError
from support.searching import HashingEmbedder, small_collection

EXPANSION = """hyde: Clients wait after a timeout, then retry with jitter.
lex: backoff jitter
lex: timeout unicorn
lex: garbage
vec: retry policy after a timeout
vec: sourdough with timeout
"""


@pytest.fixture
def notes() -> JudgedSearch:
    return JudgedSearch(small_collection(), None, HashingEmbedder(), None)


def job(query: str, expansion: str) -> Job:
    return Job(query, expansion, "notes")


def ids(hits: list[Hit]) -> list[str]:
    return [hit.id for hit in hits]


@pytest.mark.parametrize("query", ["timeout backoff", "sourdough starter"])
def test_the_qualities_are_those_of_the_hybrid_search(notes: JudgedSearch, query: str) -> None:
    collection = small_collection()
    [id_] = [id_ for id_, text in collection.queries.items() if text == query]
    expansion = EXPANSION.replace("timeout", query.split()[0])
    score = notes.score(job(query, expansion))
    with HybridSearch.open(collection, HashingEmbedder()) as search:
        rankings = {
            "plain": ids(search.search(query)),
            "expanded": ids(search.search(query, serve(query, expansion).lines)),
        }
    expected = measure(rankings, dict.fromkeys(rankings, collection.qrels[id_]))
    for name, found in (("plain", score.without_expansion), ("expanded", score.with_expansion)):
        assert found.ndcg_at_10 == pytest.approx(expected[name]["ndcg@10"])
        assert found.recall_at_20 == pytest.approx(expected[name]["recall@20"])


def test_a_lines_credit_is_what_is_lost_without_it(notes: JudgedSearch) -> None:
    whole = notes.score(job("sourdough starter", "lex: java\nlex: starter java\nvec: java beans starter\n"))
    for index, line in enumerate(whole.lines):
        others = "".join(
            f"{'lex' if other.kind == 1 else 'vec'}: {other.text}\n" for other in whole.lines if other != line
        )
        less = notes.score(job("sourdough starter", others))
        expected = 0.0 if line.is_dropped else whole.gain - less.gain
        assert line.credit == pytest.approx(expected), index


def test_a_line_that_qmd_drops_is_marked_and_earns_nothing(notes: JudgedSearch) -> None:
    score = notes.score(job("timeout backoff", EXPANSION))
    assert [line.text for line in score.lines if line.is_dropped] == ["garbage"]
    [dropped] = [line for line in score.lines if line.is_dropped]
    assert (dropped.credit, dropped.found) == (0.0, 0)


@pytest.mark.parametrize("expansion", ["", "lex: garbage\n", "timeout", "lex: timeout backoff\nvec: timeout backoff\n"])
def test_an_expansion_of_which_nothing_is_searched_with_gains_nothing(notes: JudgedSearch, expansion: str) -> None:
    score = notes.score(job("timeout backoff", expansion))
    assert score.gain == 0 and score.with_expansion == score.without_expansion
    assert score.is_fallback is ("backoff" not in expansion)


def test_each_line_names_the_relevant_documents_it_finds(notes: JudgedSearch) -> None:
    hyde, first, second, _, vec, _ = notes.score(job("timeout backoff", EXPANSION)).lines
    assert [(found.id, found.rank, found.relevance) for found in first.relevant] == [("retry", 1, 1)]
    assert (first.found, second.found) == (1, 0)
    assert hyde.relevant[0].id == vec.relevant[0].id == "retry" and hyde.found == 5


def test_an_only_ending_is_taken_off_before_the_query_is_looked_up(notes: JudgedSearch) -> None:
    bare, ending = (
        notes.score(job(query, "lex: backoff\n")) for query in ("timeout backoff", "timeout backoff /only:lex")
    )
    assert bare == ending


def test_a_query_without_judgements_is_an_error_that_does_not_repeat_it(notes: JudgedSearch) -> None:
    with pytest.raises(NotJudgedError, match="query: is none of the 2 judged in notes") as caught:
        notes.score(job("secret plans", "lex: plans\n"))
    assert "secret" not in str(caught.value)


def test_queries_of_the_same_text_are_judged_together() -> None:
    documents = (Document("a", "tea", "green tea"), Document("b", "tea", "black tea"), Document("c", "pot", "a pot"))
    collection = Collection("twice", documents, {"1": "tea", "2": "tea"}, {"1": {"a": 1}, "2": {"b": 1}})
    search = JudgedSearch(collection, None, HashingEmbedder(), None)
    assert search.score(Job("tea", "", "twice")).without_expansion.recall_at_20 == 1


def test_a_lex_line_of_more_words_than_any_document_holds_together_is_not_searched_for(notes: JudgedSearch) -> None:
    [line] = notes.score(job("timeout backoff", "lex: " + "timeout " * 33 + "\n")).lines
    assert not line.is_dropped and line.found == 0


def test_a_query_that_is_a_strong_signal_gains_nothing() -> None:
    filler = tuple(Document(f"n{number}", "Filler", f"nothing to see {number}") for number in range(500))
    collection = Collection(
        "many", (*filler, Document("z", "Zymurgy", "zymurgy zymurgy")), {"1": "zymurgy"}, {"1": {"z": 1}}
    )
    score = JudgedSearch(collection, None, HashingEmbedder(), None).score(Job("zymurgy", "lex: zymurgy z\n", "many"))
    assert score.is_strong_signal and score.gain == 0 and not score.is_fallback
