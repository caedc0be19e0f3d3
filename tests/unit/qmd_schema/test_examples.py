import json
from pathlib import Path

import pytest

from qmd_schema.errors import DataError
from qmd_schema.examples import load_examples
from qmd_schema.expansion import Line

GOOD = {"query": "tea", "output": [["hyde", "Tea steeps."], ["lex", "tea leaf"], ["vec", "how tea is made"]]}


def write(path: Path, *lines: str | bytes | dict) -> Path:
    encoded = [
        line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
        for line in lines
    ]
    path.write_bytes(b"\n".join(encoded) + b"\n")
    return path


def problem_of(tmp_path: Path, line: str | bytes | dict) -> str:
    with pytest.raises(DataError) as caught:
        load_examples([write(tmp_path / "bad.jsonl", line)])
    return str(caught.value)


def test_a_good_row_loads_with_its_place(tmp_path: Path) -> None:
    path = write(tmp_path / "good.jsonl", GOOD, {**GOOD, "query": "green tea", "category": "short", "note": 1})
    first, second = load_examples([path])
    assert first.where == f"{path}:1"
    assert first.example.expansion.lines[0] == Line("hyde", "Tea steeps.")
    assert second.example.category == "short"


def test_all_bad_lines_of_all_files_are_reported_at_once(tmp_path: Path) -> None:
    one = write(tmp_path / "one.jsonl", GOOD, {"query": ""}, "{")
    two = write(tmp_path / "two.jsonl", {**GOOD, "output": []})
    with pytest.raises(DataError) as caught:
        load_examples([one, two])
    message = str(caught.value)
    assert f"{one}:2" in message and f"{one}:3" in message and f"{two}:1" in message
    assert f"{one}:1:" not in message


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ([["hyde", "a"], ["lexx", "b"]], 'output[1]: kind "lexx" is none of lex, vec, hyde'),
        ([["lex", " "]], "output[0]: the lex text is empty"),
        ([["lex", "a\nb"]], "output[0]: the lex text"),
        ([["lex"]], "output[0]"),
        ([["lex", 3]], "output[0]"),
        ("lex: a", "output"),
        ({"lex": "a"}, "output"),
        ([], "non-empty list"),
    ],
)
def test_a_bad_output_is_named(tmp_path: Path, output: object, said: str) -> None:
    assert said in problem_of(tmp_path, {"query": "q", "output": output})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"output": GOOD["output"]}, "query: missing"),
        ({"query": 3, "output": GOOD["output"]}, "query: 3"),
        ({"query": "two\nlines", "output": GOOD["output"]}, "one line"),
        ({**GOOD, "is_short": "yes"}, "is_short"),
        ('{"query": "a", "query": "b", "output": [["lex", "a"]]}', 'key "query" occurs twice'),
        ('{"query": "a", "output": [["lex", "a"]], "x": NaN}', "NaN is not JSON"),
        (b'{"query": "\xff"}', "invalid UTF-8"),
        (b"\xef\xbb\xbf" + json.dumps(GOOD).encode(), "byte order mark"),
        ("[1, 2]", "is not an object"),
        ("not json", "not JSON at column 1"),
        ("", "empty line"),
        ("[" * 100_000, ":1:"),
    ],
)
def test_a_bad_line_says_what_is_wrong(tmp_path: Path, line: str | bytes | dict, said: str) -> None:
    assert said in problem_of(tmp_path, line)


def test_a_line_of_ten_megabytes_is_refused_and_the_next_one_is_still_checked(tmp_path: Path) -> None:
    path = write(tmp_path / "long.jsonl", "x" * 10_000_000, "{")
    with pytest.raises(DataError) as caught:
        load_examples([path])
    assert f"{path}:1: longer than" in str(caught.value)
    assert f"{path}:2: not JSON" in str(caught.value)


def test_an_empty_file_and_a_missing_file_are_errors(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(DataError, match="the file is empty"):
        load_examples([tmp_path / "empty.jsonl"])
    with pytest.raises(DataError, match="no such data file"):
        load_examples([tmp_path / "absent.jsonl"])


def test_the_published_training_set_loads(shared: Path) -> None:
    loaded = load_examples(sorted((shared / "data/qmd").glob("qmd_expansion_*.jsonl")))
    assert len(loaded) > 3000
