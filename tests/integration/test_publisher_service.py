import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
import yaml

from publisher.admission import Submission
from publisher.config import PublisherConfig
from publisher.registry import open_registry
from qmd_rpc.channel import ServiceError
from qmd_rpc.publishing import PublishingClient
from qmd_rpc.v1 import evaluation_pb2, publishing_pb2
from support.publishing import publisher_config, submit, write_brief_model

STEPS = [
    "copy the model",
    "convert to bf16",
    "quantise to Q8_0",
    "read prompts with the model itself",
    "ask the bf16 file",
    "ask the Q8_0 file",
    "measure the answers",
    "copy adapters",
    "copy training data",
    "write cards",
    "make visible",
]


class PublisherProcess:
    """`python -m publisher` in a folder and on a port of its own, started as often as it is told to."""

    def __init__(self, folder: Path, port: int) -> None:
        self.config = publisher_config(folder, quantisations=["bf16", "Q8_0"])
        (folder / "publisher.yaml").write_text(yaml.safe_dump(self.config.model_dump(mode="json")))
        self.address = f"127.0.0.1:{port}"
        self.command = [sys.executable, "-m", "publisher", "--config", "publisher.yaml", "--port", str(port)]
        self.folder = folder
        self.log = folder / "publisher.log"
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, cwd=self.folder, stderr=log)

    def end(self, number: signal.Signals) -> tuple[int, str]:
        """Sends a signal and waits. Returns the exit code and the log."""
        self.process.send_signal(number)
        return self.process.wait(60), self.log.read_text()

    def wait_for_log(self, text: str) -> None:
        end = time.monotonic() + 60
        while text not in self.log.read_text():
            assert time.monotonic() < end, f"{text!r} is not in the log"
            time.sleep(0.05)

    def files(self) -> list[str]:
        """Files of the registry but its lock."""
        return sorted(p.name for p in self.config.folder.rglob("*") if p.is_file() and p.name != "lock")


@pytest.fixture(scope="module")
def brief_llama(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("brief") / "llama"
    write_brief_model(tiny_llama, folder)
    return folder


@pytest.fixture
def service(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[PublisherProcess]:
    started = PublisherProcess(tmp_path, free_port())
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.end(signal.SIGKILL)


@pytest.fixture
def client(service: PublisherProcess) -> Iterator[PublishingClient]:
    with PublishingClient(service.address, deadline=300) as connected:
        connected.wait_ready(60)
        yield connected


def publish(
    client: PublishingClient, submission: Submission, on_step: Callable[[str], None] = lambda _: None
) -> publishing_pb2.Deployment:
    def on_progress(progress: evaluation_pb2.Progress) -> None:
        assert (progress.done, progress.total) == (STEPS.index(progress.task), len(STEPS))
        on_step(progress.task)

    return client.publish(
        submission.verdict,
        submission.model,
        submission.adapters,
        submission.data_manifest,
        submission.evaluation,
        on_progress,
    )


def test_a_judged_model_is_published_and_deployed(
    service: PublisherProcess, client: PublishingClient, brief_llama: Path
) -> None:
    assert client.deployed() is None
    steps: list[str] = []
    deployment = publish(client, submit(service.folder, brief_llama, service.config), steps.append)
    assert steps == STEPS
    assert client.deployed() == deployment
    assert Path(deployment.model, "README.md").is_file()
    assert set(deployment.gguf) == {"bf16", "Q8_0"} and all(Path(p).is_file() for p in deployment.gguf.values())
    code, log = service.end(signal.SIGTERM)
    assert code == 0
    assert f"published acme/qmd-query-expansion-1M revision {deployment.revision}" in log


def test_a_dry_run_makes_everything_tells_it_and_publishes_nothing(
    service: PublisherProcess, client: PublishingClient, brief_llama: Path
) -> None:
    submission = submit(service.folder, brief_llama, service.config)
    steps: list[str] = []
    changes = client.preview(
        submission.verdict,
        submission.model,
        submission.adapters,
        submission.data_manifest,
        submission.evaluation,
        lambda progress: steps.append(progress.task),
    )
    assert steps == STEPS
    written = {change.repository.removeprefix("acme/qmd-query-expansion-"): change.written for change in changes}
    assert set(written) == {"1M", "1M-gguf", "1M-sft", "1M-grpo", "train"}
    assert len([name for name in written["1M-gguf"] if name.endswith(".gguf")]) == 2
    assert written["1M"]["model.safetensors"] == (brief_llama / "model.safetensors").stat().st_size
    assert service.files() == [] and client.deployed() is None


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda s, _: s.verdict.unlink(), "no verdict there"),
        (lambda s, _: s.verdict.write_text(s.verdict.read_text().replace("0.031", "0.31")), "signature does not match"),
        (lambda s, c: submit(s.verdict.parent.parent, s.model, c, outcome="FAIL"), "is FAIL, not PASS"),
        (lambda s, _: (s.model / "config.json").write_text("{}"), "its hash is"),
        (
            lambda s, c: submit(
                s.verdict.parent.parent,
                s.model,
                c,
                reference_kind="deployed",
                reference={"reference": "/old", "sha256": "b", "revision": "old"},
            ),
            "compares with old, but nothing is deployed",
        ),
        (
            lambda s, c: submit(s.verdict.parent.parent, s.model, c, created="2026-01-01T00:00:00+00:00"),
            "hours old, at most 72 are allowed",
        ),
        (lambda s, _: s.data_manifest.unlink(), "no manifest of the training data"),
        (lambda s, _: (s.evaluation / "report.html").unlink(), "no report.html"),
        (lambda s, _: (s.adapters["sft"] / "adapter_config.json").unlink(), "not an adapter folder"),
    ],
    ids=["no verdict", "forged", "FAIL", "another model", "stale reference", "old", "no data", "no report", "adapter"],
)
def test_a_publication_is_refused_with_its_reason(
    service: PublisherProcess,
    client: PublishingClient,
    brief_llama: Path,
    spoil: Callable[[Submission, PublisherConfig], object],
    reason: str,
) -> None:
    model = Path(shutil.copytree(brief_llama, service.folder / "model"))
    submission = submit(service.folder, model, service.config)
    spoil(submission, service.config)
    with pytest.raises(ServiceError, match=reason) as refused:
        publish(client, submission)
    assert refused.value.code is grpc.StatusCode.FAILED_PRECONDITION
    assert client.deployed() is None
    assert service.files() == []


