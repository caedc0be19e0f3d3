from dataclasses import replace
from pathlib import Path

import pytest

from qmd_schema.expansion import Line
from qmd_search.collections import Collection, Document
from qmd_search.fusion import FoundBy
from qmd_search.hybrid import CANDIDATES, HybridSearch
from qmd_search.vectors import TextEmbedder


def names(search: HybridSearch, query: str, lines: list[Line]) -> set[str]:
    return {found.list for hit in search.search(query, lines) for found in hit.found_by}


def test_a_lex_line_with_one_word_too_many_finds_nothing(notes: Collection, embedder: TextEmbedder) -> None:
    with HybridSearch.open(notes, embedder) as search:
        assert [id_ for id_, _ in search.lexical("retry backoff")] == ["retry"]
        assert not search.lexical("retry backoff unicorn")


def test_the_query_searches_text_and_vectors_at_double_weight(notes: Collection, embedder: TextEmbedder) -> None:
    with HybridSearch.open(notes, embedder) as search:
        best = search.search("retry backoff")[0]
    assert best.id == "retry"
    assert best.found_by == (FoundBy("query fts", 1), FoundBy("query vec", 1))
    assert best.score == pytest.approx(2 / 61 + 2 / 61 + 0.05)


def test_each_line_searches_by_its_kind_and_is_named_by_it(notes: Collection, embedder: TextEmbedder) -> None:
    lines = [Line("hyde", "bake the dough"), Line("lex", "java heap"), Line("lex", "starter"), Line("vec", "moka pot")]
    with HybridSearch.open(notes, embedder) as search:
        hits = {hit.id: hit.found_by for hit in search.search("timeout", lines)}
    assert FoundBy("lex 1", 1) in hits["jvm"]
    assert FoundBy("lex 2", 1) in hits["bread"]
    assert FoundBy("hyde", 1) in hits["bread"]
    assert FoundBy("vec 1", 1) in hits["coffee"]
    assert not any(found.list.startswith("lex") for found in hits["coffee"])


def test_an_expansion_line_weighs_one(notes: Collection, embedder: TextEmbedder) -> None:
    with HybridSearch.open(notes, embedder) as search:
        before = {hit.id: hit.score for hit in search.search("timeout backoff")}
        after = {hit.id: hit.score for hit in search.search("timeout backoff", [Line("lex", "backoff")])}
    assert after["retry"] - before["retry"] == pytest.approx(1 / 61)


def test_of_lines_alone_the_first_that_finds_anything_weighs_as_much_as_a_query(
    notes: Collection, embedder: TextEmbedder
) -> None:
    lines = [Line("vec", "moka pot"), Line("lex", "unicorn"), Line("lex", "java heap"), Line("lex", "starter")]
    with HybridSearch.open(notes, embedder) as search:
        hits = {hit.id: hit for hit in search.search_lines(lines)}
        assert search.search_lines([Line("lex", "unicorn")]) == search.search_lines([]) == []
    assert {found.list for hit in hits.values() for found in hit.found_by} == {"lex 2", "lex 3", "vec 1"}
    by_vector = {found.list: found.rank for found in hits["jvm"].found_by}["vec 1"]
    assert hits["jvm"].score == pytest.approx(2 / 61 + 1 / (60 + by_vector) + 0.05)


def test_a_strong_signal_leaves_the_expansion_out(embedder: TextEmbedder) -> None:
    filler = tuple(Document(f"n{number}", "Filler", f"nothing to see {number}") for number in range(500))
    target = Document("z", "Zymurgy", "zymurgy zymurgy")
    collection = Collection("many", (*filler, target), {}, {})
    lines = [Line("lex", "nothing"), Line("vec", "see")]
    with HybridSearch.open(collection, embedder) as search:
        assert search.is_strong_signal("zymurgy")
        assert names(search, "zymurgy", lines) == {"query fts", "query vec"}
        assert not search.is_strong_signal("nothing")
        assert names(search, "nothing", lines) == {"query fts", "query vec", "lex 1", "vec 1"}


def test_no_more_documents_come_back_than_qmd_keeps(embedder: TextEmbedder) -> None:
    documents = tuple(Document(f"{word}{n}", word, f"{word} {n}") for word in ("oak", "elm", "fir") for n in range(30))
    lines = [Line("lex", "elm"), Line("lex", "fir"), Line("vec", "fir"), Line("vec", "elm")]
    with HybridSearch.open(Collection("trees", documents, {}, {}), embedder) as search:
        assert len(search.search("oak", lines, limit=1000)) == CANDIDATES
        assert len(search.search("oak", lines, limit=3)) == 3


def test_semantic_search_ranks_a_document_by_its_best_chunk(embedder: TextEmbedder) -> None:
    long = Document("long", "Log", "filler words here\n" * 200 + "\n# Zebra\n" + "zebra " * 400)
    short = Document("short", "Animals", "zebra and lion and a filler")
    with HybridSearch.open(Collection("zoo", (short, long), {}, {}), embedder) as search:
        assert [id_ for id_, _ in search.semantic("zebra")] == ["long", "short"]


def test_bm25_alone_finds_documents_by_any_word(notes: Collection, embedder: TextEmbedder) -> None:
    with HybridSearch.open(notes, embedder) as search:
        assert {id_ for id_, _ in search.bm25("backoff unicorn dough")} == {"retry", "bread"}


def test_a_second_open_reads_the_index_from_disk(notes: Collection, embedder: TextEmbedder, tmp_path: Path) -> None:
    embedded: list[int] = []

    def count(done: int, _total: int) -> None:
        embedded.append(done)

    with HybridSearch.open(notes, embedder, tmp_path, count) as search:
        first = search.search("java timeout", [Line("vec", "moka pot")])
    with HybridSearch.open(notes, embedder, tmp_path, count) as search:
        assert search.search("java timeout", [Line("vec", "moka pot")]) == first
    assert embedded == [len(notes.documents)]
    with HybridSearch.open(notes, embedder) as in_memory:
        assert in_memory.search("java timeout", [Line("vec", "moka pot")]) == first


def test_a_changed_document_is_indexed_anew(notes: Collection, embedder: TextEmbedder, tmp_path: Path) -> None:
    HybridSearch.open(notes, embedder, tmp_path).close()
    changed = replace(notes, documents=(replace(notes.documents[0], text="a unicorn"), *notes.documents[1:]))
    with HybridSearch.open(changed, embedder, tmp_path) as search:
        assert search.lexical("unicorn")


def test_an_index_that_was_not_finished_leaves_nothing_behind(
    notes: Collection, embedder: TextEmbedder, tmp_path: Path
) -> None:
    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        HybridSearch.open(notes, embedder, tmp_path, on_progress=interrupt)
    assert not list(tmp_path.iterdir())
