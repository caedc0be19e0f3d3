"""npm, for tests that need one of its packages."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_UNREACHABLE = re.compile(r"npm error code (E[45]\d\d|EAI_AGAIN|ECONN\w+|ENETUNREACH|ENOTCACHED|ENOTFOUND|ETIMEDOUT)")


def npm(folder: Path, *arguments: str, node: Path | None = None) -> str:
    """Runs npm, under another Node where one is given. Returns what it printed."""
    env = dict(os.environ, QMD_FOUNDRY_PYTHON=sys.executable)
    if node:
        env["PATH"] = f"{node.parent}{os.pathsep}{env['PATH']}"
    done = subprocess.run(["npm", *arguments], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
    return done.stdout


def npm_install(folder: Path, *arguments: str) -> None:
    """As `npm`; skips where there is no npm, or where it cannot reach the packages."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node and npm are not installed")
    try:
        npm(folder, *arguments)
    except AssertionError as error:
        if unreachable := _UNREACHABLE.search(str(error)):
            pytest.skip(f"npm cannot reach its packages: {unreachable[1]}")
        raise
