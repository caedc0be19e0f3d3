import subprocess
import sys
from pathlib import Path

import pytest

from evaluator.config import EvaluatorConfig
from evaluator.verdict import code_version, question
from qmd_schema.config import load_config
from qmd_schema.errors import ConfigError
from qmd_schema.verdicts import ModelIdentity


@pytest.mark.parametrize("path", ["configs/evaluator.yaml", "configs/cpu/evaluator.yaml"])
def test_the_configs_fit(root, path):
    assert load_config(root / path, EvaluatorConfig).server.port == 8012


def test_every_field_is_described():
    def undescribed(model) -> list[str]:
        found = []
        for name, field in model.model_fields.items():
            if hasattr(field.annotation, "model_fields"):
                found += undescribed(field.annotation)
            elif not field.description:
                found.append(name)
        return found

    assert undescribed(EvaluatorConfig) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"gate.minimum_efect": 0.1}, "gate.minimum_efect: unknown key. Did you mean minimum_effect?"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 1]}, "a seed occurs twice"),
        ({"ungrammared_seeds": 3}, "ungrammared_seeds: 3, but there are 2 seeds"),
        ({"gate.confidence": 0.3}, "gate.confidence"),
        ({"gate.rates.fallback": "some"}, "gate.rates.fallback"),
    ],
)
def test_a_mistake_is_named_by_its_key(root, overrides, message):
    with pytest.raises(ConfigError, match=r"evaluator\.yaml") as caught:
        load_config(root / "configs/cpu/evaluator.yaml", EvaluatorConfig, overrides)
    assert message in str(caught.value)


def test_the_hash_tells_what_is_measured_and_not_where(root):
    def hashed(**overrides: object) -> str:
        return load_config(root / "configs/cpu/evaluator.yaml", EvaluatorConfig, overrides).sha256()

    assert hashed() == hashed(**{"server.port": 9, "store": "/elsewhere", "inference_address": "10.0.0.1:1"})
    assert len({hashed(), hashed(seeds=[1]), hashed(**{"gate.minimum_effect": 0.02})}) == 3


def test_a_question_changes_with_models_revision_data_and_config(tiny_config):
    model = ModelIdentity(reference="/m", sha256="a" * 64)
    other = ModelIdentity(reference="/m", sha256="b" * 64)
    deployed = ModelIdentity(reference="/m", sha256="a" * 64, revision="r1")
    elsewhere = ModelIdentity(reference="/copy", sha256="a" * 64)
    more_seeds = tiny_config.model_copy(update={"seeds": [1, 2, 3]})
    questions = [
        question([model, model], "data", tiny_config),
        question([model, other], "data", tiny_config),
        question([other, model], "data", tiny_config),
        question([model, deployed], "data", tiny_config),
        question([model, model], "other data", tiny_config),
        question([model, model], "data", more_seeds),
    ]
    assert len(set(questions)) == len(questions)
    assert question([model, elsewhere], "data", tiny_config) == questions[0]


def test_the_code_version_is_the_same_on_every_call():
    assert code_version() == code_version()
    assert code_version().startswith("0.1.0+")


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "evaluator", *arguments], cwd=root, capture_output=True, text=True)


def test_a_dry_run_prints_the_resolved_config_and_makes_nothing(root, tmp_path):
    config = tmp_path / "evaluator.yaml"
    config.write_text((root / "configs/cpu/evaluator.yaml").read_text())
    done = run(tmp_path, "--config", str(config), "--port", "0", "--dry-run")
    assert done.returncode == 0
    assert "valid_outputs: 0.9" in done.stdout and "port: 0" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["evaluator.yaml"]


def test_a_missing_config_ends_with_2_and_one_message(root):
    done = run(root, "--config", "configs/cpu/evaluater.yaml")
    assert done.returncode == 2
    assert "no such config file" in done.stderr and "Traceback" not in done.stderr
