import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from qmd_reward import __main__ as command
from qmd_reward.cases import CASES, Points

PAIR = json.dumps({"query": "green tea", "expansion": "lex: tea leaves\nvec: how long to steep green tea\n"}) + "\n"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "qmd_reward", *arguments], capture_output=True, text=True, check=False)


def test_the_self_test_prints_each_case_with_its_parts() -> None:
    done = run()
    assert done.returncode == 0
    rows = [line.split() for line in done.stdout.splitlines()]
    for case in CASES:
        assert [*case.name.split(), *map(str, case.expected)] in rows


def test_the_self_test_fails_when_a_score_is_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = CASES[0]._replace(expected=Points(*range(9), "Poor"))
    monkeypatch.setattr(command, "CASES", (wrong, *CASES[1:]))
    assert not command.self_test()
    assert f"{len(CASES) - 1} of {len(CASES)} cases as expected." in capsys.readouterr().out


def test_a_file_of_pairs_gives_one_json_line_each_in_order(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    pairs = [{"query": case.query, "expansion": case.expansion, "note": "ignored"} for case in CASES]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    done = run("--file", str(path))
    assert done.returncode == 0 and done.stderr == ""
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["total"] for result in results] == [case.expected.total for case in CASES]
    assert list(results[0]) == [
        *("score", "format", "diversity", "hyde", "quality", "entity", "think_bonus", "total", "max_possible"),
        *("percentage", "rating", "only_mode", "deductions", "entities"),
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"query": 1, "expansion": "lex: a"}', "query: Input should be a valid string"),
        (b'{"query": "a"}', "expansion: Field required"),
        (b'{"query": "a", "expansion": "\xff"}', "Invalid JSON"),
        (b"[]", "Input should be an object"),
        (b"", "Invalid JSON"),
        (b'{"query": "' + b"a" * 1_000_000 + b'"}', "longer than 1,000,000 bytes"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path, line: bytes, problem: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(PAIR.encode() + line + b"\n")
    done = run("--file", str(path))
    assert done.returncode == 2
    assert done.stderr.startswith(f"{path}:2: {problem}") and "Traceback" not in done.stderr
    assert len(done.stdout.splitlines()) == 1


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    done = run("--file", str(tmp_path / "absent.jsonl"))
    assert (done.returncode, done.stderr) == (2, f"{tmp_path / 'absent.jsonl'}: No such file or directory.\n")


def test_a_file_of_many_megabytes_is_never_in_memory_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text((json.dumps({"query": "tea", "expansion": "lex: " + "tea leaves " * 400}) + "\n") * 2_000)
    with Path(os.devnull).open("w") as nowhere:
        monkeypatch.setattr(sys, "stdout", nowhere)
        tracemalloc.start()
        command.score_file(path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert path.stat().st_size > 8_000_000 and peak < 1_000_000
