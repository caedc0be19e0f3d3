import pytest

from qmd_search.words import content_words, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't re-read snake_case, 3.5 times", ["Don't", "re-read", "snake", "case", "3", "5", "times"]),
        ("", []),
    ],
)
def test_hyphens_and_apostrophes_inside_belong_to_a_word(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_stop_words_are_left_out_in_any_case_and_with_any_apostrophe() -> None:
    assert content_words("What does the Gateway do when it doesn’t answer") == ["gateway", "answer"]
