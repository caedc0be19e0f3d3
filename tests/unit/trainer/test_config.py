"""The configs of the training stages, and what a mistake in one of them says."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from qmd_schema.config import StrictModel, load_config
from qmd_schema.errors import ConfigError
from trainer.config import GrpoConfig, LoraSettings, PrepareConfig, SftConfig

MODELS: dict[str, type[StrictModel]] = {"prepare": PrepareConfig, "sft": SftConfig, "grpo": GrpoConfig}


@pytest.mark.parametrize("profile", ["configs", "configs/cpu"])
@pytest.mark.parametrize("stage", MODELS)
def test_the_configs_of_both_profiles_fit(root, profile, stage):
    load_config(root / profile / f"{stage}.yaml", MODELS[stage])


def test_the_published_settings_for_qwen3_are_kept(root):
    sft = load_config(root / "configs/sft.yaml", SftConfig)
    assert (sft.lora.rank, sft.lora.alpha, len(sft.lora.targets), sft.epochs, sft.batch) == (16, 32, 7, 5, 16)
    assert (sft.learning_rate, sft.scheduler, sft.warmup_share, sft.max_length) == (2e-4, "cosine", 0.03, 512)
    grpo = load_config(root / "configs/grpo.yaml", GrpoConfig)
    assert (grpo.lora.rank, grpo.lora.alpha, grpo.lora.targets) == (4, 8, ["q_proj", "v_proj"])
    assert (grpo.generations, grpo.learning_rate, grpo.kl_coefficient) == (4, 5e-7, 0.04)
    assert (grpo.steps, grpo.max_completion) == (200, 200)


@pytest.mark.parametrize("name", ["lm_head", "embed_tokens"])
def test_an_adapter_on_tied_embeddings_is_refused(name):
    with pytest.raises(ValidationError, match="tied to the embeddings"):
        LoraSettings(rank=4, alpha=8, targets=["q_proj", name])


@pytest.mark.parametrize(
    ("stage", "change", "message"),
    [
        ("sft", {"lerning_rate": 1}, "lerning_rate: unknown key. Did you mean learning_rate?"),
        ("sft", {"batch": 10}, "multiple of rows_per_forward"),
        ("sft", {"ray": {"workers": "two"}}, "ray.workers"),
        ("sft", {"ray": {"sharding": "fsdp"}}, "needs two or more workers"),
        ("sft", {"trackers": ["tensorbord"]}, "trackers.0: 'tensorbord'"),
        ("grpo", {"queries": 3, "ray": {"workers": 2}}, "multiple of ray.workers"),
        ("grpo", {"rows_per_forward": 7}, "queries x generations"),
    ],
)
def test_a_mistake_names_the_key_and_the_remedy(root, tmp_path: Path, stage, change, message):
    values = yaml.safe_load((root / f"configs/cpu/{stage}.yaml").read_text()) | change
    path = tmp_path / f"{stage}.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        load_config(path, MODELS[stage])
