"""What training and serving take of a GPU's memory, by formula. Prints the tables of docs/gpu-memory.md.

All sizes are bytes a GPU. tests/unit/trainer/test_gpu_memory.py holds each formula against a small Qwen3 that trains.
"""

from pathlib import Path
from typing import Literal, NamedTuple

from qmd_schema.config import load_config
from trainer.config import GrpoConfig, LoraSettings, RaySettings, SftConfig

GIB = 2**30
BF16, FP32 = 2, 4
CONTEXT = 0.7 * GIB
"""CUDA context, cuBLAS workspace and fragmentation of a process that trains: an allowance, not a formula."""
SERVER = 2.0 * GIB
"""vLLM's CUDA context, graphs and its largest forward: an allowance, not a formula."""
HEAD_ROWS, HEAD_COLUMNS = 4096, 32768
"""TRL's head never holds more logits at once than a tile of so many tokens by so many words."""
PROMPT_TOKENS = 100
"""Prompt of a rollout in tokens: some 75 of them are QMD's own, the others the query."""


class Qwen3(NamedTuple):
    """A model of the Qwen3 architecture, head tied to the embeddings."""

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int = 8
    head: int = 128
    vocabulary: int = 151_936

    @property
    def query(self) -> int:
        """Width of all queries of a token together, and of what attention gives out."""
        return self.heads * self.head

    @property
    def key(self) -> int:
        """Width of all keys of a token together, and of all values."""
        return self.kv_heads * self.head


class Batch(NamedTuple):
    """What a worker runs forward at once."""

    rows: int
    length: int
    """Tokens of a row, padding included."""

    @property
    def tokens(self) -> int:
        return self.rows * self.length


MODELS = (
    Qwen3("Qwen3-0.6B", hidden=1024, intermediate=3072, layers=28, heads=16),
    Qwen3("Qwen3-1.7B", hidden=2048, intermediate=6144, layers=28, heads=16),
    Qwen3("Qwen3-4B", hidden=2560, intermediate=9728, layers=36, heads=32),
)


def embedding_parameters(model: Qwen3) -> int:
    return model.vocabulary * model.hidden


def layer_parameters(model: Qwen3) -> int:
    """Attention, MLP, the norms before both, and those of query and key."""
    attention = model.hidden * (2 * model.query + 2 * model.key)
    return attention + 3 * model.hidden * model.intermediate + 2 * model.hidden + 2 * model.head


def parameters(model: Qwen3) -> int:
    return embedding_parameters(model) + model.layers * layer_parameters(model) + model.hidden


def adapter_parameters(model: Qwen3, lora: LoraSettings) -> int:
    """rank x (inputs + outputs) of each adapted linear layer."""
    shapes = {
        "q_proj": model.hidden + model.query,
        "k_proj": model.hidden + model.key,
        "v_proj": model.hidden + model.key,
        "o_proj": model.query + model.hidden,
        "gate_proj": model.hidden + model.intermediate,
        "up_proj": model.hidden + model.intermediate,
        "down_proj": model.intermediate + model.hidden,
    }
    return model.layers * lora.rank * sum(shapes[name] for name in lora.targets)


def base_bytes(model: Qwen3, ray: RaySettings) -> int:
    """The frozen weights in bf16. Under FSDP embeddings and norm are whole, the layers a worker's share and two
    gathered ones: that which computes and the next."""
    if ray.sharding == "ddp":
        return BF16 * parameters(model)
    layers = model.layers * layer_parameters(model) // ray.workers + 2 * layer_parameters(model)
    return BF16 * (embedding_parameters(model) + layers + model.hidden)


def adapter_bytes(model: Qwen3, lora: LoraSettings, ray: RaySettings) -> int:
    """Weights, gradients and AdamW's two moments in fp32; with several workers DDP's buckets of gradients too."""
    return FP32 * (5 if ray.workers > 1 else 4) * adapter_parameters(model, lora)


def layer_activation_bytes(model: Qwen3, lora: LoraSettings, row: int) -> int:
    """What one layer keeps of one token for the backward pass: bf16, but for the norms' inputs, in fp32.

    The frozen products keep nothing; each adapter keeps its input, and what its rank leaves of it. Keys and values are
    repeated for the queries of their group. row: tokens of the row, over which the layer's mask reaches.
    """
    norms = FP32 * (2 * model.hidden + 2 + model.query + model.heads + model.key + model.kv_heads)
    attention = BF16 * (4 * model.query + row) + FP32 * model.heads
    mlp = BF16 * 3 * model.intermediate
    inputs = {"o_proj": model.query, "down_proj": model.intermediate}
    adapters = sum(BF16 * (inputs.get(name, model.hidden) + lora.rank) for name in lora.targets)
    return norms + attention + mlp + adapters


