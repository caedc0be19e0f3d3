"""`foundry data pull` and `push` against a hub on loopback."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from foundry.hub_commands import check_prepared, render_card
from publisher.config import PublisherConfig
from qmd_schema.artifacts import write_manifest
from qmd_schema.config import StrictModel, load_config
from support.hub import Hub, serve_hub

ROW = {
    "query": "tea tin",
    "output": [["hyde", "Tea keeps dry in a tin."], ["lex", "tea tin"], ["vec", "how to keep tea leaves dry"]],
    "category": "short",
}
PREPARED = {
    "query": "tea tin",
    "slice": "short",
    "prompt": "<|im_start|>user\ntea tin",
    "completion": "hyde: Tea keeps dry in a tin.\nlex: tea tin\nvec: how to keep tea leaves dry\n<|im_end|>",
}
REPOSITORY = "qmd-foundry/qmd-query-expansion-train"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub() as hub:
        yield hub


@pytest.fixture
def project(root: Path, tmp_path: Path) -> Path:
    """A folder with the project's configs and prepared data of two rows."""
    shutil.copytree(root / "configs", tmp_path / "configs")
    prepared = tmp_path / "prepared"
    prepared.mkdir()
    (prepared / "train.jsonl").write_text(json.dumps(PREPARED) + "\n")
    (prepared / "val.jsonl").write_text(json.dumps({**PREPARED, "query": "tea pot", "slice": "other"}) + "\n")
    figures = {"train": 1, "val": 1, "evaluation_queries": 9, "slices": {"other": 1, "short": 1}}
    write_manifest(prepared, "prepare", StrictModel(), {"data/a.jsonl": "a" * 64}, 1.0, [], figures=figures)
    return tmp_path


