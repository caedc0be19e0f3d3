"""`foundry eval`, `compare` and `verdicts` on GGUF files, with the services that each command starts for itself."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from support.evaluation import QUERIES, convert_to_gguf, save_model, write_eval_set


@pytest.fixture(scope="module")
def project(
    root: Path, tiny_llama: Path, free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with configs, a small eval set and two GGUF files."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(root / "configs", folder / "configs")
    (folder / "evals/collections").mkdir(parents=True)
    write_eval_set(folder / "evals")
    (folder / "evals/garden").rename(folder / "evals/collections/garden")
    config = folder / "configs/cpu/evaluator.yaml"
    values = {
        "server": {"port": free_port()},
        "gguf_inference_address": f"127.0.0.1:{free_port()}",
        "collections": [{"path": "evals/collections/garden"}],
        "latency_queries": 5,
    }
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | values))
    for name, lines in (("good", ["lex: tomato leaves", "vec: frost alarm"]), ("bad", ["lex: of the"])):
        save_model(folder / name, tiny_llama, 2, lines)
        convert_to_gguf(folder / name)
    return folder


def foundry(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "foundry", *arguments]
    env = os.environ | {"COLUMNS": "200"}
    return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=False, timeout=600)


def test_eval_measures_a_file_and_writes_its_figures(project: Path) -> None:
    done = foundry(project, "eval", "good.gguf", "-o", "results.json", "--json")
    assert done.returncode == 0, done.stderr
    results = json.loads((project / "results.json").read_text())
    assert json.loads(done.stdout) == results
    assert results["engine"] == "llama.cpp" and results["queries"] == {"garden": 2, "queries": len(QUERIES)}
    assert 0 < results["figures"]["model"]["ndcg@10"] <= 1 and "ndcg@10" in results["figures"]["none"]


def test_compare_prints_a_verdict_that_verdicts_finds_again(project: Path) -> None:
    done = foundry(project, "compare", "good.gguf", "bad.gguf", "-o", "compared")
    assert done.returncode == 0, done.stderr
    written = json.loads((project / "compared/verdict.json").read_text())
    verdict = written["verdict"]
    assert f"\n{verdict['outcome']}\n" in done.stdout and verdict["reasons"][0] in done.stdout
    assert str(project / "compared/report.html") in done.stdout.replace("\n", "")
    assert verdict["candidate"]["reference"] == str(project / "good.gguf")
    assert "over reference" in verdict["gains"] and verdict["slices"].keys() == {"named_entity", "only"}
    assert json.loads(foundry(project, "verdicts", verdict["id"], "--json").stdout) == written


def test_a_file_that_is_no_model_is_named_and_leaves_nothing(project: Path) -> None:
    (project / "notes.gguf").write_text("milk, eggs")
    done = foundry(project, "eval", "notes.gguf", "-o", "none.json")
    assert done.returncode != 0
    assert "notes.gguf" in done.stderr and "Traceback" not in done.stderr
    assert not (project / "none.json").exists()
