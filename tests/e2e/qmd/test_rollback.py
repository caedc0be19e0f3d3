"""A model taken back by command, and the real QMD client then uses it."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from publisher.publication import publish
from publisher.registry import Deployment, open_registry
from qmd_schema.artifacts import sha256_file
from qmd_schema.verdicts import ModelIdentity
from support.publishing import publisher_config, submit, write_brief_model
from support.qmd_acceptance import ask
from support.qmd_client import convert_minilm, installed_client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

QUERY = {"collection": "notes", "id": "tea", "text": "green tea"}


class Notes:
    """A user's QMD: an index.yml that `foundry qmd install` writes the deployed model into, and an index that stays."""

    def __init__(self, folder: Path, foundry: Callable[..., Any]) -> None:
        (folder / "pages").mkdir(parents=True)
        (folder / "pages" / "tea.md").write_text("# Tea\n\nGreen tea is steeped at 80 degrees.\n")
        convert_minilm(folder / "minilm.gguf")
        config = {
            "collections": {"notes": {"path": str(folder / "pages"), "pattern": "**/*.md"}},
            "models": {"embed": str(folder / "minilm.gguf")},
        }
        (folder / "index.yml").write_text(yaml.safe_dump(config, sort_keys=False))
        self.folder, self.foundry = folder, foundry

    def model_used(self) -> str:
        """The name of the GGUF file that QMD asks for an expansion after `foundry qmd install`."""
        self.foundry("qmd", "install", "--write", "--config", str(self.folder / "index.yml"))
        (self.folder / "answers.jsonl").unlink(missing_ok=True)
        [answer] = ask(self.folder, [QUERY])
        return str(answer["model"])


@pytest.fixture
def project(root: Path, tmp_path: Path, free_port: Callable[[], int]) -> Path:
    """A folder whose cpu profile publishes into a registry there."""
    shutil.copytree(root / "configs", tmp_path / "configs")
    small = {"quantisations": ["bf16"], "default_quantisation": "bf16"}
    config = publisher_config(tmp_path, server={"port": free_port()}, **small)
    (tmp_path / "configs/cpu/publisher.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return tmp_path


@pytest.fixture
def foundry(project: Path) -> Callable[..., Any]:
    """Runs a `foundry` command there; returns what it printed as JSON."""

    def run(*arguments: str) -> Any:
        command = [sys.executable, "-m", "foundry", *arguments, "--json"]
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def write_other_model(source: Path, target: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, target)
    weights = load_file(target / "model.safetensors")
    weights["model.norm.weight"] *= 2
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})


def publish_model(project: Path, model: Path, number: int) -> Deployment:
    """Publishes with a PASS against what is deployed."""
    config = publisher_config(project, quantisations=["bf16"], default_quantisation="bf16")
    registry = open_registry(config)
    compared: dict[str, Any] = {"id": f"verdict-{number}"}
    if deployed := registry.deployed():
        reference = ModelIdentity(reference=str(deployed.model), sha256="a" * 64, revision=deployed.revision)
        compared |= {"reference_kind": "deployed", "reference": reference}
    submission = submit(project / str(number), model, config, **compared)
    return publish(submission, config, registry, lambda *_: None, threading.Event())


def test_qmd_asks_the_model_that_a_rollback_took_back(
    project: Path, foundry: Callable[..., Any], tiny_llama: Path
) -> None:
    installed_client()
    notes = Notes(project / "qmd", foundry)
    write_brief_model(tiny_llama, project / "old")
    write_other_model(project / "old", project / "new")
    old = publish_model(project, project / "old", 1)
    assert notes.model_used() == old.gguf["bf16"].name
    new = publish_model(project, project / "new", 2)
    assert notes.model_used() == new.gguf["bf16"].name
    rolled = foundry("rollback", old.repository, old.revision[:8], "--reason", "drops quoted phrases")
    # The index has an expansion of this query by the same weights: the model is asked again, since its path differs.
    assert notes.model_used() == old.gguf["bf16"].name
    assert rolled["revision"] not in (old.revision, new.revision)
    assert sha256_file(Path(rolled["GGUF bf16"])) == sha256_file(old.gguf["bf16"]) != sha256_file(new.gguf["bf16"])
