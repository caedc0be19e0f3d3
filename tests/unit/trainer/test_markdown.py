"""Notes as documents: what is title, heading and prose, and what is neither."""

import json

import pytest

from qmd_schema.errors import DataError
from trainer.markdown import headings, prose, read_notes

NOTE = """\
---
title: "Pump log"
tags: [garden]
---
# Pump log, 2025

The *pump* hums at [50 Hz](https://example.com/a_b), see [[motors|the motor page]]
and `systemctl status`.

## 1.2 Dry run #

- first **seal** leaked
2. order seals

| part | price |
|---|---|

```sh
# not a heading
pump --dry
```
<!-- ## nor this -->
"""


def test_a_note_is_read_without_its_front_matter(tmp_path):
    (tmp_path / "garden").mkdir()
    (tmp_path / "garden/pump.md").write_text(NOTE)
    (document,) = read_notes(tmp_path)
    assert (document.id, document.title) == ("garden/pump", "Pump log")
    assert document.text.startswith("# Pump log, 2025\n")


def test_headings_stand_outside_code_and_lose_their_numbers():
    assert headings(NOTE) == ["Pump log, 2025", "Dry run"]


def test_prose_holds_paragraphs_and_items_without_markup():
    assert prose(NOTE.partition("---\n# ")[2]) == [
        "Pump log, 2025",
        "The pump hums at 50 Hz, see the motor page and ..",
        "first seal leaked",
        "order seals",
    ]


@pytest.mark.parametrize(("text", "title"), [("# Tea\n\nGreen.", "Tea"), ("Green tea.", "tea-note")])
def test_a_note_without_a_title_field_has_its_first_heading_or_its_name(tmp_path, text, title):
    (tmp_path / "tea-note.md").write_text(text)
    assert read_notes(tmp_path)[0].title == title


def test_hidden_and_empty_files_are_left_out(tmp_path):
    (tmp_path / ".trash").mkdir()
    (tmp_path / ".trash/old.md").write_text("Old.")
    (tmp_path / "empty.md").write_text("---\ntitle: Nothing\n---\n")
    (tmp_path / "tea.md").write_text("Green tea.")
    assert [document.id for document in read_notes(tmp_path)] == ["tea"]


def test_a_code_block_that_never_ends_reaches_to_the_end():
    assert prose("Before.\n\n```\ncode\n\n# still code") == ["Before."]


def test_a_beir_folder_is_read_as_it_is(tmp_path):
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"_id": "7", "title": "Tea", "text": "Green."}) + "\n")
    assert [document.id for document in read_notes(tmp_path)] == ["7"]


def test_a_file_in_another_encoding_and_an_empty_folder_are_named(tmp_path):
    with pytest.raises(DataError, match="holds no markdown file"):
        read_notes(tmp_path)
    (tmp_path / "latin.md").write_bytes("Käse".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.md: not UTF-8"):
        read_notes(tmp_path)
