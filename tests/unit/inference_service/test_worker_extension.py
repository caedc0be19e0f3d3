import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from inference_service.worker_extension import first_difference, tensor_shapes


def test_a_model_fits_itself(tiny_llama: Path) -> None:
    shapes = tensor_shapes(tiny_llama)
    assert shapes["model.norm.weight"] == (64,)
    assert first_difference(shapes, shapes) is None


def test_a_tied_head_that_one_folder_spells_out_makes_no_difference(tiny_llama: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_llama, tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, folder / "model.safetensors")
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"]
    assert first_difference(tensor_shapes(tiny_llama), tensor_shapes(folder)) is None


def test_another_shape_or_name_is_told(tiny_llama: Path, tmp_path: Path) -> None:
    served = tensor_shapes(tiny_llama)
    folder = Path(shutil.copytree(tiny_llama, tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"model.norm.weight": torch.ones(32)}, folder / "model.safetensors")
    assert first_difference(served, tensor_shapes(folder)) == "model.norm.weight is 32, the served model's is 64"
    save_file(tensors | {"extra": torch.ones(2, 3)}, folder / "model.safetensors")
    assert first_difference(served, tensor_shapes(folder)) == "extra is 2×3, the served model's is absent"
