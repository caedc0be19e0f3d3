import json
from pathlib import Path

from qmd_reward import words


def test_the_word_lists_are_the_published_ones(shared: Path) -> None:
    published = json.loads((shared / "data/rubric/word_lists.json").read_text())
    assert published == {name: sorted(getattr(words, name.upper())) for name in published}
