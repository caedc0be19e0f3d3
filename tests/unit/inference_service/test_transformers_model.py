import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from inference_service.language_model import ModelError, Step
from inference_service.transformers_model import TransformersModel

CONTEXT = 128


@pytest.fixture
def model(tiny_llama: Path) -> TransformersModel:
    return TransformersModel(tiny_llama, torch.float32, cache_bytes=2**24, sequences=4, context=CONTEXT)


def steps(sequence: int, tokens: list[int], start: int = 0, wants_logits: bool = True) -> list[Step]:
    last = len(tokens) - 1
    return [Step(sequence, start + place, token, wants_logits and place == last) for place, token in enumerate(tokens)]


def expected(folder: Path, *texts: list[int]) -> torch.Tensor:
    """transformers' logits after each text, read alone and without a cache, [texts, vocabulary]."""
    alone = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return torch.stack([alone(torch.tensor([text])).logits[0, -1] for text in texts])


def test_sequences_of_unlike_length_are_read_together_as_each_alone(model: TransformersModel, tiny_llama: Path) -> None:
    first, second, third = [5, 6, 7, 8, 9], [10, 11], [12, 13, 14]
    assert len(model.read(steps(1, first[:3], wants_logits=False))) == 0
    logits = model.read([*steps(3, second), *steps(1, first[3:], start=3), *steps(2, third)])
    torch.testing.assert_close(logits, expected(tiny_llama, second, first, third), atol=1e-5, rtol=1e-4)
    logits = model.read([*steps(1, [20], start=5), *steps(2, [21, 22], start=3), *steps(3, [23], start=2)])
    texts = [*first, 20], [*third, 21, 22], [*second, 23]
    torch.testing.assert_close(logits, expected(tiny_llama, *texts), atol=1e-5, rtol=1e-4)


def test_a_copied_beginning_is_gone_on_from(model: TransformersModel, tiny_llama: Path) -> None:
    lead = [5, 6, 7, 8]
    model.read(steps(0, lead, wants_logits=False))
    model.read(steps(2, [30, 31, 32, 33, 34, 35]))  # an older answer, whose slots are taken over
    model.forget(2)
    for sequence in (1, 2):
        model.copy(0, sequence)
    logits = model.read([*steps(1, [9], start=4), *steps(2, [10, 11], start=4)])
    torch.testing.assert_close(logits, expected(tiny_llama, [*lead, 9], [*lead, 10, 11]), atol=1e-5, rtol=1e-4)


def test_it_takes_as_many_sequences_as_there_is_memory_for(tiny_llama: Path) -> None:
    per_sequence = 2 * 2 * 32 * 4 * CONTEXT  # keys and values, layers, one head's size, float32, tokens
    few = TransformersModel(tiny_llama, torch.float32, cache_bytes=3 * per_sequence, sequences=9, context=CONTEXT)
    assert few.sequences == 3


def test_a_folder_that_lacks_a_tensor_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_llama, tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"its files hold no model\.norm\.weight"):
        TransformersModel(folder, torch.float32, cache_bytes=2**24, sequences=4, context=CONTEXT)
