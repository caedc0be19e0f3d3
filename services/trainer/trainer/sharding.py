"""Frozen weights sharded over the workers (FSDP2), below an adapter that each worker holds whole (DDP)."""

from typing import Any

from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class ShardFrozenWeights(TrainerCallback):
    """Shards the decoder layers below an adapter when training begins; each is gathered while it computes.

    The adapter stays whole on each worker and DDP averages its gradients, so that checkpoints, resumption and merging
    do not know of the sharding. The embeddings stay whole as well: the head that shares them runs outside of the
    modules that gather.
    """

    def __init__(self, model: Any) -> None:
        """model: the PEFT model, not yet given to DDP."""
        frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
        # DDP would keep the weights that are about to be replaced by shards.
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, frozen)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,  # noqa: ARG002
        control: TrainerControl,  # noqa: ARG002
        model: Any,
        **_: Any,
    ) -> None:
        decoder = model.get_base_model().base_model
        mesh = init_device_mesh(args.device.type, (args.world_size,))
        whole = {parameter for parameter in model.parameters() if parameter.requires_grad}
        whole.add(decoder.get_input_embeddings().weight)
        for module in (*decoder.layers, decoder):
            # The decoder's own weights too are let go after each forward: saving does so on the worker that saves, and
            # one that held them since an evaluation would not take part in gathering them again.
            fully_shard(module, mesh=mesh, reshard_after_forward=True, ignored_params=whole)


def full_weight(weight: Tensor) -> Tensor:
    """The whole of a weight that may be sharded; then every worker has to ask for it."""
    return weight.full_tensor() if isinstance(weight, DTensor) else weight


def is_sharded(model: Any) -> bool:
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())
