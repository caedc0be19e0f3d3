from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from qmd_search.chunking import CHUNK_TOKENS, OVERLAP, SIZE, chunk, split

LINE = "a line of plain words for the body of a note\n"


def words(text: str) -> int:
    return len(text.split())


def test_a_short_text_is_one_chunk() -> None:
    assert chunk("short", words) == ["short"]


def test_a_long_text_is_cut_with_an_overlap() -> None:
    text = LINE * 200
    chunks = chunk(text, words)
    assert len(chunks) == 4
    assert all(len(piece) <= SIZE for piece in chunks)
    for first, second in pairwise(chunks):
        assert first[-OVERLAP:] == second[:OVERLAP]


def test_a_heading_near_the_end_of_a_chunk_begins_the_cut() -> None:
    text = LINE * 50 + "## Heading\n" + LINE * 60
    first = chunk(text, words)[0]
    assert text[len(first) :].startswith("\n## Heading")


def test_a_far_heading_yields_to_a_near_one() -> None:
    text = "x" * 450 + "\n## far" + "y" * 100 + "\n## near" + "z" * 900
    assert split(text, 600, 0, 200)[1].startswith("\n## near")


def test_no_cut_falls_inside_a_code_fence() -> None:
    code = "\n```\n" + "\n\nvalue = 1" * 40 + "\n```\n"
    text = "p" * 2500 + code + "q" * 3000
    first = chunk(text, words)[0]
    assert first == "p" * 2500


def test_a_chunk_of_too_many_tokens_is_cut_again() -> None:
    def characters(text: str) -> int:
        return len(text)

    chunks = chunk("x" * 2000, characters)
    assert len(chunks) > 1
    assert all(len(piece) <= CHUNK_TOKENS for piece in chunks)


def test_lengths_are_counted_as_javascript_counts_them() -> None:
    assert [len(piece) for piece in chunk("🧵" * 2000, lambda _: 1)] == [1350, 853]


@given(st.text(st.sampled_from("a🧵\n"), max_size=120), st.integers(4, 20), st.integers(0, 3))
def test_no_cut_falls_inside_a_character(text: str, size: int, overlap: int) -> None:
    units = "".join(map(chr, memoryview(text.encode("utf-16-le")).cast("H"))) if text else ""
    for piece in split(units, size, overlap, 2):
        piece.encode("utf-16-le", "surrogatepass").decode("utf-16-le")


@given(
    st.text(st.sampled_from("ab #`\n-1.*é深"), max_size=400),
    st.integers(20, 60),
    st.integers(0, 19),
    st.integers(0, 19),
)
def test_pieces_cover_the_text_and_keep_to_the_size(text: str, size: int, overlap: int, window: int) -> None:
    pieces = split(text, size, overlap, window)
    end = 0
    for piece in pieces:
        assert len(piece) <= size
        start = max(at for at in range(max(0, end - overlap), end + 1) if text.startswith(piece, at))
        end = max(end, start + len(piece))
    assert text.endswith(pieces[-1])
    assert pieces[0] == text[: len(pieces[0])]
