"""`ray job submit` of an SFT stage to a local head, from a working directory that Ray copies."""

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from qmd_schema.artifacts import read_manifest

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent


@pytest.fixture
def head(free_port: Callable[[], int], tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a shell that started a Ray head and submits jobs to it."""
    dashboard, port = free_port(), free_port()
    token = tmp_path / "token"
    token.write_text(secrets.token_hex(32))
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "QMD_FOUNDRY_HOME": str(tmp_path / "home"),
    }
    command = ["ray", "start", "--head", "--block", f"--port={port}", f"--dashboard-port={dashboard}", "--num-cpus=2"]
    command += ["--node-ip-address=127.0.0.1", "--object-store-memory=80000000", "--include-dashboard=true"]
    with (tmp_path / "head.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        submitter = environment | {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}
        while subprocess.run(["ray", "job", "list"], env=submitter, capture_output=True, timeout=120).returncode:
            assert process.poll() is None, (tmp_path / "head.log").read_text()
        yield submitter
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture
def project(tmp_path: Path, root: Path, tiny_llama: Path) -> Path:
    """A working directory as a user has it: configs, data and evals."""
    folder = tmp_path / "project"
    (folder / "configs/cpu").mkdir(parents=True)
    (folder / "data").mkdir()
    (folder / "evals").mkdir()
    shutil.copy(root / ".gitignore", folder)
    (folder / "evals/queries.jsonl").write_text('{"id": "1", "query": "zeppelin mooring", "slice": "short"}\n')
    output = [["hyde", "Tea leaves stay dry in a tin."], ["lex", "tea tin"], ["vec", "how to keep tea leaves dry"]]
    rows = [{"query": f"tea {number} leaves", "output": output} for number in range(20)]
    (folder / "data/a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare = {"model": str(tiny_llama), "near_duplicate": 1.0}
    (folder / "configs/cpu/prepare.yaml").write_text(yaml.safe_dump(prepare))
    sft = yaml.safe_load((root / "configs/cpu/sft.yaml").read_text()) | {"model": str(tiny_llama), "max_steps": 4}
    (folder / "configs/cpu/sft.yaml").write_text(yaml.safe_dump(sft))
    return folder


def test_a_submitted_job_trains_and_leaves_its_adapter_in_the_users_folder(head, project, tmp_path):
    command = ["ray", "job", "submit", "--working-dir", ".", "--", "python", "-m", "trainer", "sft"]
    command += ["--config", "configs/cpu/sft.yaml"]
    done = subprocess.run(command, cwd=project, env=head, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    (output,) = (path for path in (tmp_path / "home").iterdir() if not path.name.endswith("-data"))
    assert output.name.startswith("sft-")
    assert read_manifest(output).figures["steps"] == 4
    assert (output / "adapter/adapter_model.safetensors").is_file()
