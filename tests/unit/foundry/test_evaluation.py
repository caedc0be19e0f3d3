"""What a model reference of `foundry eval` and `foundry compare` stands for."""

import json
from pathlib import Path

import pytest

from foundry.evaluation import measurable_model
from qmd_schema.errors import ArtifactError


def test_a_model_folder_and_a_gguf_file_are_measured_as_they_are(tiny_llama: Path, tmp_path: Path) -> None:
    assert measurable_model(str(tiny_llama)) == tiny_llama
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    assert measurable_model(str(file)) == file


def test_an_adapter_is_measured_merged_into_its_base(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lora = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_llama), lora).save_pretrained(tmp_path / "adapter")
    merged = measurable_model(str(tmp_path / "adapter"))
    assert (merged / "model.safetensors").is_file()
    assert json.loads((merged / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]


@pytest.mark.parametrize("reference", ["nowhere", "nowhere.gguf", "pypi:nothing"])
def test_a_reference_that_names_no_model_is_refused(reference: str) -> None:
    with pytest.raises(ArtifactError, match=reference):
        measurable_model(reference)
