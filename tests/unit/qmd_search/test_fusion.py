import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmd_search.fusion import FoundBy, RankedList, fuse, fused_ids

ranked_lists = st.lists(
    st.builds(
        RankedList,
        st.sampled_from(["lex 1", "vec 1", "hyde"]),
        st.lists(st.sampled_from("abcdefgh"), unique=True),
        st.sampled_from([1.0, 2.0]),
    )
)


def test_scores_are_weighted_reciprocal_ranks_with_bonuses() -> None:
    hits = fuse([RankedList("query fts", ["a", "b"], 2.0), RankedList("lex 1", ["b", "c", "d", "e"])])
    assert {hit.id: hit.score for hit in hits} == pytest.approx(
        {
            "a": 2 / 61 + 0.05,
            "b": 2 / 62 + 1 / 61 + 0.05,
            "c": 1 / 62 + 0.02,
            "d": 1 / 63 + 0.02,
            "e": 1 / 64,
        }
    )
    assert [hit.id for hit in hits] == ["b", "a", "c", "d", "e"]


def test_a_hit_names_every_list_that_found_it_and_the_rank() -> None:
    hits = fuse([RankedList("query fts", ["a", "b"]), RankedList("vec 1", ["b"])])
    assert hits[0].id == "b"
    assert hits[0].found_by == (FoundBy("query fts", 2), FoundBy("vec 1", 1))


def test_of_equal_scores_the_document_met_first_leads() -> None:
    hits = fuse([RankedList("lex 1", ["a"]), RankedList("lex 2", ["b"])])
    assert [hit.id for hit in hits] == ["a", "b"]


def test_nothing_fuses_to_nothing() -> None:
    assert fuse([]) == fuse([RankedList("lex 1", [])]) == []


@given(ranked_lists)
def test_every_document_comes_back_once_in_order_of_score(lists: list[RankedList]) -> None:
    hits = fuse(lists)
    assert sorted(hit.id for hit in hits) == sorted({document for ranked in lists for document in ranked.ids})
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert fused_ids(lists) == [hit.id for hit in hits]
