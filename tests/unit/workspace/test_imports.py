import ast
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "ray", "vllm", "transformers", "datasets", "trl", "peft", "sentence_transformers", "llama_cpp")
LIGHT = (
    "qmd_schema.examples",
    "qmd_schema.verdicts",
    "qmd_schema.contract",
    "qmd_reward.rubric",
    "qmd_rpc.server",
    "qmd_rpc.reward",
    "qmd_rpc.inference",
    "qmd_rpc.evaluation",
    "qmd_rpc.publishing",
    "reward_service.config",
    "inference_service.config",
    "trainer.config",
    "evaluator.config",
    "publisher.config",
    "foundry.config",
)
SERVICES = {"reward_service", "inference_service", "trainer", "evaluator", "publisher"}
LIBS = {"qmd_schema", "qmd_reward", "qmd_search", "qmd_rpc"}
ALLOWED = {
    "qmd_schema": set(),
    "qmd_reward": {"qmd_schema"},
    "qmd_search": {"qmd_schema"},
    "qmd_rpc": {"qmd_schema"},
    **dict.fromkeys(SERVICES, LIBS),
    "foundry": LIBS | SERVICES,
}


@pytest.mark.parametrize("module", LIGHT)
def test_contracts_and_configs_import_without_heavy_libraries(module: str) -> None:
    code = f"import sys, {module}; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_run_one_way(root: Path, package: str) -> None:
    (folder,) = [p.parent for p in root.glob(f"*/{package}/__init__.py")] + [
        p.parent for p in root.glob(f"*/*/{package}/__init__.py")
    ]
    imported = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    assert imported & set(ALLOWED) <= ALLOWED[package] | {package}
