"""The search here against the real QMD client, over the project's docs collection and with the same MiniLM.

llama.cpp, which embeds for QMD, works in half precision here and there, so its vectors are not quite those of PyTorch.
That is the one difference: given QMD's own vectors the search here ranks as QMD does, without exception.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qmd_schema.examples import load_examples
from qmd_schema.expansion import Line
from qmd_search.chunking import chunk
from qmd_search.collections import Collection, Document, load_collection
from qmd_search.hybrid import HybridSearch
from qmd_search.vectors import QMD_FORM, Embedder, Progress, Vectors
from qmd_search.words import content_words
from support.qmd_client import ask_qmd, installed_client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

QUERIES = 100
TOP = 10
TOLERANCE = 0.0005
"""Of a cosine, between llama.cpp's vectors and PyTorch's. Neighbours this close may change places."""

Expansions = Sequence[tuple[str, tuple[Line, ...]]]


@dataclass(frozen=True)
class Parity:
    """What QMD was asked and what it answered about the same pages."""

    docs: Collection
    lex: Sequence[str]
    expansions: Expansions
    qmd: dict[str, Any]

    @property
    def texts(self) -> list[str]:
        return semantic_texts(self.expansions)


class QmdVectors:
    """An embedder that gives the vectors which QMD worked out for these very texts."""

    name = "QMD's own vectors"

    def __init__(self, parity: Parity) -> None:
        answers = zip(parity.texts, parity.qmd["texts"], strict=True)
        self._queries = {text: normalised(answer["vector"]) for text, answer in answers}
        self._chunks = [normalised(chunk["vector"]) for page in parity.qmd["pages"] for chunk in page["chunks"]]

    count_tokens = staticmethod(Embedder().count_tokens)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return np.array([self._queries[text] for text in texts])

    def embed_documents(self, chunks: Sequence[tuple[str, str]], on_progress: Progress | None = None) -> Vectors:
        del on_progress
        assert len(chunks) == len(self._chunks)
        return np.array(self._chunks)


def normalised(vector: list[float]) -> Vectors:
    array = np.array(vector, np.float32)
    return array / np.linalg.norm(array)


def long_pages(docs: Collection) -> list[Document]:
    """Pages of many chunks: joined ones, one full of characters that UTF-16 writes as two, one that is all numbers."""
    joined = "\n\n".join(document.text for document in docs.documents[:14])
    numbers = "\n".join(f"| {n} | {n * 7919 % 1009} | {n * 104729:x} |" for n in range(400))
    pages = {
        "Everything in one page": joined,
        "Everything with pictures": joined.replace(". ", ". 🧵🛠 ").replace("\n\n", "\n\n🪛"),
        "Numbers": numbers,
        "日本語": "全文検索は語を探し、意味検索は文を探す。\n\n" * 200,
    }
    return [
        Document(f"long-{place}", title, f"# {title}\n\n{text}") for place, (title, text) in enumerate(pages.items())
    ]


def lex_lines(root: Path, docs: Collection) -> list[str]:
    """Lex lines of the training data, and the judged queries and what stands in the pages, put in every syntax."""
    examples = load_examples(sorted((root / "data").glob("*.jsonl")))
    lines = [line for loaded in examples for line in loaded.example.expansion.lex]
    for query in docs.queries.values():
        words = content_words(query)
        first, last = " ".join(words[:2]), " ".join(words[-2:])
        lines += [query, first, last, f'"{first}"', f'{words[0]} "{last}"', f"{words[0]} -{words[-1]}"]
        lines += [f'lathe -"{last}"', f"{words[-1]} -{words[0]} -run", f"{words[0][:4]} {words[-1][:4]}"]
    text = "\n".join(document.text for document in docs.documents)
    for joint in ("-", r"\."):
        terms = sorted(set(re.findall(rf"\b\w+(?:{joint}\w+)+\b", text)))
        lines += [line for term in terms for line in (term, f"{term} run", f"lathe -{term}", f'"{term}"')]
    return [*dict.fromkeys(lines), "検索", '"意味検索" 文', "全文 -lathe", "🧵 lathe", '"run lathe', "-only -negated"]


def make_expansions(docs: Collection) -> Expansions:
    """Judged queries with lines made of their words, in different numbers and orders."""
    made = []
    for place, query in enumerate(list(docs.queries.values())[:QUERIES]):
        words = content_words(query)
        hyde = Line("hyde", f"To {' '.join(words)}, set it in the project file and run it again.")
        lex = [Line("lex", " ".join(words[:2])), Line("lex", " ".join(words[-2:])), Line("lex", words[-1])]
        vec = [Line("vec", f"how to {' '.join(words)}"), Line("vec", query.lower())]
        lines = {0: [hyde, *lex, *vec], 1: [*vec, lex[0]], 2: lex[:1] + vec[:1], 3: [*lex[1:], hyde]}[place % 4]
        made.append((query, tuple(lines)))
    return made


def semantic_texts(expansions: Expansions) -> list[str]:
    """The queries and their vec and hyde lines, each once."""
    lines = (line.text for _, lines in expansions for line in lines if line.kind != "lex")
    return list(dict.fromkeys([*(query for query, _ in expansions), *lines]))


def as_json(lines: Sequence[Line]) -> list[dict[str, str]]:
    return [{"type": line.kind, "query": line.text} for line in lines]


@pytest.fixture(scope="module")
def parity(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Parity:
    client = installed_client()
    docs = load_collection(root / "evals" / "collections" / "docs")
    docs = replace(docs, documents=(*docs.documents, *long_pages(docs)))
    lex, expansions = lex_lines(root, docs), make_expansions(docs)
    requests = {
        "lex": lex,
        "texts": semantic_texts(expansions),
        "documents": [as_json(lines) for _, lines in expansions],
        "queries": [{"query": query, "lines": as_json(lines)} for query, lines in expansions],
    }
    pages = {document.id: document.text for document in docs.documents}
    qmd = ask_qmd(client, tmp_path_factory.mktemp("qmd"), pages, requests)
    # Of equal scores the page indexed first leads, and QMD indexes in the order that the file system gives.
    by_id = {document.id: document for document in docs.documents}
    return Parity(replace(docs, documents=tuple(by_id[page["id"]] for page in qmd["pages"])), lex, expansions, qmd)


@pytest.fixture(scope="module")
def search(parity: Parity) -> Iterator[HybridSearch]:
    with HybridSearch.open(parity.docs, QmdVectors(parity)) as opened:
        yield opened


def test_every_lex_line_finds_the_same_pages_in_the_same_order(parity: Parity, search: HybridSearch) -> None:
    for line, expected in zip(parity.lex, parity.qmd["lex"], strict=True):
        found = search.lexical(line)
        assert [id_ for id_, _ in found] == [hit["id"] for hit in expected], line
        assert [score for _, score in found] == pytest.approx([hit["score"] for hit in expected]), line
    assert sum(bool(hits) for hits in parity.qmd["lex"]) >= 300


def test_every_page_is_cut_into_the_same_chunks(parity: Parity) -> None:
    count_tokens = Embedder().count_tokens
    for document, page in zip(parity.docs.documents, parity.qmd["pages"], strict=True):
        pieces = chunk(document.text, count_tokens)
        units = document.text.encode("utf-16-le")
        starts = [
            units[2 * part["pos"] :].startswith(piece.encode("utf-16-le"))
            for part, piece in zip(page["chunks"], pieces, strict=True)
        ]
        assert all(starts), document.id
    assert max(len(page["chunks"]) for page in parity.qmd["pages"]) > 10


def test_with_qmds_vectors_every_text_finds_the_same_pages_in_the_same_order(
    parity: Parity, search: HybridSearch
) -> None:
    for text, expected in zip(parity.texts, parity.qmd["texts"], strict=True):
        assert [id_ for id_, _ in search.semantic(text)] == [hit["id"] for hit in expected["hits"]], text


def test_with_qmds_vectors_every_hybrid_search_ranks_the_same(parity: Parity, search: HybridSearch) -> None:
    for (query, lines), document, expanded in zip(
        parity.expansions, parity.qmd["documents"], parity.qmd["queries"], strict=True
    ):
        assert [hit.id for hit in search.search_lines(lines, TOP)] == document, query
        assert [hit.id for hit in search.search(query, lines, TOP)] == expanded, query


def test_with_the_vectors_made_here_differences_are_neighbours_too_close_to_tell_apart(parity: Parity) -> None:
    with HybridSearch.open(parity.docs, Embedder(form=QMD_FORM)) as search:
        for text, expected in zip(parity.texts, parity.qmd["texts"], strict=True):
            scores = dict(search.semantic(text, limit=len(parity.docs.documents)))
            for hit in expected["hits"]:
                assert scores[hit["id"]] == pytest.approx(hit["score"], abs=TOLERANCE), (text, hit["id"])
        same = [
            [hit.id for hit in search.search_lines(lines, TOP)] == expected
            for (_, lines), expected in zip(parity.expansions, parity.qmd["documents"], strict=True)
        ]
    print(f"same top {TOP} with the vectors made here: {sum(same)} of {len(same)}")
    assert sum(same) >= 0.95 * QUERIES
