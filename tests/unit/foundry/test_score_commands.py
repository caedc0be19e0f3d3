import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qmd_reward.cases import CASES
from qmd_reward.rubric import score
from support.rewarding import running

ROWS = [score(case.query, case.expansion).as_row() for case in CASES]


def foundry(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "foundry", "score", *arguments]
    return subprocess.run(command, capture_output=True, text=True, input=stdin, check=False, timeout=300)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({"query": c.query, "expansion": c.expansion}) + "\n" for c in CASES))
    return path


def as_json(row: dict[str, object]) -> object:
    return json.loads(json.dumps(row))


def test_an_expansion_from_stdin_is_scored_with_all_its_parts() -> None:
    done = foundry("--query", CASES[2].query, stdin=CASES[2].expansion)
    assert done.returncode == 0, done.stderr
    assert "Poor" in done.stdout and "47 of 120" in done.stdout
    assert "No lex line names an entity of the query." in done.stdout
    told = foundry("--query", CASES[2].query, "--json", stdin=CASES[2].expansion)
    assert json.loads(told.stdout) == as_json(ROWS[2])


def test_a_file_is_scored_line_by_line_with_progress_and_a_summary(pairs: Path) -> None:
    done = foundry("--file", str(pairs))
    assert [json.loads(line) for line in done.stdout.splitlines()] == list(map(as_json, ROWS))
    assert (
        f"score: pairs {len(CASES)}/{len(CASES)}" in done.stderr and f"{len(CASES)} pairs: rubric mean" in done.stderr
    )


def test_a_running_service_gives_the_same(pairs: Path, tmp_path: Path, free_port: Callable[[], int]) -> None:
    with running(tmp_path, free_port()) as (service, _):
        done = foundry("--file", str(pairs), "--address", service.address)
        assert done.stdout == foundry("--file", str(pairs)).stdout
        pairs.write_text(pairs.read_text() + "{}\n")
        broken = foundry("--file", str(pairs), "--address", service.address)
    assert broken.returncode == 2 and f"{pairs}:{len(CASES) + 1}: query: Field required" in broken.stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "give either --query"),
        (["--query", "a", "--file", "b"], "give either --query"),
        (["--query", "a", "--collection", "notes"], "name it with --address"),
        (["--file", "absent.jsonl"], "absent.jsonl: No such file"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(arguments: list[str], problem: str) -> None:
    done = foundry(*arguments)
    assert done.returncode == 2 and problem in done.stderr and "Traceback" not in done.stderr
