"""A model folder in transformers, for machines where vLLM does not run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import xgrammar
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from inference_service.language_model import ModelError, Step, affordable_sequences


class TransformersModel:
    """A LanguageModel on the CPU."""

    batch_tokens = 512

    def __init__(self, folder: Path, dtype: torch.dtype, cache_bytes: int, sequences: int, context: int) -> None:
        """Takes as many sequences, at most `sequences` and at least two, as `cache_bytes` of keys and values hold.

        Raises ModelError.
        """
        self._model, self._tokenizer = _load(folder, dtype)
        config = self._model.config
        self.vocabulary: int = config.vocab_size
        self.end_tokens = _end_tokens(self._model.generation_config.eos_token_id, self._tokenizer.eos_token_id)
        self.context = context
        heads = config.num_key_value_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        layers = config.num_hidden_layers
        self.sequences = affordable_sequences(
            sequences, cache_bytes, context, bytes_per_token=2 * layers * heads * size * dtype.itemsize
        )
        self._cache = _Cache(layers, self.sequences, context, heads, size, dtype)
        self._lengths = [0] * self.sequences

    def tokenize(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def text(self, tokens: Sequence[int]) -> str:
        written = self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(written).rstrip("\ufffd")

    def grammar_tokens(self) -> xgrammar.TokenizerInfo:
        return xgrammar.TokenizerInfo.from_huggingface(
            self._tokenizer, vocab_size=self.vocabulary, stop_token_ids=sorted(self.end_tokens)
        )

    def read(self, steps: Sequence[Step]) -> Tensor:
        sequences: dict[int, list[Step]] = {}
        for step in steps:
            sequences.setdefault(step.sequence, []).append(step)
        # Prompts apart, so that the answers' single tokens are not padded to their length.
        writing = [own for own in sequences.values() if len(own) == 1]
        reading = [own for own in sequences.values() if len(own) > 1]
        logits: dict[int, Tensor] = {}
        for rows in filter(None, (writing, reading)):
            logits |= zip((own[0].sequence for own in rows), self._forward(rows), strict=True)
        wanted = [logits[step.sequence] for step in steps if step.wants_logits]
        return torch.stack(wanted) if wanted else torch.empty(0, self.vocabulary)

    @torch.no_grad()
    def _forward(self, rows: Sequence[Sequence[Step]]) -> Tensor:
        """Logits after the last token of each row, [rows, vocabulary], float32. Shorter rows are padded in front."""
        width = max(map(len, rows))
        tokens = torch.zeros(len(rows), width, dtype=torch.long)
        positions = torch.zeros_like(tokens)
        slots = torch.full_like(tokens, self.context)
        for place, row in enumerate(rows):
            tokens[place, -len(row) :] = torch.tensor([step.token for step in row])
            positions[place, -len(row) :] = slots[place, -len(row) :] = torch.tensor([step.position for step in row])
            self._lengths[row[-1].sequence] = row[-1].position + 1
        length = int(positions.max()) + 1
        self._cache.select(torch.tensor([row[0].sequence for row in rows]), slots, length)
        output = self._model(
            input_ids=tokens,
            attention_mask=torch.arange(length) <= positions[:, None, :, None],  # [rows, 1, width, length]
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, 0].float()

    def copy(self, source: int, target: int) -> None:
        self._cache.copy(source, target, self._lengths[source])

    def forget(self, sequence: int) -> None:
        """A sequence reads from position 0 on again, and never sees what lies behind its own tokens."""

    def close(self) -> None:
        del self._model, self._cache


class _Cache:
    """Keys and values of every sequence, as the attention layers of a transformers model ask for them.

    A sequence has a slot for each position, and one more, never read, that takes what padding writes.
    """

    def __init__(self, layers: int, sequences: int, context: int, heads: int, size: int, dtype: torch.dtype) -> None:
        shape = (layers, sequences, context + 1, heads, size)
        # Zeros, since what is masked still counts where it is not a number.
        self._keys, self._values = torch.zeros(shape, dtype=dtype), torch.zeros(shape, dtype=dtype)

    def select(self, sequences: Tensor, slots: Tensor, length: int) -> None:
        """What the next pass is of. sequences: [rows]; slots: of its tokens, [rows, width]; length: slots it reads."""
        self._sequences, self._slots, self._length = sequences, slots, length

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Takes the pass's keys and values and gives those of all positions, [rows, heads, width or length, size]."""
        return self._exchange(self._keys[layer], keys), self._exchange(self._values[layer], values)

    def _exchange(self, held: Tensor, new: Tensor) -> Tensor:
        held[self._sequences[:, None], self._slots] = new.transpose(1, 2)
        return held[self._sequences, : self._length].transpose(1, 2)

    def copy(self, source: int, target: int, length: int) -> None:
        for held in (self._keys, self._values):
            held[:, target, :length] = held[:, source, :length]


def _load(folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    if not folder.is_dir():
        raise ModelError(f"{folder} is no model folder, and this service runs nothing else")
    try:
        model, loaded = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, attn_implementation="sdpa", output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder}: transformers cannot load it: {error}") from error
    if missing := sorted(loaded["missing_keys"]):
        raise ModelError(f"{folder}: its files hold no {missing[0]}")
    return model.eval(), tokenizer


def _end_tokens(of_model: int | list[int] | None, of_tokenizer: int) -> frozenset[int]:
    named = of_model if isinstance(of_model, list) else [of_tokenizer if of_model is None else of_model]
    return frozenset([*named, of_tokenizer])
