"""One worker of a sharded model: `python -m torch.distributed.run --nproc-per-node 2 -m support.sharded_model MODEL`.

Prints, as JSON from the first worker, how the model differs from the whole one.
"""

import json
import sys
from types import SimpleNamespace

import torch
from peft import get_peft_model
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM

from trainer.config import LoraSettings
from trainer.policies import merged_weights
from trainer.sft import lora_config
from trainer.sharding import ShardFrozenWeights


def main() -> None:
    torch.distributed.init_process_group("gloo")
    torch.manual_seed(0)
    lora = lora_config(LoraSettings(rank=2, alpha=4, targets=["q_proj", "v_proj"]))
    lora.init_lora_weights = False
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32), lora)
    base = model.get_base_model()
    tokens = torch.arange(40).view(2, 20)
    whole = {"logits": model(tokens).logits.detach(), **dict(merged_weights(base))}

    arguments = SimpleNamespace(device=torch.device("cpu"), world_size=torch.distributed.get_world_size())
    ShardFrozenWeights(model).on_train_begin(arguments, state=None, control=None, model=model)
    sharded = {"logits": model(tokens).logits.detach(), **dict(merged_weights(base))}
    layers = list(base.base_model.layers.named_parameters())
    told = {
        "names": list(sharded) == list(whole),
        "difference": max(float((sharded[name] - whole[name]).abs().max()) for name in whole),
        "frozen_sharded": all(isinstance(weight, DTensor) for name, weight in layers if "lora_" not in name),
        "adapter_whole": not any(isinstance(weight, DTensor) for name, weight in layers if "lora_" in name),
        "held": sum(weight.to_local().numel() for name, weight in layers if "lora_" not in name),
        "frozen": sum(weight.numel() for name, weight in layers if "lora_" not in name),
        "tied": base.get_output_embeddings().weight is base.get_input_embeddings().weight,
    }
    if torch.distributed.get_rank() == 0:
        print(json.dumps(told))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
