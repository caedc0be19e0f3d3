import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from qmd_schema.config import load_config
from qmd_schema.errors import ConfigError
from reward_service.config import RewardServiceConfig
from reward_service.limits import MAX_BATCH, MAX_EXPANSION_BYTES, MAX_QUERY_CHARACTERS

CONFIGS = ("configs/reward.yaml", "configs/cpu/reward.yaml")


@pytest.mark.parametrize("path", CONFIGS)
def test_a_shipped_config_listens_on_loopback_port_8010_and_takes_the_largest_batch(root: Path, path: str) -> None:
    server = load_config(root / path, RewardServiceConfig).server
    assert (server.host, server.port) == ("127.0.0.1", 8010)
    assert server.max_message_bytes > MAX_BATCH * (4 * MAX_QUERY_CHARACTERS + MAX_EXPANSION_BYTES)


def test_an_unknown_key_is_named_with_what_was_meant(tmp_path: Path) -> None:
    path = tmp_path / "reward.yaml"
    path.write_text("server: {prot: 8010}\n")
    with pytest.raises(ConfigError, match=r"server\.prot: unknown key\. Did you mean port\?"):
        load_config(path, RewardServiceConfig)


def test_a_dry_run_prints_the_resolved_config(root: Path) -> None:
    command = [sys.executable, "-m", "reward_service", "--config", root / CONFIGS[1], "--port", "9000", "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert yaml.safe_load(done.stdout)["server"]["port"] == 9000


def test_a_bad_port_stops_the_program_with_one_message(root: Path) -> None:
    command = [sys.executable, "-m", "reward_service", "--config", root / CONFIGS[1], "--port", "80000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "server.port: 80000" in done.stderr and len(done.stderr.splitlines()) == 1