def foundry(project: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-m", "foundry", "data", *arguments],
        cwd=project,
        env={**inherited, "HF_HOME": str(project / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_set_is_published_in_one_commit_with_its_card(project: Path, hub: Hub) -> None:
    done = foundry(project, "push", "prepared", HF_ENDPOINT=hub.endpoint, HF_TOKEN=hub.token)
    assert done.returncode == 0, done.stderr
    repository = hub.repositories[REPOSITORY]
    files = repository.files
    assert (repository.type, len(repository.commits)) == ("dataset", 2)
    assert set(files) == {"train.jsonl", "val.jsonl", "manifest.json", "README.md"}
    assert files["train.jsonl"] == (project / "prepared/train.jsonl").read_bytes()
    assert repository.head.title == "Publish 1 training and 1 validation rows"
    assert hub.token not in done.stdout + done.stderr


def test_the_card_tells_licence_sizes_slices_and_hashes(project: Path) -> None:
    config = load_config(project / "configs/cpu/publisher.yaml", PublisherConfig)
    _, metadata, text = render_card(check_prepared(project / "prepared"), config).split("---\n", 2)
    assert yaml.safe_load(metadata)["license"] == "mit"
    for part in ("2 rows", "| short | 1 |", f"| `data/a.jsonl` | `{'a' * 64}` |", "| `train.jsonl` | 1 |"):
        assert part in text


def test_a_dry_run_shows_the_card_and_asks_no_server(project: Path, hub: Hub) -> None:
    done = foundry(project, "push", "prepared", "--dry-run", HF_ENDPOINT=hub.endpoint, HF_TOKEN=hub.token)
    assert done.returncode == 0, done.stderr
    assert f"would be published as {REPOSITORY}" in done.stdout and "## Provenance" in done.stdout
    assert not hub.repositories


def test_a_token_in_a_file_is_used(project: Path, hub: Hub) -> None:
    (project / "hf").mkdir()
    (project / "hf/token").write_text(hub.token)
    done = foundry(project, "push", "prepared", HF_ENDPOINT=hub.endpoint)
    assert done.returncode == 0, done.stderr


def test_no_token_and_a_wrong_one_are_told(project: Path, hub: Hub) -> None:
    done = foundry(project, "push", "prepared", HF_ENDPOINT=hub.endpoint)
    assert done.returncode == 2 and "set HF_TOKEN" in done.stderr
    done = foundry(project, "push", "prepared", HF_ENDPOINT=hub.endpoint, HF_TOKEN="hf_wrong")
    assert done.returncode == 2 and f"{REPOSITORY}: could not be published" in done.stderr
    assert "hf_wrong" not in done.stdout + done.stderr


def test_data_that_changed_since_it_was_prepared_is_not_published(project: Path) -> None:
    (project / "prepared/val.jsonl").write_text("{}\n")
    done = foundry(project, "push", "prepared", "--dry-run")
    assert done.returncode == 2
    assert "prepared/val.jsonl: missing, or not what the manifest says" in done.stderr
    assert foundry(project, "push", "configs", "--dry-run").returncode == 2


def test_what_was_published_can_be_fetched(project: Path, hub: Hub) -> None:
    foundry(project, "push", "prepared", HF_ENDPOINT=hub.endpoint, HF_TOKEN=hub.token)
    done = foundry(project, "pull", f"hf:{REPOSITORY}", HF_ENDPOINT=hub.endpoint)
    assert done.returncode == 0, done.stderr
    lines = (project / "data/qmd-query-expansion-train.jsonl").read_text().splitlines()
    other = {"query": "tea pot", "output": ROW["output"]}
    assert [json.loads(line) for line in lines] == [ROW, other]


def test_every_jsonl_of_a_set_in_training_format_is_fetched(project: Path, hub: Hub) -> None:
    files = {name: json.dumps({**ROW, "query": name, "note": "x"}).encode() + b"\n" for name in ("b.jsonl", "a.jsonl")}
    hub.create("acme/teas", "dataset").push({**files, "README.md": b"Teas."})
    done = foundry(project, "pull", "hf:acme/teas", "--output", "mine/teas.jsonl", HF_ENDPOINT=hub.endpoint)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (project / "mine/teas.jsonl").read_text().splitlines()]
    assert rows == [{**ROW, "query": "a.jsonl"}, {**ROW, "query": "b.jsonl"}]
    again = foundry(project, "pull", "hf:acme/teas", "--output", "mine/teas.jsonl", HF_ENDPOINT=hub.endpoint)
    assert again.returncode == 2 and "exists already" in again.stderr


def test_a_set_with_a_bad_row_writes_nothing(project: Path, hub: Hub) -> None:
    hub.create("acme/teas", "dataset").push({"a.jsonl": json.dumps(ROW).encode() + b'\n{"query": "tea"}\n'})
    done = foundry(project, "pull", "hf:acme/teas", HF_ENDPOINT=hub.endpoint)
    assert done.returncode == 2
    assert "a.jsonl:2: output: missing" in done.stderr
    assert not (project / "data").exists()


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set; unset it."),
        ({"HF_ENDPOINT": "http://127.0.0.1:1"}, "Check the name, the network"),
    ],
)
def test_being_offline_is_told_without_a_traceback(project: Path, environment: dict[str, str], told: str) -> None:
    for arguments in (["pull", "hf:acme/teas"], ["push", "prepared"]):
        done = foundry(project, *arguments, HF_TOKEN="hf_secret", **environment)
        assert done.returncode == 2
        assert told in done.stderr and "Traceback" not in done.stderr


def test_a_set_that_is_not_there_and_a_wrong_reference_are_told(project: Path, hub: Hub) -> None:
    done = foundry(project, "pull", "hf:acme/none", HF_ENDPOINT=hub.endpoint)
    assert done.returncode == 2 and "hf:acme/none: could not be fetched" in done.stderr
    done = foundry(project, "pull", "acme/teas")
    assert done.returncode == 2 and "Write hf:org/name" in done.stderr
