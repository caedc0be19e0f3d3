"""The config of the inference service."""

from typing import Literal

from pydantic import Field

from qmd_rpc.inference import PolicyKind
from qmd_schema.config import StrictModel


class InferenceServiceConfig(StrictModel):
    """One server: which model it starts with, what it runs on, and how it is kept up."""

    host: str = Field(
        "127.0.0.1", description="Address to bind to. Loopback: whoever reaches it may replace the model."
    )
    port: int = Field(8011, ge=1, le=65535, description="TCP port of the HTTP interface.")
    model: str | None = Field(
        None, description="Model folder or GGUF file that answers as policy `base`. Usually given by --model instead."
    )
    engine: Literal["auto", "vllm", "transformers"] = Field(
        "auto", description="What runs a model folder; `auto` is vLLM wherever it runs. llama.cpp runs a GGUF file."
    )
    device: Literal["cpu", "cuda"] = Field(description="What vLLM runs on; its build must match.")
    dtype: Literal["bfloat16", "float16", "float32"] = Field(
        "bfloat16", description="Of weights and computation. The models are trained and published in bfloat16."
    )
    policies: PolicyKind = Field(
        "merged",
        description="How a trainer brings its policies in: `merged` weights, loaded in place of those before, or "
        "`adapter`, some MB, beside them. On a CPU an adapter takes five to ten times as long to compute.",
    )
    max_adapters: int = Field(
        2, ge=1, description="Adapters that answer side by side: one more than the steps a rollout's policy may lag."
    )
    max_adapter_rank: Literal[8, 16, 32, 64, 128, 256] = Field(
        16, description="Rank that there is memory for in each adapter; a higher one is refused."
    )
    max_sequences: int = Field(
        ge=1, description="Answers written at the same time. More is faster until cores or KV cache are used up."
    )
    max_tokens: int = Field(
        2048, ge=256, description="Longest prompt and answer together, in tokens. QMD's context holds 2,048."
    )
    kv_cache_gib: float = Field(
        gt=0, description="Memory for keys and values, in GiB: tokens held × layers × KV heads × head size × 4 bytes."
    )
    block_tokens: int = Field(
        32,
        multiple_of=16,
        description="Tokens in a block of the KV cache. Small enough that QMD's system prompt fills two, which all "
        "prompts then share: a third faster than vLLM's 128 on a CPU.",
    )
    cores: str | None = Field(
        None, description='Cores that the engine\'s threads are bound to, such as "0-1". Absent: all that it may use.'
    )
    ready_seconds: float = Field(
        300.0,
        gt=0,
        description="Seconds until the first completion after a start: 30 on two idle cores, minutes on busy ones.",
    )
    stop_seconds: float = Field(
        10.0, gt=0, description="Seconds vLLM may take to end after SIGTERM before all of its processes are killed."
    )
    max_restarts: int = Field(
        3, ge=0, description="How often a vLLM that ended by itself is started again, after 1, 2, 4, … seconds."
    )