def test_an_adapter_with_a_version_in_its_name_is_refused(
    service: PublisherProcess, client: PublishingClient, brief_llama: Path
) -> None:
    submission = submit(service.folder, brief_llama, service.config)
    with pytest.raises(ServiceError, match="holds the version 'v2'"):
        publish(client, replace(submission, adapters={"sft-v2": submission.adapters["sft"]}))


def test_a_failing_step_is_an_internal_error_and_leaves_nothing(
    service: PublisherProcess, client: PublishingClient, brief_llama: Path
) -> None:
    model = Path(shutil.copytree(brief_llama, service.folder / "model"))
    (model / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ServiceError, match="convert_hf_to_gguf ended with code 1") as failed:
        publish(client, submit(service.folder, model, service.config))
    assert failed.value.code is grpc.StatusCode.INTERNAL
    assert service.files() == []


@pytest.mark.parametrize(
    "step", [step if step == "convert to bf16" else pytest.param(step, marks=pytest.mark.slow) for step in STEPS]
)
def test_after_a_kill_at_any_step_a_second_run_completes(
    service: PublisherProcess, client: PublishingClient, brief_llama: Path, step: str
) -> None:
    submission = submit(service.folder, brief_llama, service.config)
    killed = threading.Event()

    def kill_at(task: str) -> None:
        if task == step and not killed.is_set():
            service.end(signal.SIGKILL)
            killed.set()

    with pytest.raises(ServiceError):
        publish(client, submission, kill_at)
    assert killed.is_set()
    registry = open_registry(service.config)
    before = registry.deployed()
    service.start()
    client.wait_ready(60)
    assert registry.deployed() == before
    assert not list(service.config.folder.glob("*/*/staging/*"))
    deployment = publish(client, submission)
    assert [revision.revision for revision in registry.history()] == [deployment.revision]


@pytest.mark.slow
def test_sigterm_calls_a_publication_off_and_leaves_nothing(
    service: PublisherProcess, client: PublishingClient, brief_llama: Path
) -> None:
    submission = submit(service.folder, brief_llama, service.config)
    service.end(signal.SIGTERM)
    config = service.config.model_dump(mode="json") | {"server": {"port": 0, "drain_seconds": 0.0}}
    (service.folder / "publisher.yaml").write_text(yaml.safe_dump(config))
    service.start()
    client.wait_ready(60)

    def terminate(task: str) -> None:
        if task == "convert to bf16":
            os.kill(service.process.pid, signal.SIGTERM)

    with pytest.raises(ServiceError):
        publish(client, submission, terminate)
    code, log = service.end(signal.SIGTERM)
    assert code == 0 and "Traceback" not in log
    assert service.files() == []


@pytest.mark.slow
def test_a_caller_that_goes_away_calls_its_publication_off(
    service: PublisherProcess, client: PublishingClient, brief_llama: Path
) -> None:
    submission = submit(service.folder, brief_llama, service.config)

    def leave(task: str) -> None:
        if task == "convert to bf16":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(client, submission, leave)
    service.wait_for_log("called off")
    assert service.files() == []
    assert publish(client, submission) == client.deployed()


@pytest.mark.slow
def test_a_second_service_is_refused_while_a_publication_runs(
    service: PublisherProcess, client: PublishingClient, brief_llama: Path
) -> None:
    second: list[subprocess.CompletedProcess[str]] = []

    def start_another(task: str) -> None:
        if task == "convert to bf16":
            command = [*service.command[:-1], "0"]
            second.append(subprocess.run(command, cwd=service.folder, capture_output=True, text=True, timeout=60))

    publish(client, submit(service.folder, brief_llama, service.config), start_another)
    assert second[0].returncode == 2
    assert "another publication is running" in second[0].stderr and "Traceback" not in second[0].stderr


def test_a_port_in_use_ends_the_program_with_2(service: PublisherProcess, client: PublishingClient) -> None:
    done = subprocess.run(service.command, cwd=service.folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert f"port {service.address.rsplit(':')[-1]} on 127.0.0.1 is in use" in done.stderr
    assert client.deployed() is None


def test_a_dry_run_prints_the_resolved_config(root: Path) -> None:
    command = [sys.executable, "-m", "publisher", "--config", "configs/cpu/publisher.yaml", "--dry-run"]
    done = subprocess.run([*command, "--port", "9"], cwd=root, capture_output=True, text=True, check=True)
    config = yaml.safe_load(done.stdout)
    assert (config["server"]["port"], config["size"], config["parity"]["prompts"]) == (9, "135M", 32)
