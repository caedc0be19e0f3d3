"""A publisher that runs, asked over gRPC and by the `foundry` command about its registry: a local one, and a hub's."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import yaml

from publisher.registry import Registry, open_registry
from qmd_rpc.channel import ServiceError
from qmd_rpc.publishing import PublishingClient
from support.hub import Hub
from support.processes import wait_until
from support.publishing import publisher_config
from support.registries import FIRST, MODEL, SECOND, THIRD, contents, publish, reachable_hub


class Publisher:
    """`python -m publisher` in a project's folder, with three revisions in its registry."""

    def __init__(self, project: Path, port: int, hub: Hub | None) -> None:
        self.hub = hub
        settings: dict[str, object] = {"quantisations": ["bf16"], "default_quantisation": "bf16"}
        if hub:
            settings |= {"registry": "hub", "hub": {"endpoint": hub.endpoint, "cache": project / "cache"}}
        config = publisher_config(project, server={"port": port}, **settings)
        (project / "configs/cpu/publisher.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
        self.registry: Registry = open_registry(config)
        for revision, parent in ((FIRST, None), (SECOND, FIRST), (THIRD, SECOND)):
            publish(self.registry, revision, parent)
        self.project, self.address, self.log = project, f"127.0.0.1:{port}", project / "publisher.log"
        environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
        self.command = [sys.executable, "-m", "publisher", "--config", "configs/cpu/publisher.yaml"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command, cwd=project, stderr=log, env={**environment, "HF_HUB_DISABLE_XET": "1"}
            )

    def foundry(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "foundry", *arguments],
            cwd=self.project,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


@pytest.fixture(params=["local", "hub"])
def publisher(
    request: pytest.FixtureRequest,
    root: Path,
    tmp_path: Path,
    free_port: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Publisher]:
    shutil.copytree(root / "configs", tmp_path / "configs")
    if request.param == "local":
        yield from running(Publisher(tmp_path, free_port(), None))
    else:
        with reachable_hub(monkeypatch) as hub:
            yield from running(Publisher(tmp_path, free_port(), hub))


def running(publisher: Publisher) -> Iterator[Publisher]:
    try:
        with PublishingClient(publisher.address) as client:
            client.wait_ready(60)
        yield publisher
    finally:
        publisher.process.send_signal(signal.SIGKILL)
        publisher.process.wait()


@pytest.fixture
def client(publisher: Publisher) -> Iterator[PublishingClient]:
    with PublishingClient(publisher.address, deadline=60) as connected:
        yield connected


def test_history_rollback_and_clean_up_over_the_wire(publisher: Publisher, client: PublishingClient) -> None:
    assert [revision.revision for revision in client.revisions()] == [THIRD, SECOND, FIRST]
    with pytest.raises(ServiceError, match="names no revision that is kept; there are 33333333, 22222222") as refused:
        client.roll_back(MODEL, "9" * 40, "no reason")
    assert refused.value.code is grpc.StatusCode.FAILED_PRECONDITION
    deployment = client.roll_back(MODEL, FIRST[:8], "drops quoted phrases")
    assert contents(publisher.registry) == (deployment.revision, FIRST, FIRST)
    assert client.deployed() == deployment
    newest = client.revisions()[0]
    assert (newest.restores, newest.reason, newest.parent) == (FIRST, "drops quoted phrases", THIRD)
    planned = client.collect_garbage(keep=1, dry_run=True)
    done = client.collect_garbage(keep=1)
    assert list(done.removed) == list(planned.removed) and done.removed
    assert contents(publisher.registry) == (deployment.revision, FIRST, FIRST)
    kept = 2 if publisher.hub is None else 4
    assert len(client.revisions()) == kept
    with pytest.raises(ServiceError, match="0 revisions; the deployed one always stays"):
        client.collect_garbage(keep=0)


def test_history_rollback_and_clean_up_by_command(publisher: Publisher) -> None:
    listed = publisher.foundry("history", "--json")
    assert listed.returncode == 0, listed.stderr
    assert [row["revision"] for row in json.loads(listed.stdout)] == [THIRD, SECOND, FIRST]
    refused = publisher.foundry("rollback", f"{MODEL}-gguf", FIRST, "--reason", "worse")
    assert refused.returncode == 1 and f"not the model's repository of this registry, {MODEL}" in refused.stderr
    rolled = publisher.foundry("rollback", MODEL, SECOND, "--reason", "drops quoted phrases", "--json")
    assert rolled.returncode == 0, rolled.stderr
    revision = json.loads(rolled.stdout)["revision"]
    assert contents(publisher.registry) == (revision, SECOND, SECOND)
    table = publisher.foundry("history").stdout
    assert revision[:8] in table and "drops quoted" in table
    cleaned = publisher.foundry("gc", "--keep", "1", "--dry-run", "--json")
    assert cleaned.returncode == 0, cleaned.stderr
    assert json.loads(cleaned.stdout)["dry_run"] is True and contents(publisher.registry) == (revision, SECOND, SECOND)


@pytest.mark.parametrize("publisher", ["local"], indirect=True)
def test_a_command_starts_its_own_publisher_where_none_runs(publisher: Publisher) -> None:
    publisher.process.terminate()
    publisher.process.wait(60)
    done = publisher.foundry("history", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
@pytest.mark.parametrize("publisher", ["hub"], indirect=True)
def test_the_token_is_neither_in_the_log_nor_among_arguments(publisher: Publisher, client: PublishingClient) -> None:
    assert publisher.hub is not None
    client.roll_back(MODEL, FIRST, "worse")
    wait_until(lambda: "rolled back" in publisher.log.read_text(), seconds=30)
    arguments = Path(f"/proc/{publisher.process.pid}/cmdline").read_text()
    assert publisher.hub.token not in publisher.log.read_text() + arguments
