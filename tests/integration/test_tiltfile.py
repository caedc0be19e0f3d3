import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from support.tiltfile import Resource, evaluate_tiltfile

READY_SECONDS = 240


@contextmanager
def started(resource: Resource, root: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a resource's command as Tilt does: through sh, in the Tiltfile's folder, in a process group of its own."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["sh", "-c", f"exec {resource.serve_cmd}"], cwd=root, stdout=output, stderr=output, start_new_session=True
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)


def probe_succeeds(resource: Resource, root: Path) -> bool:
    probe = resource.readiness_probe
    assert probe is not None
    if "exec" in probe:
        return subprocess.run(probe["exec"], cwd=root, capture_output=True, check=False).returncode == 0
    url = f"http://127.0.0.1:{probe['http_get']['port']}{probe['http_get']['path']}"
    try:
        with urllib.request.urlopen(url, timeout=probe["timeout_secs"]) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.mark.slow
def test_every_declared_command_starts_and_its_probe_succeeds(root: Path, tmp_path: Path) -> None:
    resources = evaluate_tiltfile(root / "Tiltfile", {})
    serving = [resource for resource in resources.values() if resource.serve_cmd]
    with ExitStack() as stack:
        for resource in serving:
            log = tmp_path / f"{resource.name}.log"
            process = stack.enter_context(started(resource, root, log))
            deadline = time.monotonic() + READY_SECONDS
            while not probe_succeeds(resource, root):
                assert process.poll() is None, f"{resource.name} ended: {log.read_text()[-2000:]}"
                assert time.monotonic() < deadline, f"{resource.name} is not ready: {log.read_text()[-2000:]}"
                time.sleep(1)
