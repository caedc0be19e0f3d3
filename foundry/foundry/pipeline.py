"""The main job: walks data, SFT, GRPO, verdict and publication, each stage once, and goes on where it stopped."""

import json
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from foundry.config import Profile
from foundry.progress import StageProgress
from foundry.runs import STAGES, Run
from foundry.services import module_command, run_to_end, service
from publisher.registry import Deployment, open_registry
from qmd_rpc.channel import ServiceError
from qmd_rpc.evaluation import EvaluationClient
from qmd_rpc.inference import InferenceClient
from qmd_rpc.publishing import PublishingClient
from qmd_rpc.reward import RewardClient
from qmd_rpc.v1 import publishing_pb2
from qmd_schema.artifacts import sha256_file, sha256_folder, write_manifest, write_text_atomically
from qmd_schema.config import StrictModel
from qmd_schema.errors import UserError
from qmd_schema.verdicts import SignedVerdict
from trainer.base_models import resolve_model

OWN_PACKAGES = ("qmd-foundry", "qmd-schema", "qmd-evaluator", "qmd-publisher")


class Client(Protocol):
    """What every service's client can be asked."""

    def wait_ready(self, timeout: float) -> None: ...


class Pipeline:
    """Walks one run through its stages; services are started when a stage first needs them and stopped at the end."""

    def __init__(self, run: Run, profile: Profile, console: Console) -> None:
        self.run = run
        self.profile = profile
        self.console = console
        self._services = ExitStack()
        self._started: dict[str, Callable[[], None]] = {}
        """What keeps each service up that was started."""

    def check_machine(self) -> None:
        """Raises UserError when a port that the run needs is taken, or the disk is too full for its weights."""
        for name, port in self.profile.ports.items():
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError as error:
                    raise UserError(
                        f"port {port} of the {name} service is in use: stop the program that listens there, "
                        f"or change the port in {self.profile.config_file(name)}."
                    ) from error
        free = shutil.disk_usage(self.run.folder).free / 2**30
        wanted = self.profile.pipeline.minimum_free_disk_gib
        if free < wanted:
            raise UserError(
                f"{self.run.folder}: {free:.1f} GiB free, a run needs {wanted:g} GiB. "
                "Free some space, or name another folder with `runs` in pipeline.yaml."
            )

    def walk(self) -> None:
        """Runs every stage that has no manifest yet, in order, and stops all services however it ends."""
        stages: dict[str, Callable[[StageProgress], None]] = {
            "prepare": self._prepare,
            "sft": self._sft,
            "sft-merged": self._merge_sft,
            "grpo": self._grpo,
            "merged": self._merge_grpo,
            "evaluate": self._evaluate,
            "publish": self._publish,
        }
        with self._services:
            for number, stage in enumerate(STAGES, start=1):
                title = f"[{number}/{len(STAGES)}] {stage}"
                if self.run.manifest(stage) is not None:
                    self.console.print(f"{title}: done before", highlight=False)
                    continue
                start = time.monotonic()
                with StageProgress(self.console, title) as progress:
                    stages[stage](progress)
                self.console.print(f"{title}: done in {time.monotonic() - start:.0f} s", highlight=False)

    def _prepare(self, progress: StageProgress) -> None:
        config = str(self.profile.config_file("prepare"))
        self._trainer(progress, "prepare", "prepare", "--config", config)

    def _sft(self, progress: StageProgress) -> None:
        config = str(self.profile.config_file("sft"))
        self._trainer(progress, "sft", "sft", "--config", config, "--data", str(self.run.stage("prepare")))

    def _merge_sft(self, progress: StageProgress) -> None:
        adapter = str(self.run.stage("sft") / "adapter")
        self._trainer(progress, "sft-merged", "merge", "--base", self.profile.pipeline.base_model, "--adapter", adapter)

    def _grpo(self, progress: StageProgress) -> None:
        merged = str(self.run.stage("sft-merged"))
        self._start_reward(progress)
        self._start_inference(progress, merged)
        config, data = str(self.profile.config_file("grpo")), str(self.run.stage("prepare"))
        self._trainer(progress, "grpo", "grpo", "--config", config, "--data", data, "--model", merged)

    def _merge_grpo(self, progress: StageProgress) -> None:
        base, adapter = str(self.run.stage("sft-merged")), str(self.run.stage("grpo") / "adapter")
        self._trainer(progress, "merged", "merge", "--base", base, "--adapter", adapter)

    def _evaluate(self, progress: StageProgress) -> None:
        started = time.monotonic()
        candidate, output = self.run.stage("merged"), self.run.stage("evaluate")
        deployed = self.deployed()
        reference = deployed.model if deployed else resolve_model(self.profile.pipeline.base_model)
        self._start_inference(progress, str(candidate))
        self._start_evaluator(progress)
        with EvaluationClient(self.profile.address("evaluator")) as client:
            signed = client.compare(
                candidate,
                reference,
                deployed_revision=deployed.revision if deployed else "",
                output=output,
                on_progress=progress.report,
            )
        self._finish(
            "evaluate",
            self.profile.evaluator,
            {"candidate": sha256_folder(candidate), "reference": sha256_folder(reference)},
            started,
            {"outcome": signed.verdict.outcome, "reasons": signed.verdict.reasons},
        )

    def _publish(self, progress: StageProgress) -> None:
        started = time.monotonic()
        verdict_path = self.run.stage("evaluate") / "verdict.json"
        outcome = self.verdict().verdict.outcome
        published: dict[str, Any] = {"published": False, "outcome": outcome}
        if outcome == "PASS":
            self._stop_services()
            deployment = self._ask_publisher(progress)
            published = {"published": True, "repository": deployment.repository, "revision": deployment.revision}
        record = self.run.stage("publish") / "publication.json"
        write_text_atomically(record, json.dumps(published, indent=2) + "\n")
        self._finish("publish", self.profile.publisher, {"verdict": sha256_file(verdict_path)}, started, published)

    def publish(self, progress: StageProgress) -> publishing_pb2.Deployment:
        """Publishes the run's judged model by itself. Raises ServiceError with the reason when it is refused."""
        self.verdict()
        with self._services:
            return self._ask_publisher(progress)

    def preview(self, progress: StageProgress) -> Sequence[publishing_pb2.RepositoryChange]:
        """What `publish` would change in the registry, which stays as it is. Raises as `publish`."""
        self.verdict()
        with self._services, self._publisher(progress) as client:
            return client.preview(**self._submission(), on_progress=progress.report)

    def _ask_publisher(self, progress: StageProgress) -> publishing_pb2.Deployment:
        with self._publisher(progress) as client:
            return client.publish(**self._submission(), on_progress=progress.report)

    def _publisher(self, progress: StageProgress) -> PublishingClient:
        self._start_publisher(progress)
        return PublishingClient(self.profile.address("publisher"))

    def _submission(self) -> dict[str, Any]:
        return {
            "verdict": self.run.stage("evaluate") / "verdict.json",
            "model": self.run.stage("merged"),
            "adapters": {name: self.run.stage(name) / "adapter" for name in ("sft", "grpo")},
            "data_manifest": self.run.stage("prepare") / "manifest.json",
            "evaluation": self.run.stage("evaluate"),
        }

    def verdict(self) -> SignedVerdict:
        signed = self.run.verdict()
        if signed is None:
            raise UserError(f"{self.run.folder}: no verdict yet. Go on with it: foundry run --run {self.run.id}")
        return signed

    def deployed(self) -> Deployment | None:
        return open_registry(self.profile.publisher).deployed()

    def _finish(
        self, stage: str, config: StrictModel, inputs: dict[str, str], started: float, figures: dict[str, Any]
    ) -> None:
        seconds = time.monotonic() - started
        write_manifest(self.run.stage(stage), stage, config, inputs, seconds, OWN_PACKAGES, figures=figures)

    def _trainer(self, progress: StageProgress, stage: str, *arguments: str) -> None:
        output = self.run.stage(stage)
        command = module_command("trainer", *arguments, "--output", str(output))

        def on_tick() -> None:
            progress.follow(output / "progress.jsonl")
            for keep_up in self._started.values():
                keep_up()

        run_to_end(command, self._log(stage), on_tick)

    def _start_reward(self, progress: StageProgress) -> None:
        self._start(progress, "reward", RewardClient(self.profile.address("reward"), deadline=2), "reward_service")

    def _start_inference(self, progress: StageProgress, model: str) -> None:
        client = InferenceClient(self.profile.address("inference"), deadline=10)
        self._start(progress, "inference", client, "inference_service", "--model", model)

    def _start_evaluator(self, progress: StageProgress) -> None:
        self._start(progress, "evaluator", EvaluationClient(self.profile.address("evaluator"), deadline=2), "evaluator")

    def _start_publisher(self, progress: StageProgress) -> None:
        self._start(progress, "publisher", PublishingClient(self.profile.address("publisher"), deadline=2), "publisher")

    def _start(self, progress: StageProgress, name: str, client: Client, *arguments: str) -> None:
        """Starts a service once; it lives until the walk ends or `_stop_services`, kept up while a stage trains."""
        if name in self._started:
            return
        task = f"starting the {name} service"
        progress.update(task, 0, 1)
        command = module_command(*arguments, "--config", str(self.profile.config_file(name)))
        ready_seconds = self.profile.pipeline.service_ready_seconds
        started = service(command, self._log(name), lambda: answers(client), ready_seconds)
        self._started[name] = self._services.enter_context(started)
        progress.update(task, 1, 1)

    def _stop_services(self) -> None:
        self._services.close()
        self._started.clear()

    def _log(self, name: str) -> Path:
        return self.run.folder / "logs" / f"{name}.log"


def answers(client: Client) -> bool:
    """Whether a service is ready to be called."""
    try:
        client.wait_ready(2)
    except ServiceError:
        return False
    return True
