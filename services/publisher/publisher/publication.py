"""A publication, step by step: everything is made and tried in a staging folder, then made visible at once."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from publisher.acceptance import read_acceptance
from publisher.admission import (
    REPORT_NAME,
    RefusedError,
    Submission,
    check_submission,
    check_verdict,
    read_trusted_verdict,
)
from publisher.card import Published, adapter_base, texts
from publisher.child import CalledOffError
from publisher.config import PublisherConfig
from publisher.crash_points import reach
from publisher.gguf import GgufFile, GgufMaker, Scratch, describe
from publisher.parity import choose_default
from publisher.questions import read_questions
from publisher.registry import Deployment, Publication, PublicationTarget
from qmd_schema.artifacts import MANIFEST_NAME, Manifest, read_manifest, sha256_file, sha256_folder, sha256_json
from qmd_schema.contract import bos_token
from qmd_schema.verdicts import Verdict

OnProgress = Callable[[str, int, int], None]
"""Called with what is done next, the number of steps done, and the number of all steps."""


def publish(
    submission: Submission,
    config: PublisherConfig,
    registry: PublicationTarget,
    on_progress: OnProgress,
    cancelled: threading.Event,
) -> Deployment:
    """Publishes a judged model and returns its deployment; the one that is there if this verdict was published before.

    Raises UserError when it is refused, StepError when a step fails, CalledOffError soon after `cancelled` is set.
    In each case the registry stays as it was.
    """
    verdict = read_trusted_verdict(submission.verdict, config)
    current = registry.current()
    if current and current.verdict_id == verdict.id:
        registry.recover()
        if deployed := registry.deployed():
            return deployed
    check_verdict(verdict, config, current.revision if current else None, datetime.now(UTC))
    data = check_submission(submission, config)
    _check_disk(submission, config)
    publication = _plan(submission, config, verdict, current.revision if current else None)
    questions = read_questions(config.parity)
    steps = _Steps(7 + 2 * len(config.quantisations), on_progress, cancelled)
    with registry.staging(publication.revision) as staged:
        model, gguf = staged / config.name, staged / f"{config.name}-gguf"
        with steps.next("copy the model"):
            _copy_model(submission.model, model, verdict)
        scratch = Scratch(staged / "scratch")
        scratch.folder.mkdir()
        scratch.questions.write_text(questions.model_dump_json(), encoding="utf-8")
        files = _make_gguf(GgufMaker(cancelled, config.step_seconds), model, gguf, publication, config, scratch, steps)
        publication = _settle(publication, files, config)
        for file in files:
            if file.quantisation not in publication.gguf:
                (gguf / file.name).unlink()
        shutil.rmtree(scratch.folder)
        with steps.next("copy adapters"):
            for suffix, folder in submission.adapters.items():
                _copy_adapter(
                    folder, staged / f"{config.name}-{suffix}", adapter_base(suffix, config, submission.adapters)
                )
        with steps.next("copy training data"):
            _copy_data(submission.data_manifest.parent, staged / config.data_name, data)
        with steps.next("write cards"):
            shutil.copyfile(submission.verdict, model / "verdict.json")
            shutil.copyfile(submission.evaluation / REPORT_NAME, model / REPORT_NAME)
            about = Published(
                config=config,
                publication=publication,
                verdict=verdict,
                measured=files,
                bos_token=bos_token(model),
                adapters=list(submission.adapters),
                data_files=list(data.outputs),
                acceptance=read_acceptance(config.acceptance, (gguf / name for name in publication.gguf.values())),
            )
            for path, text in texts(about).items():
                (staged / path).write_text(text, encoding="utf-8")
        with steps.next("make visible"):
            deployment = registry.commit(staged, publication)
    return deployment


class _Steps:
    """Counts steps, reports each as it begins, and stops at the next one when the publication is called off."""

    def __init__(self, total: int, on_progress: OnProgress, cancelled: threading.Event) -> None:
        self._done, self._total = 0, total
        self._on_progress, self._cancelled = on_progress, cancelled

    @contextmanager
    def next(self, task: str) -> Iterator[None]:
        if self._cancelled.is_set():
            raise CalledOffError
        self._on_progress(task, self._done, self._total)
        reach(task)
        yield
        self._done += 1


def _plan(submission: Submission, config: PublisherConfig, verdict: Verdict, parent: str | None) -> Publication:
    """The record of the publication to be. Its revision is a hash of everything that goes into it."""
    settings = config.model_dump(mode="json", exclude={"server", "registry", "folder", "hub", "signing_key"})
    adapters = {f"adapter {suffix}": sha256_folder(folder) for suffix, folder in submission.adapters.items()}
    stages = {suffix: read_manifest(folder.parent) for suffix, folder in submission.adapters.items()}
    provenance = {
        "model": verdict.candidate.sha256,
        **adapters,
        **{f"config of {suffix}": sha256_json(stage.config) for suffix, stage in stages.items() if stage},
        "config of publication": sha256_json(settings),
        "training data manifest": sha256_file(submission.data_manifest),
        "verdict": sha256_file(submission.verdict),
        "evaluation data": verdict.data_sha256,
        "evaluation config": verdict.config_sha256,
        "code version": verdict.code_version,
    }
    revision = sha256_json([parent, provenance])[:40]
    companions = [f"{config.repository}-{suffix}" for suffix in ("gguf", *submission.adapters)]
    return Publication(
        repository=config.repository,
        revision=revision,
        parent=parent,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        repositories=[config.repository, *companions, f"{config.namespace}/{config.data_name}"],
        # QMD keeps expansions by the model's path, so another model needs another file name.
        gguf={q: f"{config.name}-{revision[:8]}-{q}.gguf" for q in config.quantisations},
        default_quantisation=config.default_quantisation or "bf16",  # until the files are measured
        verdict_id=verdict.id,
        provenance=provenance,
    )


def _check_disk(submission: Submission, config: PublisherConfig) -> None:
    """Raises RefusedError when the disk cannot hold a copy of the model and a GGUF file of its size a quantisation."""
    weights = sum(path.stat().st_size for path in submission.model.glob("*.safetensors"))
    needed = weights * (1 + len(config.quantisations))
    config.working_folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(config.working_folder).free
    if free < needed:
        raise RefusedError(
            f"{config.working_folder.absolute()}: {free / 2**30:.1f} GiB free on its disk, publishing may need "
            f"{needed / 2**30:.1f}. Free some, or set another disk's folder in the config."
        )


def _copy_model(source: Path, target: Path, verdict: Verdict) -> None:
    """Copies the model without its manifest, and hashes the copy: what ships is what was judged."""
    shutil.copytree(source, target, ignore=lambda folder, _: {MANIFEST_NAME} if Path(folder) == source else set())
    found = sha256_folder(target)
    if found != verdict.candidate.sha256:
        raise RefusedError(
            f"{source}: its hash is {found}, but verdict {verdict.id} is about {verdict.candidate.sha256}. "
            "Compare this model, or publish the one that was compared."
        )


def _make_gguf(
    maker: GgufMaker,
    model: Path,
    folder: Path,
    publication: Publication,
    config: PublisherConfig,
    scratch: Scratch,
    steps: _Steps,
) -> list[GgufFile]:
    """Makes every file and has it answer. Raises ArtifactError for one that is not what was judged."""
    paths = {quantisation: folder / name for quantisation, name in publication.gguf.items()}
    folder.mkdir()
    with steps.next("convert to bf16"):
        maker.convert(model, paths["bf16"], model.name)
    for quantisation, path in paths.items():
        if quantisation != "bf16":
            with steps.next(f"quantise to {quantisation}"):
                maker.quantise(paths["bf16"], path, quantisation)
    with steps.next("read prompts with the model itself"):
        maker.reference(model, scratch)
    reports = {}
    for quantisation, path in paths.items():
        with steps.next(f"ask the {quantisation} file"):
            reports[quantisation] = maker.ask(path, model, quantisation, config.parity.tolerance, scratch)
    with steps.next("measure the answers"):
        worth = maker.measure(config.parity, list(paths), scratch)
    margins = config.parity.margins
    return [describe(path, reports[q], worth[q], worth["bf16"], margins, q) for q, path in paths.items()]


def _settle(publication: Publication, files: Sequence[GgufFile], config: PublisherConfig) -> Publication:
    """The publication with the files that hold every margin, and the one that QMD should use.

    Raises RefusedError when the config names a file for QMD that does not.
    """
    for file in files:
        if file.quantisation == config.default_quantisation and file.parity.broken:
            raise RefusedError(
                f"{file.name}: {'; '.join(file.parity.broken)}. Take default_quantisation out of the config to have "
                "the smallest file chosen that is good enough, or widen parity.margins."
            )
    kept = {file.quantisation: file.name for file in files if not file.parity.broken}
    default = config.default_quantisation or choose_default([file.parity for file in files])
    return publication.model_copy(update={"gguf": kept, "default_quantisation": default})


def _copy_adapter(source: Path, target: Path, base: str) -> None:
    """Copies an adapter, naming its base by repository instead of by a folder of this machine."""
    shutil.copytree(source, target)
    path = target / "adapter_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(settings | {"base_model_name_or_path": base}, indent=2) + "\n", encoding="utf-8")


def _copy_data(source: Path, target: Path, manifest: Manifest) -> None:
    for name in [*manifest.outputs, MANIFEST_NAME]:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
