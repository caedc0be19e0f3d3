import filecmp
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet

from support.npm import npm_install

CONTRACT = "proto/foundry.v1.binpb"

Change = Callable[[FileDescriptorSet], object]


def generate(root: Path, *arguments: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    command = [root / "libs/rpc/generate.sh", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_committed_stubs_and_contract_are_what_the_protos_generate(root: Path, tmp_path: Path) -> None:
    stubs, contract = tmp_path / "stubs", tmp_path / "contract"
    shutil.copy(root / CONTRACT, contract)
    assert generate(root, stubs, contract).returncode == 0
    assert contract.read_bytes() == (root / CONTRACT).read_bytes()
    committed = root / "libs/rpc/qmd_rpc/v1"
    names = sorted(file.name for file in committed.iterdir() if file.is_file())
    assert names == sorted(file.name for file in stubs.iterdir())
    assert filecmp.cmpfiles(committed, stubs, names, shallow=False) == (names, [], [])


def reward(contract: FileDescriptorSet, message: str) -> list[FieldDescriptorProto]:
    [file] = [file for file in contract.file if file.name.endswith("reward.proto")]
    [found] = [found for found in file.message_type if found.name == message]
    return list(found.field)


def add_message(contract: FileDescriptorSet) -> None:
    contract.file[0].message_type.add(name="Further")


def add_field(contract: FileDescriptorSet) -> None:
    contract.file[0].message_type[0].field.add(name="further", number=99, type=9, label=1)


def use_a_reserved_number(contract: FileDescriptorSet) -> None:
    [file] = [file for file in contract.file if file.name.endswith("reward.proto")]
    [score] = [found for found in file.message_type if found.name == "Score"]
    del score.reserved_range[:]
    score.field.add(name="again", number=14, type=9, label=1)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (add_message, ""),
        (add_field, ""),
        (lambda c: reward(c, "ScoreRequest")[0].ClearField("name"), "ScoreRequest.query = 1 has another name"),
        (lambda c: setattr(reward(c, "Score")[1], "type", 9), "Score.format = 2 has another name, type"),
        (lambda c: setattr(reward(c, "Score")[0], "number", 77), "Score.score = 1 is gone"),
        (use_a_reserved_number, "Score: the reserved number 14 is used again"),
        (lambda c: c.file[-1].service[0].ClearField("method"), "RewardService.Score is gone"),
        (lambda c: setattr(c.file[-1].service[0].method[0], "server_streaming", True), "streams something else"),
        (lambda c: c.file[-1].enum_type[0].value.pop(), "is gone or has another name"),
        (lambda c: c.file[-1].ClearField("enum_type"), "enum Rating is gone"),
        (lambda c: c.file[-1].ClearField("message_type"), "message Score is gone"),
        (lambda c: c.file[-1].ClearField("service"), "service RewardService is gone"),
    ],
)
def test_a_change_that_breaks_clients_is_told_from_one_that_does_not(
    root: Path, tmp_path: Path, change: Change, problem: str
) -> None:
    changed = FileDescriptorSet.FromString((root / CONTRACT).read_bytes())
    changed.file.sort(key=lambda file: file.name)
    change(changed)
    path = tmp_path / "changed"
    path.write_bytes(changed.SerializeToString())
    command = [sys.executable, root / "proto/breaking.py", root / CONTRACT, path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == (1 if problem else 0), done.stderr
    assert problem in done.stderr


def test_the_stubs_of_a_contract_that_breaks_clients_are_not_written(root: Path, tmp_path: Path) -> None:
    older = FileDescriptorSet.FromString((root / CONTRACT).read_bytes())
    older.file[0].message_type.add(name="Forgotten")
    contract = tmp_path / "contract"
    contract.write_bytes(older.SerializeToString())
    done = generate(root, tmp_path / "stubs", contract)
    assert done.returncode == 1 and done.stderr.strip() == "message Forgotten is gone"
    assert not (tmp_path / "stubs").exists()


@pytest.mark.slow
def test_buf_finds_no_fault_with_the_protos(root: Path, tmp_path: Path) -> None:
    buf = shutil.which("buf")
    if buf is None:
        npm_install(tmp_path, "install", "--prefix", str(tmp_path), "@bufbuild/buf@1.75.0")
        buf = str(tmp_path / "node_modules/.bin/buf")
    subprocess.run([buf, "lint", "proto"], cwd=root, check=True)
    subprocess.run([buf, "breaking", "proto", "--against", CONTRACT], cwd=root, check=True)
