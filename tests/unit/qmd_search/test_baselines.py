from qmd_search.baselines import BASELINES, measure_baselines
from qmd_search.hybrid import HybridSearch


def test_every_baseline_is_measured_over_all_queries(notes, embedder) -> None:
    with HybridSearch.open(notes, embedder) as search:
        measured = measure_baselines(search, notes)
    assert list(measured) == ["BM25", "vectors", "hybrid"]
    assert measured["BM25"] == {"ndcg@10": 1.0, "recall@20": 1.0, "mrr@10": 1.0}


def test_bm25_takes_any_word_where_the_hybrid_search_wants_all(notes, embedder) -> None:
    with HybridSearch.open(notes, embedder) as search:
        assert BASELINES["BM25"](search, "unicorn backoff") == ["retry"]
        assert not search.lexical("unicorn backoff")
        assert BASELINES["hybrid"](search, "unicorn backoff")[0] == "retry"
        assert len(BASELINES["vectors"](search, "unicorn")) == 5
