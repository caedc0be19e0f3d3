from pathlib import Path

import numpy as np
import pytest

from qmd_search.vectors import QMD_FORM, Embedder, VectorIndex


def test_documents_are_ranked_by_their_best_chunk() -> None:
    chunks = np.array([[1, 0], [0.6, 0.8], [0, 1], [0.8, 0.6]], np.float32)
    index = VectorIndex(chunks, np.array([1, 1, 2, 3]))
    hits, others = index.search(np.array([[1, 0], [0, 1]], np.float32), limit=20)
    assert [number for number, _ in hits] == [1, 3, 2]
    assert [score for _, score in hits] == pytest.approx([1, 0.8, 0])
    assert [number for number, _ in others] == [2, 1, 3]


def test_equal_chunks_rank_as_they_were_indexed() -> None:
    index = VectorIndex(np.ones((3, 1), np.float32), np.array([3, 1, 2]))
    (hits,) = index.search(np.ones((1, 1), np.float32), limit=20)
    assert [number for number, _ in hits] == [3, 1, 2]


def test_no_more_documents_come_back_than_asked_for() -> None:
    index = VectorIndex(np.ones((300, 1), np.float32), np.arange(300))
    (hits,) = index.search(np.ones((1, 1), np.float32), limit=20)
    assert len(hits) == 20


def test_only_three_chunks_a_wanted_document_are_looked_at() -> None:
    vectors = np.array([[1.0]] * 3 + [[0.5]], np.float32)
    index = VectorIndex(vectors, np.array([1, 1, 1, 2]))
    for limit, expected in ((1, [1]), (2, [1, 2])):
        (hits,) = index.search(np.ones((1, 1), np.float32), limit)
        assert [number for number, _ in hits] == expected


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    return Embedder(tmp_path_factory.mktemp("vectors") / "embeddings.sqlite")


def test_minilm_puts_a_question_next_to_its_answer(minilm: Embedder) -> None:
    documents = minilm.embed_documents([("Bread", "Feed the sourdough starter."), ("Ops", "Restart the gateway.")])
    question = minilm.embed_queries(["how do I keep my levain alive?"])
    assert documents.dtype == np.float32 and documents.shape == (2, 384)
    assert np.linalg.norm(documents, axis=1) == pytest.approx(1, abs=1e-5)
    cosines = documents @ question[0]
    assert cosines[0] > cosines[1]


def test_minilm_counts_the_tokens_of_long_texts(minilm: Embedder) -> None:
    assert minilm.count_tokens("word " * 2000) == 2000
    assert minilm.count_tokens("two words") == 2


def test_equal_texts_are_embedded_once_and_kept_on_disk(tmp_path: Path) -> None:
    batches: list[tuple[int, int]] = []
    chunks = [("a", "same"), ("a", "same"), ("a", "other")]
    first = Embedder(tmp_path / "v.sqlite").embed_documents(chunks, lambda *counts: batches.append(counts))
    assert batches == [(2, 2)]
    again = Embedder(tmp_path / "v.sqlite").embed_documents(chunks, lambda *counts: batches.append(counts))
    assert batches == [(2, 2)]
    assert np.array_equal(first, again)
    assert np.array_equal(first[0], first[1]) and not np.array_equal(first[0], first[2])


def test_texts_in_qmds_form_have_vectors_of_their_own(minilm: Embedder, tmp_path: Path) -> None:
    in_qmds_form = Embedder(tmp_path / "v.sqlite", form=QMD_FORM)
    assert in_qmds_form.name != minilm.name
    assert not np.allclose(in_qmds_form.embed_queries(["tea"]), minilm.embed_queries(["tea"]), atol=1e-2)


def test_no_texts_give_no_vectors(minilm: Embedder) -> None:
    assert minilm.embed_queries([]).shape == (0, 384)
