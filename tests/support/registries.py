"""Publications of tiny files, straight into a registry, and what a reader of it then sees."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from publisher.config import HubConfig
from publisher.hub_registry import HubRegistry
from publisher.registry import Publication, PublicationTarget, Registry
from support.hub import Hub, serve_hub

MODEL = "acme/qmd-query-expansion-1M"
DATA = "acme/qmd-query-expansion-train"
REPOSITORIES = [MODEL, f"{MODEL}-gguf", f"{MODEL}-sft", DATA]
FIRST, SECOND, THIRD = "1" * 40, "2" * 40, "3" * 40


def publication(revision: str, parent: str | None) -> Publication:
    return Publication(
        repository=MODEL,
        revision=revision,
        parent=parent,
        created=f"2026-01-0{revision[0]}T00:00:00+00:00",
        repositories=REPOSITORIES,
        gguf={"bf16": f"tiny-{revision[:8]}.gguf"},
        default_quantisation="bf16",
        verdict_id=f"v{revision[:8]}",
        provenance={},
    )


def stage(staged: Path, revision: str) -> None:
    """Fills a staging folder; the adapter is the same in every revision."""
    files = {
        f"{MODEL}/model.safetensors": revision,
        f"{MODEL}/README.md": f"# {revision}",
        f"{MODEL}-gguf/tiny-{revision[:8]}.gguf": revision,
        f"{MODEL}-sft/adapter_model.safetensors": "adapter",
        f"{DATA}/train.jsonl": f'{{"query": "{revision}"}}\n',
    }
    for path, text in files.items():
        file = staged / path.partition("/")[2]
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)


def publish(registry: PublicationTarget, revision: str, parent: str | None) -> None:
    with registry.staging(revision) as staged:
        stage(staged, revision)
        registry.commit(staged, publication(revision, parent))


def contents(registry: Registry) -> tuple[str, str, str] | None:
    """The deployed revision as its record, its model and its GGUF file tell it."""
    deployed = registry.deployed()
    if deployed is None:
        return None
    model = (deployed.model / "model.safetensors").read_text()
    return deployed.revision, model, deployed.gguf["bf16"].read_text()


def hub_registry(hub: Hub, folder: Path, **settings: object) -> HubRegistry:
    """A registry on the hub that hardly waits between attempts and keeps its cache in `folder`."""
    values = {"endpoint": hub.endpoint, "cache": folder / "cache", "longest_wait_seconds": 0.01, "answer_seconds": 5.0}
    return HubRegistry(HubConfig.model_validate({**values, **settings}), MODEL, DATA)


@contextmanager
def reachable_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on loopback that this process may write to; large files go by LFS, which is what it speaks."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    with serve_hub() as hub:
        monkeypatch.setenv("HF_TOKEN", hub.token)
        yield hub
