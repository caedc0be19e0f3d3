import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def told(root: Path, tiny_llama: Path) -> dict[str, float]:
    """What two workers over gloo say of a model that they share."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "support.sharded_model", str(tiny_llama)]
    path = os.pathsep.join([str(root / "tests"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_each_worker_holds_its_share_of_the_layers_and_the_whole_adapter(told):
    assert told["frozen_sharded"] and told["adapter_whole"] and told["tied"]
    assert told["held"] == told["frozen"] / 2


def test_a_sharded_model_computes_and_merges_as_the_whole_one(told):
    assert told["names"]
    assert told["difference"] == 0
