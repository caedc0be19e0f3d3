"""`foundry evals describe`: what it measures, and what it leaves alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry.evals_commands import BEGIN, END, distant_queries, judge_room, write_between_markers
from qmd_schema.errors import DataError
from qmd_search.collections import load_collection

DOCUMENTS = {
    "retry": "Clients retry with backoff after a timeout.",
    "bread": "Feed the starter in the evening, fold the dough.",
    "lease": "The lease ends in May; the landlord wants an answer.",
}
QUERIES = {"q1": "timeouts", "q2": "sourdough leavening", "q3": "how do we answer the landlord", "q4": "levain"}
DEV, TEST = {"q1": "retry", "q2": "bread"}, {"q3": "lease", "q4": "bread"}


@pytest.fixture
def evals(tmp_path: Path) -> Path:
    """An evaluation folder with one collection of three documents and four queries."""
    folder = tmp_path / "evals/collections/notes"
    folder.mkdir(parents=True)
    corpus = [{"_id": id_, "title": "", "text": text} for id_, text in DOCUMENTS.items()]
    queries = [{"_id": id_, "text": text} for id_, text in QUERIES.items()]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for split, judged in (("dev", DEV), ("test", TEST)):
        rows = "".join(f"{query}\t{document}\t2\n" for query, document in judged.items())
        (folder / f"qrels_{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{rows}")
    (tmp_path / "evals/queries.jsonl").write_text('{"id": "1", "query": "fret", "slice": "short"}\n')
    (tmp_path / "evals/README.md").write_text("# Evaluation\n\nWritten by hand.\n")
    return tmp_path / "evals"


def test_the_figures_go_between_markers_and_come_as_json(evals: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(evals.parent / "cache"))
    command = [sys.executable, "-m", "foundry", "evals", "describe", "--evals", str(evals), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    (figures,) = json.loads(done.stdout)["collections"]
    assert (figures["documents"], figures["words"], figures["queries"]) == (3, [7, 9, 10], {"dev": 2, "test": 2})
    assert figures["distant"] == 0.5
    assert figures["baselines"]["BM25"]["recall@20"] == 0.5
    text = (evals / "README.md").read_text()
    assert text.startswith(f"# Evaluation\n\nWritten by hand.\n\n{BEGIN}\n")
    assert "| notes | 3 | 7 / 9 / 10 | 2 / 2 | 4 | 50% |" in text
    assert "| short | 1 |" in text


def test_words_are_compared_stemmed_and_without_stop_words(evals: Path) -> None:
    assert distant_queries(load_collection(evals / "collections/notes", "dev")) == ["q2"]
    assert distant_queries(load_collection(evals / "collections/notes", "test")) == ["q4"]


@pytest.mark.parametrize(
    ("ndcg", "room"), [(0.75, "saturated"), (0.74, "room to gain"), (0.36, "room to gain"), (0.35, "hopeless")]
)
def test_a_collection_has_room_between_hopeless_and_saturated(ndcg: float, room: str) -> None:
    assert judge_room(ndcg) == room


texts = st.text("ab\n| <>", max_size=30)


@given(texts, texts, texts, texts)
def test_text_outside_the_markers_stays(tmp_path_factory, head, old, tail, new):
    path = tmp_path_factory.mktemp("readme") / "README.md"
    path.write_text(f"{head}{BEGIN}{old}{END}{tail}")
    write_between_markers(path, new)
    assert path.read_text() == f"{head}{BEGIN}\n{new}\n{END}{tail}"


def test_a_second_writing_replaces_the_first(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    for text in ("one", "two"):
        write_between_markers(path, text)
    assert path.read_text() == f"{BEGIN}\ntwo\n{END}\n"


def test_a_lost_end_marker_is_told_before_text_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(f"{BEGIN}\nfigures\n\nWritten by hand.\n")
    with pytest.raises(DataError, match="but not"):
        write_between_markers(path, "new")
    assert "Written by hand." in path.read_text()
