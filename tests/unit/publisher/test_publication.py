import json
import shutil
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from publisher.acceptance import Acceptance
from publisher.child import CalledOffError, StepError
from publisher.config import PublisherConfig
from publisher.gguf import GgufMaker
from publisher.llama import ExpansionModel
from publisher.parity import Worth
from publisher.publication import publish
from publisher.registry import Deployment, open_registry
from qmd_schema.artifacts import MANIFEST_NAME, sha256_file, sha256_folder, write_manifest
from qmd_schema.config import StrictModel
from qmd_schema.errors import UserError
from qmd_schema.verdicts import ModelIdentity
from support.publishing import publisher_config, submit
from support.qmd_acceptance import gguf_of

SHORT = {"quantisations": ["bf16"], "default_quantisation": "bf16"}


def publish_quietly(folder: Path, model: Path, config: PublisherConfig, **verdict_changes: object) -> Deployment:
    submission = submit(folder, model, config, **verdict_changes)
    return publish(submission, config, open_registry(config), lambda *_: None, threading.Event())


def publish_with_worth(folder: Path, model: Path, config: PublisherConfig, rubric: Mapping[str, float]) -> Deployment:
    """Publishes as if the answers of each file had these rubric scores, with a margin of 0.05."""
    margins = config.parity.margins.model_copy(update={"rubric": 0.05})
    config = config.model_copy(update={"parity": config.parity.model_copy(update={"margins": margins})})
    worth = {quantisation: Worth(1.0, score, None) for quantisation, score in rubric.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GgufMaker, "measure", lambda *_: worth)
        return publish_quietly(folder, model, config)


def files_in(folder: Path) -> list[str]:
    """Files of a registry but its locks."""
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and p.name != "lock")


class Published(NamedTuple):
    config: PublisherConfig
    model: Path
    deployment: Deployment
    steps: list[tuple[str, int, int]]


