"""The main job from the front door, on a random model of 2 layers: killed, gone on with, judged and published."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from foundry.runs import STAGES
from qmd_schema.expansion import parse
from qmd_schema.verdicts import load_signing_key, read_signed_verdict, sign
from support.processes import all_ended, descendants, wait_until
from support.publishing import write_brief_model

pytestmark = pytest.mark.timeout(1500)

SFT_STEPS = 40
"""Enough that a kill a few seconds after the first checkpoint comes before the end."""
DOCUMENTS = {
    "boiler": "The boiler was serviced in March; pressure stays at 1.5 bar and the next visit is due in a year.",
    "bicycle": "The bicycle chain wore out after 3,000 km. The new one has eleven speeds and cost 34 euros.",
    "router": "The router restarts when its firmware updates; the admin page answers on port 8443 afterwards.",
    "bread": "Sourdough bread: 500 g flour, 350 g water, 10 g salt; proof the loaf overnight in the fridge.",
}


@dataclass
class Workspace:
    """A folder as a user has it: configs, data and evals."""

    folder: Path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "foundry", *arguments]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=os.environ | {"COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def foundry(self, *arguments: str, code: int = 0) -> str:
        """Runs a command to its end and gives what it printed, all of it when it failed."""
        process = self.start(*arguments)
        output, errors = process.communicate(timeout=1200)
        assert process.returncode == code, output + errors
        return output if code == 0 else output + errors

    def json(self, *arguments: str) -> Any:
        return json.loads(self.foundry(*arguments, "--json"))

    def change(self, config: str, **values: Any) -> None:
        path = self.folder / f"configs/cpu/{config}.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values))


@pytest.fixture(scope="module")
def workspace(
    root: Path, tiny_llama: Path, free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Workspace:
    folder = tmp_path_factory.mktemp("workspace")
    base = folder / "base"
    write_brief_model(tiny_llama, base)
    (folder / "configs/cpu").mkdir(parents=True)
    for config in (root / "configs/cpu").glob("*.yaml"):
        (folder / "configs/cpu" / config.name).write_bytes(config.read_bytes())
    write_data(folder / "data")
    write_evals(folder / "evals")
    made = Workspace(folder)
    ports = {name: free_port() for name in ("reward", "inference", "evaluator", "publisher")}
    made.change("pipeline", base_model=str(base), minimum_free_disk_gib=1)
    made.change("prepare", model=str(base), near_duplicate=1.0)
    made.change("sft", model=str(base), max_steps=SFT_STEPS, save_steps=2, learning_rate=1e-6)
    addresses = {name: f"127.0.0.1:{ports[name]}" for name in ("reward", "inference")}
    made.change("grpo", steps=2, queries=4, rows_per_forward=8, save_steps=1, max_completion=32, **addresses)
    made.change("reward", server={"port": ports["reward"]})
    made.change("inference", port=ports["inference"], max_sequences=32, kv_cache_gib=0.25)
    made.change(
        "evaluator",
        server={"port": ports["evaluator"]},
        inference_address=addresses["inference"],
        collections=[{"path": "evals/collections/notes"}],
        latency_queries=5,
        seeds=[1],
    )
    parity = {"prompts": 4, "answers": 2, "margins": {"valid": 1.0, "rubric": 1.0}}
    made.change("publisher", server={"port": ports["publisher"]}, size="1M", parity=parity)
    return made


def write_data(folder: Path) -> None:
    folder.mkdir()
    rows = []
    for number in range(48):
        subject = ("tea tin", "wool coat", "paint brush", "oak shelf")[number % 4]
        output = [
            ["hyde", f"The {subject} number {number} lies in the cellar."],
            ["lex", subject],
            ["vec", f"{subject}s"],
        ]
        rows.append({"query": f"{subject} {number}", "output": output, "category": subject.replace(" ", "_")})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_evals(folder: Path) -> None:
    notes = folder / "collections/notes"
    notes.mkdir(parents=True)
    queries = [
        {"id": f"q{n}", "query": f"{name.title()} repair {n}", "slice": "short"} for n, name in enumerate(DOCUMENTS)
    ]
    (folder / "queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries))
    corpus = [{"_id": name, "title": name.title(), "text": text} for name, text in DOCUMENTS.items()]
    (notes / "corpus.jsonl").write_text("".join(json.dumps(document) + "\n" for document in corpus))
    judged = [{"_id": f"n-{name}", "text": f"when was the {name} last looked at"} for name in DOCUMENTS]
    (notes / "queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in judged))
    qrels = "".join(f"n-{name}\t{name}\t1\n" for name in DOCUMENTS)
    (notes / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\n{qrels}")


def has_checkpoint(stage: Path) -> bool:
    """Whether Ray Train has noted a checkpoint, which it does some seconds after the checkpoint was saved."""
    snapshot = stage / "checkpoints/checkpoint_manager_snapshot.json"
    return snapshot.is_file() and "checkpoint_dir_name" in snapshot.read_text()


def test_a_killed_run_leaves_nothing_running_and_no_stage_half_done(workspace: Workspace) -> None:
    run = workspace.folder / "runs/0001"
    process = workspace.start("run")
    wait_until(lambda: has_checkpoint(run / "sft") or process.poll() is not None, seconds=300)
    family = descendants(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(family) > 2
    all_ended(family)
    assert (run / "prepare/manifest.json").is_file()
    assert not (run / "sft/manifest.json").exists()


def test_the_same_command_goes_on_where_it_was(workspace: Workspace) -> None:
    printed = workspace.foundry("run", "--require-pass", code=3)
    assert "run 0001 (going on with it)" in printed
    assert "[1/7] prepare: done before" in printed
    sft = [json.loads(line) for line in (workspace.folder / "runs/0001/sft/progress.jsonl").read_text().splitlines()]
    steps = [line["done"] for line in sft if line["task"] == "sft"]
    assert steps.count(1) == 1 and steps[-1] == SFT_STEPS
    assert "Nothing was published: the verdict of run 0001 is" in printed


def test_a_finished_run_shows_its_stages_and_its_verdict(workspace: Workspace) -> None:
    (listed,) = workspace.json("runs", "list")
    assert listed["stages"] == f"{len(STAGES)}/{len(STAGES)}"
    assert listed["verdict"] in {"FAIL", "INCONCLUSIVE"}
    shown = workspace.json("runs", "show", "0001")
    assert Path(shown["curves"]).read_bytes().startswith(b"\x89PNG")
    assert list(shown["stages"]) == list(STAGES)
    assert shown["stages"]["sft"]["figures"]["steps"] == SFT_STEPS
    assert shown["verdict"]["outcome"] == listed["verdict"]
    assert (workspace.folder / "runs/0001/evaluate/report.html").read_text().startswith("<!doctype html>")
    assert listed["verdict"] in workspace.foundry("runs", "show", "0001")


def test_what_was_not_passed_is_not_published(workspace: Workspace) -> None:
    assert "not PASS" in workspace.foundry("publish", "0001", code=1)
    assert "nothing is deployed yet" in workspace.foundry("expand", "boiler pressure", code=2)
    assert workspace.json("deployed") is None


def test_a_passed_model_is_published_whole_and_answers(workspace: Workspace) -> None:
    record = workspace.folder / "runs/0001/evaluate/verdict.json"
    verdict = read_signed_verdict(record).verdict
    key = load_signing_key(workspace.folder / "runs/keys/verdict.key")
    passed = sign(verdict.model_copy(update={"outcome": "PASS", "reasons": ["better"]}), key)
    record.write_text(passed.model_dump_json())
    published = workspace.json("publish", "0001")
    deployed = workspace.json("deployed")
    assert deployed["revision"] == published["revision"]
    assert set(deployed["gguf"]) == {"bf16", "Q8_0", "Q4_K_M"}
    assert all(Path(path).stat().st_size > 0 for path in deployed["gguf"].values())
    answer = workspace.json("expand", "boiler pressure", "--seed", "1")
    assert parse(answer["answer"]).expansion.lines


def test_ctrl_c_stops_everything_in_order(workspace: Workspace) -> None:
    workspace.change("sft", max_steps=4)
    process = workspace.start("run", "--new")
    log = workspace.folder / "runs/0002/logs/inference.log"
    wait_until(lambda: log.is_file() or process.poll() is not None, seconds=300)
    time.sleep(3)
    family = descendants(process.pid)
    assert len(family) > 3
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on where it was" in errors
    all_ended(family, seconds=1)


def test_a_busy_port_is_named_before_anything_starts(workspace: Workspace) -> None:
    port = yaml.safe_load((workspace.folder / "configs/cpu/evaluator.yaml").read_text())["server"]["port"]
    with socket.create_server(("127.0.0.1", port)):
        printed = workspace.foundry("run", code=2)
    assert f"port {port} of the evaluator service is in use" in printed
    assert "configs/cpu/evaluator.yaml" in printed
