"""Log-probabilities of answers on a CPU, at a third of the cost of TRL's head.

TRL's fused head scores every position where Triton is absent, and each row repeats the same prompt. Here the tokens
that all rows of a batch begin with run once, and only answer tokens meet the vocabulary. Numbers and gradients are
the same; `SFTTrainer` and `GRPOTrainer` call it as they call their own.
"""

import functools
import types
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel
from trl.trainer.utils import FusedCausalLMOutput

_TOKENS_AT_ONCE = 128
"""Of which logits are held: 25 MB with a vocabulary of 49,152."""


def share_prompts(model: PreTrainedModel, temperature: float = 1.0) -> None:
    """Replaces the head that TRL's `add_fused_lm_head` put on `model` (the base below PEFT)."""
    plain_forward = model.forward

    @functools.wraps(type(model).forward)
    def forward(self: PreTrainedModel, *args: Any, fused_lm_head: bool = False, **kwargs: Any) -> Any:
        if not fused_lm_head:
            return plain_forward(*args, **kwargs)
        return score_answers(self, kwargs["input_ids"], kwargs["attention_mask"], kwargs["labels"], temperature)

    model.forward = types.MethodType(forward, model)


def score_answers(
    model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, temperature: float
) -> FusedCausalLMOutput:
    """Scores the tokens whose label is not -100, given all before them.

    input_ids, attention_mask, labels: [batch, tokens], padded on either side or both.
    Returns log_probs, entropy, is_top1 and label_mask, [batch, tokens - 1], 0 where nothing is scored.
    """
    held = attention_mask.bool()
    rows = [ids[mask] for ids, mask in zip(input_ids, held, strict=True)]
    targets = [label[mask] for label, mask in zip(labels, held, strict=True)]
    shared = _shared_length(rows, targets)
    hidden = _hidden_states(model, rows, shared)
    rest = pad_sequence([target[shared:] for target in targets], batch_first=True, padding_value=-100)
    scored = rest[:, 1:] != -100
    wanted = rest[:, 1:][scored]
    head = model.get_output_embeddings().weight
    if torch.is_autocast_enabled("cpu"):
        head = head.to(torch.get_autocast_dtype("cpu"))
    log_probs, entropy, is_top1 = _ScoreTokens.apply(hidden[:, :-1][scored], head, wanted, temperature)

    # Row by row, the scored tokens come in the same order as in the padded batch.
    label_mask = labels[:, 1:] != -100
    empty = log_probs.new_zeros(label_mask.shape)
    return FusedCausalLMOutput(
        loss=-log_probs.mean(),
        log_probs=empty.masked_scatter(label_mask, log_probs),
        entropy=empty.masked_scatter(label_mask, entropy),
        is_top1=torch.zeros_like(label_mask).masked_scatter(label_mask, is_top1),
        label_mask=label_mask,
    )


class _ScoreTokens(torch.autograd.Function):
    """Log-probability, entropy and whether it is the likeliest, of each wanted token.

    Logits are made for a few tokens at a time, and made again for the gradient: a vocabulary's worth of numbers for
    each of a batch's tokens would go through memory at every operation.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, wanted: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """hidden: [tokens, width]; head: [vocabulary, width]; wanted: [tokens]."""
        ctx.save_for_backward(hidden, head, wanted)
        ctx.temperature = temperature
        parts = []
        for rows, tokens in zip(hidden.split(_TOKENS_AT_ONCE), wanted.split(_TOKENS_AT_ONCE), strict=True):
            logits = _logits(rows, head, temperature)
            highest, likeliest = logits.max(-1)
            own = logits.gather(-1, tokens[:, None])[:, 0]
            weights = (logits - highest[:, None]).exp_()
            total = weights.sum(-1)
            normaliser = highest + total.log()
            mean = torch.linalg.vecdot(weights, logits) / total
            parts.append((own - normaliser, normaliser - mean, likeliest == tokens))
        log_probs, entropy, is_top1 = (torch.cat(part) for part in zip(*parts, strict=True))
        ctx.mark_non_differentiable(entropy, is_top1)
        return log_probs, entropy, is_top1

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        hidden, head, wanted = ctx.saved_tensors
        scale = gradients[0] / ctx.temperature
        of_hidden = torch.empty_like(hidden)
        of_head = torch.zeros_like(head) if ctx.needs_input_grad[1] else None
        for start in range(0, len(wanted), _TOKENS_AT_ONCE):
            part = slice(start, start + _TOKENS_AT_ONCE)
            slopes = _logits(hidden[part], head, ctx.temperature).softmax(-1).neg_()
            slopes[torch.arange(len(slopes)), wanted[part]] += 1
            slopes = (slopes * scale[part, None]).to(head.dtype)
            of_hidden[part] = slopes @ head
            if of_head is not None:
                of_head += slopes.T @ hidden[part].to(head.dtype)
        return of_hidden, of_head, None, None


def _logits(hidden: Tensor, head: Tensor, temperature: float) -> Tensor:
    return (hidden.to(head.dtype) @ head.T).float() / temperature


def _shared_length(rows: list[Tensor], targets: list[Tensor]) -> int:
    """How many leading tokens all rows share, short of the last token before the first answer."""
    limit = max(0, min(int((target != -100).long().argmax()) - 1 for target in targets))
    first = rows[0][:limit]
    same = torch.stack([row[:limit] == first for row in rows]).all(0)
    return int(same.long().cumprod(0).sum())


def _hidden_states(model: PreTrainedModel, rows: list[Tensor], shared: int) -> Tensor:
    """Last hidden states of what follows the shared tokens, [batch, longest rest, hidden]."""
    input_ids = pad_sequence([row[shared:] for row in rows], batch_first=True)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    cache = DynamicCache(config=model.config)
    if shared:
        model.base_model(input_ids=rows[0][None, :shared], past_key_values=cache, use_cache=True)
        for layer in cache.layers:
            layer.keys = layer.keys.expand(len(rows), -1, -1, -1)
            layer.values = layer.values.expand(len(rows), -1, -1, -1)
    return model.base_model(
        input_ids=input_ids, attention_mask=mask, past_key_values=cache, use_cache=True
    ).last_hidden_state