@pytest.fixture(scope="module")
def published(brief_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """A model whose folder holds the merge's manifest too, published once."""
    folder = tmp_path_factory.mktemp("published")
    model = Path(shutil.copytree(brief_llama, folder / "model"))
    config = publisher_config(folder)
    submission = submit(folder, model, config)
    made_of = {"adapter": sha256_folder(submission.adapters["grpo"])}
    write_manifest(model, "merge", StrictModel(), made_of, seconds=1.0, packages=[])
    steps: list[tuple[str, int, int]] = []
    registry = open_registry(config)
    deployment = publish(submission, config, registry, lambda *step: steps.append(step), threading.Event())
    return Published(config, model, deployment, steps)


def test_what_is_published_is_deployed(published: Published) -> None:
    deployment = published.deployment
    assert open_registry(published.config).deployed() == deployment
    assert deployment.repository == "acme/qmd-query-expansion-1M"
    assert (deployment.default_quantisation, deployment.verdict_id) == ("Q4_K_M", "verdict-1")


def test_the_published_model_is_the_judged_one_without_its_manifest(published: Published) -> None:
    files = {p.name for p in published.model.iterdir()} - {MANIFEST_NAME}
    ours = {"README.md", "gains.svg", "verdict.json", "report.html", "publication.json"}
    assert {p.name for p in published.deployment.model.iterdir()} == files | ours
    for name in files:
        assert sha256_file(published.deployment.model / name) == sha256_file(published.model / name)


def test_every_gguf_file_carries_the_revision_and_answers(published: Published) -> None:
    deployment = published.deployment
    assert list(deployment.gguf) == ["bf16", "Q8_0", "Q4_K_M"]
    for quantisation, path in deployment.gguf.items():
        assert path.name == f"qmd-query-expansion-1M-{deployment.revision[:8]}-{quantisation}.gguf"
        with ExpansionModel(path) as model:
            assert model.expand("tea", seed=1)


def test_the_record_and_the_figures_name_the_smallest_file_that_is_good_enough(published: Published) -> None:
    deployment = published.deployment
    record = json.loads((deployment.model / "publication.json").read_text())
    figures = json.loads((deployment.gguf["bf16"].parent / "parity.json").read_text())
    assert record["default_quantisation"] == min(figures, key=lambda file: file["bytes"])["quantisation"]
    assert {"adapter sft", "config of sft", "config of grpo", "config of publication"} <= record["provenance"].keys()
    assert [file["quantisation"] for file in figures] == ["bf16", "Q8_0", "Q4_K_M"]
    assert figures[0]["total_variation"] < 0.03 and figures[0]["worth"]["gain"] is None


def test_a_file_that_breaks_a_margin_is_left_out(brief_llama: Path, tmp_path: Path) -> None:
    config = publisher_config(tmp_path, quantisations=["bf16", "Q8_0"])
    deployment = publish_with_worth(tmp_path, brief_llama, config, {"bf16": 0.8, "Q8_0": 0.7})
    assert (list(deployment.gguf), deployment.default_quantisation) == (["bf16"], "bf16")
    assert [path.name for path in deployment.gguf["bf16"].parent.glob("*.gguf")] == [deployment.gguf["bf16"].name]


def test_a_default_that_breaks_a_margin_is_refused_and_leaves_nothing(brief_llama: Path, tmp_path: Path) -> None:
    config = publisher_config(tmp_path, quantisations=["bf16", "Q8_0"], default_quantisation="Q8_0")
    with pytest.raises(UserError, match=r"Q8_0\.gguf: rubric score 0\.100 below bf16"):
        publish_with_worth(tmp_path, brief_llama, config, {"bf16": 0.8, "Q8_0": 0.7})
    assert files_in(config.folder) == []


def test_a_model_that_llama_cpp_computes_otherwise_is_refused_and_leaves_nothing(
    brief_llama: Path, tmp_path: Path
) -> None:
    parity = publisher_config(tmp_path).parity.model_dump() | {"tolerance": 1e-9}
    config = publisher_config(tmp_path, **SHORT, parity=parity)
    with pytest.raises(UserError, match=r"bf16\.gguf: its next-token probabilities differ by 0\.\d+"):
        publish_quietly(tmp_path, brief_llama, config)
    assert files_in(config.folder) == []


def test_a_model_judged_in_the_qmd_client_beforehand_has_its_table_in_the_card(
    brief_llama: Path, tmp_path: Path
) -> None:
    config = publisher_config(tmp_path, **SHORT, acceptance=tmp_path / "acceptance.json")
    judged = gguf_of(brief_llama, "bf16", config, tmp_path / "judged")
    acceptance = Acceptance(files={"mine": sha256_file(judged)}, table="| mine | 0.4% |\n")
    config.acceptance.write_text(acceptance.model_dump_json())
    deployment = publish_quietly(tmp_path, brief_llama, config)
    assert sha256_file(deployment.gguf["bf16"]) == sha256_file(judged)
    assert acceptance.table in (deployment.model / "README.md").read_text()


def test_adapters_and_training_data_are_published_beside_the_model(published: Published) -> None:
    sft, grpo, data = (
        published.config.folder / f"acme/qmd-query-expansion-{name}/revisions/{published.deployment.revision}"
        for name in ("1M-sft", "1M-grpo", "train")
    )
    bases = [json.loads((p / "adapter_config.json").read_text())["base_model_name_or_path"] for p in (sft, grpo)]
    assert bases == ["acme/tiny", "acme/qmd-query-expansion-1M-sft"]
    assert {p.name for p in data.iterdir()} == {"README.md", "manifest.json", "train.jsonl"}


def test_progress_counts_every_step_once(published: Published) -> None:
    assert [done for _, done, _ in published.steps] == list(range(13))
    assert {total for _, _, total in published.steps} == {13}
    assert published.steps[0][0] == "copy the model" and published.steps[-1][0] == "make visible"


def test_a_verdict_published_before_gives_the_same_deployment_at_once(published: Published, tmp_path: Path) -> None:
    again = publish_quietly(tmp_path, published.model, published.config)
    assert again == published.deployment
    assert [p.revision for p in open_registry(published.config).history()] == [again.revision]


def test_a_second_model_replaces_the_first_which_stays(published: Published, tmp_path: Path) -> None:
    shutil.copytree(published.config.folder, tmp_path / "registry")
    config = publisher_config(tmp_path, **SHORT)
    first = open_registry(config).deployed()
    assert first is not None
    reference = ModelIdentity(reference=str(first.model), sha256=sha256_folder(first.model), revision=first.revision)
    compared = {"reference_kind": "deployed", "reference": reference}
    second = publish_quietly(tmp_path, published.model, config, id="verdict-2", **compared)
    assert [p.revision for p in open_registry(config).history()] == [second.revision, first.revision]
    assert first.gguf["bf16"].is_file() and first.gguf["bf16"].name != second.gguf["bf16"].name
    with pytest.raises(UserError, match=f"compares with {first.revision}, but {second.revision} is deployed"):
        publish_quietly(tmp_path, published.model, config, id="verdict-3", **compared)


def test_another_model_than_the_judged_one_is_refused_and_leaves_nothing(brief_llama: Path, tmp_path: Path) -> None:
    config = publisher_config(tmp_path)
    model = Path(shutil.copytree(brief_llama, tmp_path / "model"))
    submission = submit(tmp_path, brief_llama, config)
    (model / "config.json").write_text((model / "config.json").read_text() + "\n")
    with pytest.raises(UserError, match=r"its hash is [0-9a-f]{64}, but verdict verdict-1 is about"):
        publish(replace(submission, model=model), config, open_registry(config), lambda *_: None, threading.Event())
    assert files_in(config.folder) == []


def test_a_model_that_cannot_be_converted_leaves_nothing(brief_llama: Path, tmp_path: Path) -> None:
    config = publisher_config(tmp_path)
    model = Path(shutil.copytree(brief_llama, tmp_path / "model"))
    (model / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(StepError, match="convert_hf_to_gguf ended with code 1"):
        publish_quietly(tmp_path, model, config)
    assert files_in(config.folder) == []


def test_a_publication_that_is_called_off_leaves_nothing(brief_llama: Path, tmp_path: Path) -> None:
    config = publisher_config(tmp_path)
    submission = submit(tmp_path, brief_llama, config)
    cancelled = threading.Event()

    def call_off(task: str, _done: int, _total: int) -> None:
        if task == "convert to bf16":
            cancelled.set()

    with pytest.raises(CalledOffError):
        publish(submission, config, open_registry(config), call_off, cancelled)
    assert files_in(config.folder) == []
