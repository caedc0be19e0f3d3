"""Merging an adapter: what it keeps, and what it refuses."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from qmd_schema.artifacts import read_manifest
from qmd_schema.errors import ArtifactError
from trainer.config import MergeConfig
from trainer.merge import merge, merged_adapter


@pytest.fixture
def adapter(tiny_llama: Path, tmp_path: Path) -> Path:
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
    get_peft_model(model, lora).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def change(adapter: Path, **settings: object) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def test_the_merged_model_stays_tied_and_loads_without_peft(tiny_llama, adapter, tmp_path):
    merge(MergeConfig(base=str(tiny_llama), adapter=adapter), tmp_path / "merged")
    model, report = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert model.dtype == torch.bfloat16
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    base = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    changed = model.model.layers[0].self_attn.q_proj.weight.float() - base.model.layers[0].self_attn.q_proj.weight
    assert changed.abs().max() > 1e-3
    assert torch.equal(model.model.embed_tokens.weight, base.model.embed_tokens.weight.bfloat16())


def test_tokenizer_and_generation_config_come_along(tiny_llama, adapter, tmp_path):
    merge(MergeConfig(base=str(tiny_llama), adapter=adapter), tmp_path / "merged")
    ours, bases = AutoTokenizer.from_pretrained(tmp_path / "merged"), AutoTokenizer.from_pretrained(tiny_llama)
    assert ours.chat_template == bases.chat_template and ours.get_vocab() == bases.get_vocab()
    assert (tmp_path / "merged" / "generation_config.json").is_file()


def test_the_manifest_holds_the_measured_difference(tiny_llama, adapter, tmp_path):
    config = MergeConfig(base=str(tiny_llama), adapter=adapter)
    merge(config, tmp_path / "merged")
    manifest = read_manifest(tmp_path / "merged")
    assert 0 < manifest.figures["total_variation"] < config.tolerance
    assert set(manifest.inputs) == {"base", "adapter"}


def test_a_difference_above_the_tolerance_leaves_nothing_behind(tiny_llama, adapter, tmp_path):
    with pytest.raises(ArtifactError, match="probabilities differ by"):
        merge(MergeConfig(base=str(tiny_llama), adapter=adapter, tolerance=1e-12), tmp_path / "merged")
    assert {path.name for path in tmp_path.iterdir()} == {"adapter"}


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": "model.embed_tokens"},
        {"modules_to_save": ["lm_head"]},
        {"modules_to_save": ["embed_tokens"]},
    ],
)
def test_an_adapter_that_touches_the_embeddings_is_refused(tiny_llama, adapter, tmp_path, settings):
    change(adapter, **settings)
    with pytest.raises(ArtifactError, match="tied to the embeddings"):
        merge(MergeConfig(base=str(tiny_llama), adapter=adapter), tmp_path / "merged")


def test_a_folder_without_adapter_is_refused(tiny_llama, tmp_path):
    with pytest.raises(ArtifactError, match="no adapter there"):
        merge(MergeConfig(base=str(tiny_llama), adapter=tmp_path), tmp_path / "merged")


def test_an_adapter_is_merged_into_the_base_it_names_and_only_once(adapter, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    merged = merged_adapter(adapter)
    written = (merged / "model.safetensors").stat().st_mtime_ns
    assert merged_adapter(adapter) == merged and (merged / "model.safetensors").stat().st_mtime_ns == written
    change(adapter, lora_alpha=99)
    assert merged_adapter(adapter) != merged


@pytest.mark.parametrize(("named", "problem"), [(None, "names no base model"), ("nobody/nothing", "not to be had")])
def test_an_adapter_whose_base_is_not_to_be_had_is_refused(adapter, named, problem):
    change(adapter, base_model_name_or_path=named)
    with pytest.raises(ArtifactError, match=problem):
        merged_adapter(adapter)
