"""A GGUF file in llama.cpp."""

import ctypes
from collections.abc import Sequence
from pathlib import Path

import llama_cpp
import numpy as np
import torch
import xgrammar
from torch import Tensor

from inference_service.language_model import ModelError, Step, affordable_sequences

_BATCH_TOKENS = 512
"""Tokens in one pass through the model."""


class GgufModel:
    """A LanguageModel."""

    batch_tokens = _BATCH_TOKENS

    def __init__(self, path: Path, cache_bytes: int, sequences: int, context: int, threads: int) -> None:
        """Takes as many sequences, at most `sequences` and at least two, as `cache_bytes` of keys and values hold.

        Raises ModelError.
        """
        if path.suffix != ".gguf":
            raise ModelError(f"{path} is no GGUF file, and this service runs nothing else")
        options = llama_cpp.llama_model_default_params()
        options.use_extra_bufts = False  # copies for AMX fault in virtual machines that lack it
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
        if not self._model:
            raise ModelError(f"{path}: llama.cpp cannot load it; its log says why")
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self.vocabulary: int = llama_cpp.llama_vocab_n_tokens(self._vocab)
        self.end_tokens = frozenset(
            token for token in range(self.vocabulary) if llama_cpp.llama_vocab_is_eog(self._vocab, token)
        )
        self.context = context
        self.sequences = affordable_sequences(sequences, cache_bytes, context, self._cache_bytes_per_token())
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = self.sequences * context
        parameters.n_seq_max = self.sequences
        parameters.n_batch = parameters.n_ubatch = _BATCH_TOKENS
        parameters.n_threads = parameters.n_threads_batch = threads
        # Each sequence looks at its own keys and values alone, not at those of all others behind a mask.
        parameters.kv_unified = False
        self._context = llama_cpp.llama_init_from_model(self._model, parameters)
        if not self._context:
            raise ModelError(f"{path}: llama.cpp made no context for it; its log says why")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(_BATCH_TOKENS, 0, 1)
        self._pieces = [self._piece(token) for token in range(self.vocabulary)]

    def tokenize(self, text: str) -> list[int]:
        data = text.encode()
        room = (llama_cpp.llama_token * (len(data) + 1))()
        count = llama_cpp.llama_tokenize(self._vocab, data, len(data), room, len(room), False, True)
        return list(room[:count])

    def text(self, tokens: Sequence[int]) -> str:
        written = b"".join(self._pieces[token] for token in tokens)
        return written.decode("utf-8", errors="replace").rstrip("\ufffd")

    def grammar_tokens(self) -> xgrammar.TokenizerInfo:
        return xgrammar.TokenizerInfo(
            self._pieces, vocab_type=xgrammar.VocabType.RAW, stop_token_ids=sorted(self.end_tokens)
        )

    def read(self, steps: Sequence[Step]) -> Tensor:
        batch = self._batch
        batch.n_tokens = len(steps)
        for place, step in enumerate(steps):
            batch.token[place] = step.token
            batch.pos[place] = step.position
            batch.n_seq_id[place] = 1
            batch.seq_id[place][0] = step.sequence
            batch.logits[place] = step.wants_logits
        code = llama_cpp.llama_decode(self._context, batch)
        if code:
            raise ModelError(f"llama.cpp could not read {len(steps)} tokens (code {code})")
        wanted = sum(step.wants_logits for step in steps)
        if not wanted:
            return torch.empty(0, self.vocabulary)
        logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits(self._context), (wanted, self.vocabulary))
        return torch.from_numpy(logits.copy())

    def copy(self, source: int, target: int) -> None:
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def forget(self, sequence: int) -> None:
        llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def close(self) -> None:
        llama_cpp.llama_batch_free(self._batch)
        llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)

    def _piece(self, token: int) -> bytes:
        """What a token writes; nothing for one of the template."""
        if llama_cpp.llama_vocab_is_control(self._vocab, token):
            return b""
        room = ctypes.create_string_buffer(256)
        length = llama_cpp.llama_token_to_piece(self._vocab, token, room, len(room), 0, False)
        return room.raw[:length] if length > 0 else b""

    def _cache_bytes_per_token(self) -> int:
        """Keys and values of all layers, in half precision."""
        layers, heads = llama_cpp.llama_model_n_layer(self._model), llama_cpp.llama_model_n_head_kv(self._model)
        size = self._metadata(f"{self._metadata('general.architecture')}.attention.key_length")
        width, all_heads = llama_cpp.llama_model_n_embd(self._model), llama_cpp.llama_model_n_head(self._model)
        return int(2 * 2 * layers * heads * (int(size) if size else width // all_heads))

    def _metadata(self, key: str) -> str | None:
        room = ctypes.create_string_buffer(256)
        length = llama_cpp.llama_model_meta_val_str(self._model, key.encode(), room, len(room))
        return room.value.decode() if length >= 0 else None