def activation_bytes(model: Qwen3, lora: LoraSettings, batch: Batch, checkpointing: bool) -> int:
    """With checkpointing each layer keeps its input alone, and one layer at a time is run again."""
    layer = layer_activation_bytes(model, lora, batch.length)
    if checkpointing:
        return batch.tokens * (model.layers * BF16 * model.hidden + layer)
    return batch.tokens * model.layers * layer


def head_bytes(model: Qwen3, batch: Batch) -> int:
    """A tile of logits, and the gradient of the last hidden states in fp32."""
    return min(batch.tokens, HEAD_ROWS) * HEAD_COLUMNS * BF16 + batch.tokens * model.hidden * FP32


def training_bytes(
    model: Qwen3, lora: LoraSettings, ray: RaySettings, batch: Batch, checkpointing: bool
) -> dict[str, float]:
    """The parts of a worker's memory."""
    return {
        "base": base_bytes(model, ray),
        "adapter": adapter_bytes(model, lora, ray),
        "activations": activation_bytes(model, lora, batch, checkpointing),
        "head": head_bytes(model, batch),
        "context": CONTEXT,
    }


def cache_bytes_per_token(model: Qwen3) -> int:
    """Keys and values of all layers in the inference server."""
    return 2 * BF16 * model.layers * model.key


def serving_bytes(model: Qwen3, kv_cache_gib: float) -> float:
    return BF16 * parameters(model) + kv_cache_gib * GIB + SERVER


class Machine(NamedTuple):
    """GPUs, and the settings for Qwen3-1.7B that use them well."""

    name: str
    gpus: int
    gib: int
    """Memory a GPU."""
    sft_rows: int
    grpo_rows: int
    kv_cache_gib: float

    def ray(self, sharding: Literal["ddp", "fsdp"]) -> RaySettings:
        return RaySettings(gpu=True, workers=self.gpus, sharding=sharding)


MACHINES = (
    Machine("1 × 24 GB", gpus=1, gib=24, sft_rows=8, grpo_rows=16, kv_cache_gib=8),
    Machine("1 × 80 GB", gpus=1, gib=80, sft_rows=16, grpo_rows=64, kv_cache_gib=32),
    Machine("8 × 80 GB", gpus=8, gib=80, sft_rows=2, grpo_rows=8, kv_cache_gib=32),
)


def model_table(sft: SftConfig, grpo: GrpoConfig) -> str:
    """What a model is made of, whatever runs it."""
    rows = [
        [
            model.name,
            f"{parameters(model):,}",
            f"{layer_parameters(model):,}",
            _gib(BF16 * parameters(model)),
            f"{adapter_parameters(model, sft.lora):,}",
            f"{adapter_parameters(model, grpo.lora):,}",
            f"{layer_activation_bytes(model, sft.lora, sft.max_length) / 1024:.0f}",
            f"{cache_bytes_per_token(model) / 1024:.0f}",
        ]
        for model in MODELS
    ]
    columns = ["", "parameters", "of a layer", "in bf16, GiB", "SFT adapter", "GRPO adapter"]
    return _table([*columns, "activations a layer and token, KiB", "KV cache a token, KiB"], rows)


def machine_table(sft: SftConfig, grpo: GrpoConfig) -> str:
    """The fullest GPU of each machine in SFT and in GRPO, in GiB."""
    rows = []
    for machine in MACHINES:
        for model in MODELS:
            for sharding in ("ddp", "fsdp")[: 1 + (machine.gpus > 1)]:
                ray = machine.ray(sharding)
                tuned = training_bytes(model, sft.lora, ray, Batch(machine.sft_rows, sft.max_length), True)
                batch = Batch(machine.grpo_rows, PROMPT_TOKENS + grpo.max_completion)
                learnt = training_bytes(model, grpo.lora, ray, batch, True)
                served = serving_bytes(model, machine.kv_cache_gib)
                both = sum(learnt.values()) + served
                rows.append(
                    [machine.name, model.name, sharding]
                    + [_gib(tuned[part]) for part in ("base", "adapter", "activations")]
                    + [_gib(sum(tuned.values())), _gib(sum(learnt.values())), _gib(served), _gib(both)]
                    + ["yes" if both <= machine.gib * GIB else "no"]
                )
    columns = ["GPUs", "model", "sharding", "base", "adapter", "activations", "SFT in all"]
    return _table([*columns, "GRPO in all", "inference", "both", "fits"], rows)


def _gib(size: float) -> str:
    return f"{size / GIB:.2f}"


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    configs = Path(__file__).resolve().parent.parent / "configs"
    sft, grpo = load_config(configs / "sft.yaml", SftConfig), load_config(configs / "grpo.yaml", GrpoConfig)
    print(model_table(sft, grpo), machine_table(sft, grpo), sep="\n\n")


if __name__ == "__main__":
    main()
