import subprocess
import sys
from pathlib import Path

import pytest

from foundry.config import load_profile
from support.tiltfile import evaluate_tiltfile

SERVICES = {"ray", "inference", "reward", "evaluator", "publisher"}


def test_the_dev_cluster_starts_ray_and_all_four_services(root: Path) -> None:
    resources = evaluate_tiltfile(root / "Tiltfile", {})
    assert set(resources) == {"setup", *SERVICES}
    for name in SERVICES:
        assert resources[name].serve_cmd and resources[name].readiness_probe


def test_everything_waits_for_setup_and_the_evaluator_for_inference(root: Path) -> None:
    resources = evaluate_tiltfile(root / "Tiltfile", {})
    declared: set[str] = set()
    for resource in resources.values():
        assert set(resource.resource_deps) <= declared, f"{resource.name} waits for what is not declared before it"
        declared.add(resource.name)
    assert all("setup" in resources[name].resource_deps for name in SERVICES)
    assert "inference" in resources["evaluator"].resource_deps


@pytest.mark.parametrize(("profile", "folder"), [("cpu", "configs/cpu"), ("gpu", "configs")])
def test_the_profile_chooses_the_configs_and_the_ports_agree_with_them(
    root: Path, monkeypatch: pytest.MonkeyPatch, profile: str, folder: str
) -> None:
    monkeypatch.chdir(root)
    resources = evaluate_tiltfile(root / "Tiltfile", {"profile": profile})
    for name, port in load_profile(profile).ports.items():
        assert f"--config {folder}/{name}.yaml" in resources[name].serve_cmd
        assert str(port) in str(resources[name].readiness_probe)


def test_every_module_that_a_command_starts_answers_to_help(root: Path) -> None:
    resources = evaluate_tiltfile(root / "Tiltfile", {})
    for name in SERVICES - {"ray"}:
        module = resources[name].serve_cmd.split(" -m ")[1].split()[0]
        done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and "--config" in done.stdout
