import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from foundry.runs import start_run
from trainer.launch import record_progress

GOOD = {"query": "tea", "output": [["hyde", "Tea steeps."], ["lex", "tea leaf"], ["vec", "how is tea made today"]]}


def foundry(*arguments: str, cwd: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "foundry", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, input=stdin, check=False, timeout=300)


@pytest.fixture
def project(root: Path, tmp_path: Path) -> Path:
    """A folder with the project's configs and nothing else, so that a command cannot touch the real runs."""
    shutil.copytree(root / "configs", tmp_path / "configs")
    return tmp_path


def test_help_names_every_command(root: Path) -> None:
    done = foundry("--help", cwd=root)
    assert done.returncode == 0
    for command in (
        "run",
        "expand",
        "search",
        "eval",
        "compare",
        "verdicts",
        "publish",
        "deployed",
        "history",
        "rollback",
        "gc",
        "serve",
        "data",
        "evals",
        "train",
        "runs",
    ):
        assert f"\n  {command} " in done.stdout


def test_the_projects_own_training_data_is_valid(root: Path) -> None:
    done = foundry("data", "validate", "--json", cwd=root)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] >= 400


def test_a_line_that_qmd_would_drop_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**GOOD, "output": [*GOOD["output"], ["lex", "camellia"]]}) + "\n")
    done = foundry("data", "validate", str(path), cwd=tmp_path)
    assert done.returncode == 2
    assert f"{path}:1: output[3]: lex line 'camellia' holds no word of the query 'tea'" in done.stderr


@pytest.mark.parametrize("command", ["score", "analyze"])
def test_score_and_analyze_write_a_plot(tmp_path: Path, command: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(GOOD) + "\n")
    done = foundry("data", command, str(path), "--plot", "plot.png", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["slices"][-1]["rows"] == 1
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_an_unknown_profile_is_named_with_the_known_ones(project: Path) -> None:
    done = foundry("run", "--profile", "tpu", cwd=project)
    assert done.returncode == 2
    assert "'tpu' is unknown; there are: cpu, gpu" in done.stderr


def test_a_wrong_config_key_stops_a_run_before_any_work(project: Path) -> None:
    path = project / "configs/cpu/sft.yaml"
    path.write_text(path.read_text().replace("learning_rate", "learning_rat"))
    done = foundry("run", cwd=project)
    assert done.returncode == 2
    assert "sft.yaml: learning_rat: unknown key. Did you mean learning_rate?" in done.stderr
    assert not (project / "runs").exists()


def test_a_busy_port_stops_a_run_with_the_config_to_change(project: Path) -> None:
    path = project / "configs/cpu/inference.yaml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = path.read_text()
        path.write_text(
            "\n".join(line for line in text.splitlines() if not line.startswith("port:")) + f"\nport: {port}\n"
        )
        done = foundry("run", cwd=project)
    assert done.returncode == 2
    assert f"port {port} of the inference service is in use" in done.stderr


def test_a_full_disk_stops_a_run_before_any_work(project: Path) -> None:
    path = project / "configs/cpu/pipeline.yaml"
    path.write_text(path.read_text().replace("minimum_free_disk_gib: 8", "minimum_free_disk_gib: 10000000"))
    done = foundry("run", cwd=project)
    assert done.returncode == 2
    assert "GiB free, a run needs 10000000 GiB" in done.stderr.replace("1e+07", "10000000")


def test_bad_data_stops_a_run_with_its_lines(project: Path) -> None:
    (project / "data").mkdir()
    (project / "data/rows.jsonl").write_text(json.dumps(GOOD) + '\n{"query": ""}\n')
    shutil.copytree(project / "data", project / "evals")
    done = foundry("run", cwd=project)
    assert done.returncode == 2
    assert "rows.jsonl:2:" in done.stderr
    assert not list((project / "runs/0001").glob("*/manifest.json"))


def test_a_run_is_shown_with_the_curves_of_its_training_once_there_are_any(project: Path) -> None:
    run = start_run(project / "runs", "cpu", "a")
    assert (
        "no curves: no stage of this run has logged metrics yet" in foundry("runs", "show", run.id, cwd=project).stdout
    )
    run.stage("sft").mkdir()
    for step in (1, 2):
        record_progress(run.stage("sft") / "progress.jsonl", "sft", step, 2, {"loss": 2.0 / step})
    shown = foundry("runs", "show", run.id, cwd=project)
    assert f"curves: {run.folder / 'curves.png'}" in shown.stdout
    assert (run.folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_deployed_is_said_and_not_an_error(project: Path) -> None:
    done = foundry("deployed", cwd=project)
    assert done.returncode == 0
    assert "Nothing is deployed yet" in done.stdout
    assert json.loads(foundry("deployed", "--json", cwd=project).stdout) is None
    assert foundry("expand", "tea", cwd=project).returncode == 2


def test_verdicts_are_listed_and_an_unknown_one_is_named(project: Path, free_port: Callable[[], int]) -> None:
    path = project / "configs/cpu/evaluator.yaml"
    path.write_text(path.read_text() + f"server: {{port: {free_port()}}}\n")
    listed = foundry("verdicts", "--json", cwd=project)
    assert listed.returncode == 0, listed.stderr
    assert json.loads(listed.stdout) == []
    unknown = foundry("verdicts", "v1", cwd=project)
    assert unknown.returncode == 1
    assert "no verdict 'v1'" in unknown.stderr


def test_search_tells_which_line_found_a_document(root: Path, tmp_path: Path) -> None:
    corpus = [{"_id": "a", "title": "Tea", "text": "Green tea leaf."}, {"_id": "b", "title": "Car", "text": "A car."}]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
    done = foundry(
        "search", str(tmp_path), "hot drink tea", "--expansion", "-", "--json", cwd=root, stdin="lex: tea leaf\n"
    )
    assert done.returncode == 0, done.stderr
    first = json.loads(done.stdout)[0]
    assert first["id"] == "a"
    assert "lex" in first["found_by"]


def test_serve_passes_a_services_own_message_and_exit_code_on(project: Path) -> None:
    (project / "configs/cpu/reward.yaml").write_text("server: {prt: 1}\n")
    done = foundry("serve", "reward", cwd=project)
    assert done.returncode == 2
    assert "server.prt: unknown key" in done.stderr


def test_a_wrong_option_is_a_usage_error(root: Path) -> None:
    assert foundry("run", "--profle", "cpu", cwd=root).returncode == 2
