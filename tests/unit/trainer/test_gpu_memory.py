"""The formulas of docs/gpu-memory.md against a small Qwen3 that computes and trains."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import DynamicCache, Qwen3Config, Qwen3ForCausalLM

from inference_service.config import InferenceServiceConfig
from qmd_schema.config import load_config
from support.benchmarks import load_benchmark
from trainer.config import GrpoConfig, LoraSettings, RaySettings, SftConfig

ROWS, LENGTH = 4, 32
ADAPTERS = [
    LoraSettings(rank=4, alpha=8, targets=["q_proj", "v_proj"]),
    LoraSettings(
        rank=2, alpha=8, targets=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    ),
]


@pytest.fixture(scope="module")
def memory() -> ModuleType:
    return load_benchmark("gpu_memory")


@pytest.fixture(scope="module")
def small(memory):
    return memory.Qwen3("small", hidden=64, intermediate=160, layers=2, heads=4, kv_heads=2, head=32, vocabulary=512)


def build(model, lora: LoraSettings) -> PeftModel:
    """As on a GPU: the base in bf16, the adapter in fp32."""
    config = Qwen3Config(
        vocab_size=model.vocabulary,
        hidden_size=model.hidden,
        intermediate_size=model.intermediate,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        num_key_value_heads=model.kv_heads,
        head_dim=model.head,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
    )
    base = Qwen3ForCausalLM(config).to(torch.bfloat16)
    return get_peft_model(base, LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=lora.targets))


def forward(model: PeftModel, rows: int, **settings) -> torch.Tensor:
    """Last hidden states of rows of which the first is padded."""
    ids = torch.randint(model.config.vocab_size, (rows, LENGTH))
    mask = torch.ones_like(ids)
    mask[0, -5:] = 0
    with torch.autocast("cpu", torch.bfloat16):
        return model.get_base_model().model(input_ids=ids, attention_mask=mask, **settings).last_hidden_state


def kept_bytes(model: PeftModel, rows: int) -> int:
    """Memory that a forward keeps for the backward pass, weights aside; a storage counts once."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward(model, rows, use_cache=False)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("lora", ADAPTERS, ids=["two layers", "all layers"])
def test_parameters_are_counted_exactly(memory, small, lora):
    model = build(small, lora)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert sum(parameter.numel() for parameter in trained) == memory.adapter_parameters(small, lora)
    model = model.unload()
    assert sum(parameter.numel() for parameter in model.parameters()) == memory.parameters(small)
    assert sum(parameter.nbytes for parameter in model.parameters()) == memory.base_bytes(small, RaySettings())
    assert sum(parameter.numel() for parameter in model.model.layers[0].parameters()) == memory.layer_parameters(small)


def test_the_sizes_of_qwen3_are_the_published_ones(memory):
    counts = {model.name: memory.parameters(model) for model in memory.MODELS}
    assert counts == {"Qwen3-0.6B": 596_049_920, "Qwen3-1.7B": 1_720_574_976, "Qwen3-4B": 4_022_468_096}


@pytest.mark.parametrize("lora", ADAPTERS, ids=["two layers", "all layers"])
def test_adapter_gradients_and_moments_take_what_the_formula_says(memory, small, lora):
    model = build(small, lora)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    forward(model, 2).float().pow(2).mean().backward()
    optimizer.step()
    moments = [value for state in optimizer.state.values() for value in state.values() if value.ndim]
    measured = sum(tensor.nbytes for tensor in [*trained, *(parameter.grad for parameter in trained), *moments])
    assert measured == memory.adapter_bytes(small, lora, RaySettings())


@pytest.mark.parametrize("lora", ADAPTERS, ids=["two layers", "all layers"])
def test_a_layer_keeps_of_a_token_what_the_formula_says(memory, small, lora):
    shallow, deep = build(small, lora), build(small._replace(layers=6), lora)
    of_rows = [kept_bytes(deep, rows) - kept_bytes(shallow, rows) for rows in (ROWS, 2 * ROWS)]
    measured = (of_rows[1] - of_rows[0]) / (4 * ROWS * LENGTH)
    assert measured == memory.layer_activation_bytes(small, lora, LENGTH)


def test_a_checkpointed_layer_keeps_its_input_alone(memory, small):
    shallow, deep = build(small, ADAPTERS[1]), build(small._replace(layers=6), ADAPTERS[1])
    for model in (shallow, deep):
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
        model.train()
    batch = memory.Batch(ROWS, LENGTH)
    more = [kept_bytes(model, ROWS) for model in (shallow, deep)]
    layers = [memory.activation_bytes(small._replace(layers=count), ADAPTERS[1], batch, True) for count in (2, 6)]
    assert more[1] - more[0] == layers[1] - layers[0]


def test_keys_and_values_of_a_token_take_what_the_formula_says(memory, small):
    model = build(small, ADAPTERS[0])
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        forward(model, ROWS, past_key_values=cache)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert held == ROWS * LENGTH * memory.cache_bytes_per_token(small)


def test_the_tables_of_the_guide_are_what_the_formulas_give(memory, root: Path):
    guide = (root / "docs/gpu-memory.md").read_text(encoding="utf-8")
    sft, grpo = load_config(root / "configs/sft.yaml", SftConfig), load_config(root / "configs/grpo.yaml", GrpoConfig)
    assert memory.model_table(sft, grpo) in guide
    assert memory.machine_table(sft, grpo) in guide


def test_the_settings_of_the_configs_fit_a_gpu_of_24_gb(memory, root: Path):
    sft, grpo = load_config(root / "configs/sft.yaml", SftConfig), load_config(root / "configs/grpo.yaml", GrpoConfig)
    inference = load_config(root / "configs/inference.yaml", InferenceServiceConfig)
    batch = memory.Batch(grpo.rows_per_forward, memory.PROMPT_TOKENS + grpo.max_completion)
    for model in memory.MODELS[:2]:
        tuned = memory.training_bytes(
            model, sft.lora, sft.ray, memory.Batch(sft.rows_per_forward, sft.max_length), checkpointing=True
        )
        learnt = memory.training_bytes(model, grpo.lora, grpo.ray, batch, checkpointing=True)
        assert sum(tuned.values()) < 24 * memory.GIB
        assert sum(learnt.values()) + memory.serving_bytes(model, inference.kv_cache_gib) < 24 * memory.GIB
