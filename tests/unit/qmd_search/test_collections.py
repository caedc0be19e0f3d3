import json
from collections.abc import Callable
from pathlib import Path

import pytest

from qmd_schema.errors import DataError
from qmd_search.collections import Document, load_collection, load_documents

CORPUS = [{"_id": "d1", "title": "One", "text": "first"}, {"_id": "d2", "title": "", "text": "second"}]
QUERIES = [{"_id": "q1", "text": "which is first"}, {"_id": "q2", "text": "never judged"}]
HEADER = "query-id\tcorpus-id\tscore\n"

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(corpus: list[object] | str = CORPUS, queries: list[object] | str = QUERIES, **qrels: str) -> Path:
        folder = tmp_path / "tiny"
        folder.mkdir()
        for name, rows in (("corpus", corpus), ("queries", queries)):
            text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
        for name, rows in (qrels or {"qrels": "q1\td1\t1\n"}).items():
            (folder / f"{name}.tsv").write_text(HEADER + rows)
        return folder

    return write


def test_a_folder_is_read_whole_and_in_order(write: Write) -> None:
    collection = load_collection(write(qrels="q1\td1\t2\nq1\td2\t0\n"))
    assert collection.name == "tiny"
    assert collection.documents == (Document("d1", "One", "first"), Document("d2", "", "second"))
    assert collection.qrels == {"q1": {"d1": 2, "d2": 0}}


def test_only_judged_queries_are_loaded(write: Write) -> None:
    assert load_collection(write()).queries == {"q1": "which is first"}


def test_a_split_picks_its_judgements(write: Write) -> None:
    folder = write(qrels="q1\td1\t1\n", qrels_dev="q2\td2\t1\n")
    assert load_collection(folder, "dev").qrels == {"q2": {"d2": 1}}
    with pytest.raises(DataError, match=r"qrels_test\.tsv: no such file.*holds qrels\.tsv, qrels_dev\.tsv"):
        load_collection(folder, "test")


def test_documents_load_without_queries(write: Write) -> None:
    folder = write()
    (folder / "queries.jsonl").unlink()
    assert len(load_documents(folder).documents) == 2
    with pytest.raises(DataError, match=r"queries\.jsonl: no such file"):
        load_collection(folder)


@pytest.mark.parametrize(
    ("qrels", "message"),
    [
        ("q1\td9\t1\n", r'qrels\.tsv:2: document "d9" is not in corpus\.jsonl'),
        ("q1\td1\t1\nq9\td1\t1\n", r'qrels\.tsv:3: query "q9" is not in queries\.jsonl'),
        ("q1\td1\t1\nq1\td1\t1\n", r"qrels\.tsv:3: .*judged a second time"),
        ("q1 d1 1\n", r"qrels\.tsv:2: wants a query id, a document id and a whole number"),
        ("q1\td1\t-1\n", r"qrels\.tsv:2: wants .* a whole number from 0"),
        ("q1\td1\t0\n", r'qrels\.tsv: query "q1" has no relevant document'),
        ("", r"qrels\.tsv: holds no judgement"),
    ],
)
def test_bad_judgements_are_named_with_file_and_line(write: Write, qrels: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_collection(write(qrels=qrels))


def test_judgements_without_the_header_are_refused(write: Write) -> None:
    folder = write()
    (folder / "qrels.tsv").write_text("q1\td1\t1\n")
    with pytest.raises(DataError, match=r"qrels\.tsv:1: wants the header query-id, corpus-id, score"):
        load_collection(folder)


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ("", r"corpus\.jsonl: the file is empty"),
        ([CORPUS[0], CORPUS[0]], r'corpus\.jsonl:2: _id "d1" occurs a second time'),
        ('{"_id": "d1", "text": "a"\n', r"corpus\.jsonl:1: not JSON at column"),
        ([CORPUS[0], ["d2"]], r"corpus\.jsonl:2: wants an object"),
        ([{"_id": 7, "text": "a"}], r'corpus\.jsonl:1: field "_id" is 7; it wants a non-empty string'),
        ([{"_id": "d1", "text": " "}], r'corpus\.jsonl:1: field "text" is " "; it wants a non-empty string'),
        ([{"_id": "d1", "text": "a", "title": 3}], r'corpus\.jsonl:1: field "title" is 3'),
        ([{"_id": "d1", "text": "\ud800"}], r"corpus\.jsonl:1: invalid UTF-8"),
        ('{"_id": "d1", "text": "a"}\n\n', r"corpus\.jsonl:2: not JSON"),
    ],
)
def test_bad_documents_are_named_with_file_and_line(write: Write, corpus: list[object] | str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_collection(write(corpus=corpus))


def test_a_query_id_that_occurs_twice_is_refused(write: Write) -> None:
    with pytest.raises(DataError, match=r'queries\.jsonl:2: _id "q1" occurs a second time'):
        load_collection(write(queries=[QUERIES[0], QUERIES[0]]))


def test_all_bad_lines_of_a_file_are_reported_together(write: Write) -> None:
    with pytest.raises(DataError) as raised:
        load_collection(write(corpus=[{"_id": "d1"}, CORPUS[1], {"text": "x"}]))
    assert [line.rsplit("/", 1)[1].split(":")[1] for line in str(raised.value).splitlines()] == ["1", "3"]


def test_the_published_collections_load(shared: Path) -> None:
    for folder in sorted((shared / "data" / "retrieval").iterdir()):
        collection = load_collection(folder)
        assert collection.documents and collection.queries.keys() == collection.qrels.keys()
