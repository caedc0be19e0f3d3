"""QMD's sampling inside vLLM: a logits processor that draws the token itself and leaves vLLM no other.

vLLM's own sampling is not QMD's: it applies the temperature before top-p, penalises the whole answer, masks
by the grammar before the log-probabilities are taken, and sorts the vocabulary, which takes longest of all.
"""

import json
import random
from typing import TYPE_CHECKING

import torch
import xgrammar
from torch import Tensor
from vllm.sampling_params import SamplingParams
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from inference_service.drawing import Drawer, Row
from qmd_rpc.inference import DECODE_ARGUMENT, GRAMMAR_ARGUMENT
from qmd_schema.contract import Decode

if TYPE_CHECKING:
    from vllm.config import VllmConfig


class QmdSampling(LogitsProcessor):
    """Draws for the requests whose `vllm_xargs` hold `qmd_decode`: a Decode as JSON, greedy for vLLM.

    The chosen token's logit becomes +inf. With `qmd_grammar`, a token that QMD's grammar forbids is drawn again
    under the grammar, as QMD's client does, and vLLM's log-probabilities stay those of the model.
    """

    def __init__(self, vllm_config: "VllmConfig", device: torch.device, is_pin_memory: bool) -> None:
        del device, is_pin_memory
        model = vllm_config.model_config
        tokenizer = cached_tokenizer_from_config(model)
        end = model.try_get_generation_config().get("eos_token_id", tokenizer.eos_token_id)
        tokens = xgrammar.TokenizerInfo.from_huggingface(
            tokenizer, vocab_size=model.get_vocab_size(), stop_token_ids=end
        )
        self._drawer = Drawer(tokens, newline=tokenizer.encode("\n", add_special_tokens=False)[0])
        self._rows: dict[int, Row] = {}
        self._groups: dict[Decode, list[int]] = {}

    @classmethod
    def validate_params(cls, params: SamplingParams) -> None:
        """Raises ValueError, which the server answers with 400, for a request that cannot be drawn."""
        decode = _decode(params)
        if decode is None:
            return
        if not (decode.temperature >= 0 and decode.top_k >= 0 and 0 < decode.top_p <= 1 and decode.penalty_window >= 0):
            raise ValueError(f"{DECODE_ARGUMENT}: {decode} is out of range.")
        if params.temperature > 0:
            raise ValueError(f"{DECODE_ARGUMENT} wants temperature 0: the token is drawn before vLLM samples.")

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        if process_dict_updates(self._rows, batch_update, self._new_row):
            self._groups = {}
            for index in sorted(self._rows):
                self._groups.setdefault(self._rows[index].decode, []).append(index)

    def _new_row(self, params: SamplingParams, prompt: list[int] | None, answer: list[int]) -> Row | None:
        del prompt
        decode = _decode(params)
        if decode is None:
            return None
        seed = random.getrandbits(63) if params.seed is None else params.seed
        return self._drawer.row(decode, seed, answer, bool((params.extra_args or {}).get(GRAMMAR_ARGUMENT)))

    def apply(self, logits: Tensor) -> Tensor:
        """logits: [requests, vocabulary], float32."""
        for indices in self._groups.values():
            own = logits if len(indices) == len(logits) else logits[indices]
            tokens = self._drawer.draw(own, [self._rows[index] for index in indices])
            if own is not logits:
                logits[indices] = own
            logits[indices, tokens] = float("inf")
        return logits


def _decode(params: SamplingParams) -> Decode | None:
    text = (params.extra_args or {}).get(DECODE_ARGUMENT)
    if text is None:
        return None
    try:
        return Decode(**json.loads(text))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{DECODE_ARGUMENT}: {text!r} is not a Decode as JSON: {error}") from error
