"""FSDP2: base, adapters and optimizer are sharded over all processes.

Each decoder layer is sharded together with its adapters, everything outside the layers with the
root. Each pass through a layer, forward and backward, gathers its weights. Only the gradients of
adapters are sent. All ranks must make the same number of forward passes.

    rank 0   embeddings [upper half] | layer 0 [upper half] | layer 1 [upper half] | ...
    rank 1   embeddings [lower half] | layer 0 [lower half] | layer 1 [lower half] | ...

Checkpoints hold gathered tensors, as one process writes them: a run may continue on any number of
processes.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from lightning.fabric.utilities.apply_func import apply_to_collection  # type: ignore[attr-defined]
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from tell_lightning.errors import TellError
from tell_lightning.model.base import decoder_layers


class ShardingError(TellError):
    """A model that cannot be sharded."""


class FullySharded(ModelParallelStrategy):
    """Lightning's FSDP2 strategy over all devices, with checkpoints that also fit one process.

    Unlike all other strategies, Lightning's own FSDP2 strategy numbers the optimizer's state by all
    parameters of the model, including frozen ones.
    """

    def __init__(
        self,
        timeout: timedelta = timedelta(minutes=30),
        process_group_backend: str | None = None,
    ) -> None:
        """Configure the process group.

        Args:
            timeout: How long a rank waits for another one.
            process_group_backend: 'nccl' or 'gloo'; null: the one for the device.
        """
        super().__init__(
            save_distributed_checkpoint=False,
            timeout=timeout,
            process_group_backend=process_group_backend,
        )

    def setup_environment(self) -> None:
        """Shard over all devices; by default Lightning splits each matrix within a machine."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        self._tensor_parallel_size = 1
        super().setup_environment()

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Make Lightning call `load_optimizer_state_dict`."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the gathered adapters; a collective."""
        assert self.lightning_module is not None
        return dict(gathered(self.lightning_module.state_dict()))

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the gathered state, numbered as on one process; a collective."""
        return dict(gathered(super(ModelParallelStrategy, self).optimizer_state(optimizer)))

    def load_checkpoint(
        self, checkpoint_path: Any, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint on every rank."""
        return super(ModelParallelStrategy, self).load_checkpoint(checkpoint_path, weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Load gathered adapters; the module shards them."""
        super(ModelParallelStrategy, self).load_model_state_dict(checkpoint, strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load gathered optimizer states; a collective."""
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            numbers = [number for group in saved["param_groups"] for number in group["params"]]
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            state = {
                number: {
                    name: shard_like(parameter, value)
                    for name, value in saved["state"][number].items()
                }
                for number, parameter in zip(numbers, parameters, strict=True)
                if number in saved["state"]
            }
            optimizer.load_state_dict({**saved, "state": state})


StrategyRegistry.register("fsdp2", FullySharded, description="FSDP2: all weights are sharded")


def shard(model: Any, mesh: DeviceMesh) -> None:
    """Shard a model over the processes of a mesh, in place, and move it to their devices.

    Args:
        model: A PEFT model on the CPU, or on the device of the mesh.
        mesh: A mesh of one dimension.

    Raises:
        ShardingError: The model does not name its layers.
    """
    base = model.get_base_model()
    layers = decoder_layers(base)
    if not layers:
        raise ShardingError(
            f"trainer.strategy: fsdp2 needs a model that names its layers in _no_split_modules, "
            f"got {type(base).__name__}, which names none. Set trainer.strategy: ddp."
        )
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    # By default the root stays gathered after a pass, and a parameter read between two passes would
    # not be the parameter that the optimizer has.
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    # Without this, `generate` skips the root's hook, which gathers embeddings and output layer.
    register_fsdp_forward_method(model, "generate")


def gathered_adapters(model: nn.Module) -> dict[str, Tensor]:
    """Return the trained parameters by name, gathered; a collective if the model is sharded."""
    parameters = model.named_parameters()
    trained = {name: value.detach() for name, value in parameters if value.requires_grad}
    return dict(gathered(trained))


def whole(value: Tensor) -> Tensor:
    """Return a tensor that may be sharded as one tensor on its device; a collective if it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def gathered(values: Any) -> Any:
    """Gather every sharded tensor of a collection on the CPU; a collective if there are any."""
    return apply_to_collection(values, DTensor, lambda value: value.full_tensor().cpu())


def shard_like(parameter: Tensor, value: Any) -> Any:
    """Shard a tensor like its parameter; other values stay. A collective if it is sharded."""
    if not isinstance(parameter, DTensor) or getattr(value, "shape", None) != parameter.shape:
        return value
    value = value.to(parameter.device, parameter.dtype)
    return distribute_tensor(value, parameter.device_mesh, parameter.placements)
