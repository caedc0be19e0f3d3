"""The CPU's log-probability head against TRL's own."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from trainer.likelihood import score_answers, share_prompts
from trainer.sft import halve_frozen_weights

PROMPT = [1, 1, 50, 60, 70, 80]
OUTPUTS = ("log_probs", "entropy", "is_top1")


def batch(prompt_ends: list[list[int]], answers: list[list[int]], left: bool) -> dict[str, Tensor]:
    """Rows of PROMPT + end + answer, right-padded, or with prompts padded on the left as GRPO pads them."""
    width = max(map(len, prompt_ends))
    longest = max(map(len, answers))
    ids, mask, labels = [], [], []
    for end, answer in zip(prompt_ends, answers, strict=True):
        lead = width - len(end) if left else 0
        tail = longest - len(answer) + (0 if left else width - len(end))
        prompt = PROMPT + end
        ids.append([0] * lead + prompt + answer + [0] * tail)
        mask.append([0] * lead + [1] * (len(prompt) + len(answer)) + [0] * tail)
        labels.append([-100] * (lead + len(prompt)) + answer + [-100] * tail)
    return {
        "input_ids": torch.tensor(ids),
        "attention_mask": torch.tensor(mask),
        "labels": torch.tensor(labels),
    }


def lora_model(folder: Path):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.manual_seed(1)
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "up_proj"], init_lora_weights=False)
    return get_peft_model(model, lora)


def gradient(model) -> Tensor:
    parts = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    return torch.cat(parts)


@pytest.mark.parametrize("left", [False, True], ids=["right-padded", "prompts padded left"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_and_gradients_equal_those_of_trls_head(tiny_llama, left, temperature):
    inputs = batch([[7], [8, 9], [7, 5]], [[11, 12, 2], [13, 2], [14, 15, 16, 2]], left)
    model = lora_model(tiny_llama)
    add_fused_lm_head(model.get_base_model(), temperature=temperature, outputs=OUTPUTS)
    expected = model(**inputs, fused_lm_head=True)
    expected.log_probs.sum().backward()
    expected_gradient = gradient(model)
    share_prompts(model.get_base_model(), temperature)
    actual = model(**inputs, fused_lm_head=True)
    actual.log_probs.sum().backward()
    assert torch.equal(actual.label_mask, expected.label_mask)
    torch.testing.assert_close(actual.log_probs, expected.log_probs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(actual.entropy, expected.entropy, atol=1e-4, rtol=1e-5)
    assert torch.equal(actual.is_top1 & actual.label_mask, expected.is_top1 & expected.label_mask)
    torch.testing.assert_close(gradient(model), expected_gradient, atol=1e-5, rtol=1e-4)


def test_rows_that_share_nothing_are_scored_as_well(tiny_llama):
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    ids = torch.tensor([[5, 6, 7, 8], [9, 6, 7, 8]])
    labels = torch.tensor([[-100, -100, 7, 8], [-100, 6, 7, 8]])
    scores = score_answers(model, ids, torch.ones_like(ids), labels, 1.0)
    plain = model(input_ids=ids).logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    torch.testing.assert_close(scores.log_probs, plain * scores.label_mask, atol=1e-5, rtol=1e-5)


def test_many_answer_tokens_give_the_log_probabilities_and_gradients_of_the_plain_head(tiny_llama):
    """More than logits are held of at once, the head's own gradient among them."""
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    ids = torch.randint(3, model.config.vocab_size, (3, 101), generator=torch.Generator().manual_seed(0))
    scores = score_answers(model, ids, torch.ones_like(ids), ids, 0.7)
    scores.log_probs[:, ::2].sum().backward()
    actual = gradient(model)
    plain = (model(input_ids=ids).logits[:, :-1] / 0.7).log_softmax(-1)
    expected = plain.gather(-1, ids[:, 1:, None]).squeeze(-1)
    expected[:, ::2].sum().backward()
    torch.testing.assert_close(scores.log_probs, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scores.entropy, -(plain.exp() * plain).sum(-1), atol=1e-4, rtol=1e-5)
    assert torch.equal(scores.is_top1, plain.argmax(-1) == ids[:, 1:])
    torch.testing.assert_close(actual, gradient(model), atol=1e-4, rtol=1e-4)


def test_generation_does_not_meet_the_head(tiny_llama):
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    add_fused_lm_head(model)
    share_prompts(model)
    assert model(input_ids=torch.tensor([[1, 2, 3]])).logits.shape == (1, 3, model.config.vocab_size)


def test_frozen_weights_in_bf16_change_nothing_under_autocast(tiny_llama):
    inputs = batch([[7], [8, 9], [7, 5]], [[11, 12, 2], [13, 2], [14, 15, 16, 2]], left=False)
    results = []
    for halved in (False, True):
        model = lora_model(tiny_llama)
        if halved:
            halve_frozen_weights(model)
        share_prompts(model.get_base_model())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scored = model(**inputs, fused_lm_head=True)
        scored.log_probs.sum().backward()
        results.append((scored.log_probs, gradient(model)))
    assert model.base_model.model.model.layers[0].self_attn.q_proj.base_layer.weight.dtype == torch.bfloat16
    for plain, lean in zip(*results, strict=True):
        assert torch.equal(plain, lean)
