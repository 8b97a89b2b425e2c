"""`TellModule`: a LoRA-adapted causal LM, its loss and its optimizer.

The loss is the token mean over the whole optimizer batch. A mean per micro-batch, averaged over
accumulation and ranks, would give the tokens of short answers too much weight. So each micro-batch
gives the gradient of a *sum*. Before the optimizer step, gradients are divided by the number of
supervised tokens in all micro-batches on all ranks. Sums of each source are logged.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from math import isfinite, nan
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.nn.modules.module import _IncompatibleKeys

from tell_lightning.data.batches import Batch, indexed, log_stage
from tell_lightning.data.permutation import derive_key, seed_for
from tell_lightning.errors import TellError
from tell_lightning.model.attention import use_masks, use_packed_kernel
from tell_lightning.model.base import load_base
from tell_lightning.model.compiled import check_compiler, compile_layers
from tell_lightning.model.isolation import IsolationError, check_isolation
from tell_lightning.model.lora import AdapterError, ParameterCount, add_adapters, load_weights
from tell_lightning.model.loss import sums_by_source, token_losses
from tell_lightning.model.micro_batch import largest_micro_batch
from tell_lightning.model.rate import with_rate
from tell_lightning.model.schedule import lr_scale
from tell_lightning.model.settings import (
    RANGES,
    LoraSettings,
    ModelSettings,
    OptimizerSettings,
    check_compile,
    check_quantize,
)
from tell_lightning.model.sharding import ShardingError, shard, shard_like, whole
from tell_lightning.settings import as_settings, check_ranges, plain

# Keeps the loss near 1. A power of two, so scaling by it and back is exact.
REFERENCE_TOKENS = 1024.0


class DivergedError(TellError):
    """A training whose numbers are infinite or NaN."""


class Watched(NamedTuple):
    """Numbers of an optimizer step on their way from a GPU to the host."""

    step: int
    kind: Literal["gradients", "adapters"]
    numbers: Tensor
    arrived: Any


class TellModule(pl.LightningModule):
    """Trains adapters on a base model.

    Any loader that yields `Batch`es will do. Checkpoints only hold the adapters and the settings:
    `TellModule.load_from_checkpoint(path)` loads the base and gives the module of that run.

    Attributes:
        model: The PEFT model; None until the Trainer or `configure_model` has built it.
        settings: The `model` section.
        seed: The seeds of initialisation and dropout are derived from it.
        trained_steps: Number of optimizer steps that the adapters have been trained for.
    """

    def __init__(
        self,
        base: str,
        *,
        revision: str | None = None,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        quantize: Literal["nf4"] | None = None,
        attn_implementation: str = "auto",
        activation_checkpointing: bool = False,
        compile: bool = False,
        trust_remote_code: bool = False,
        lora: LoraSettings | Mapping[str, Any] = LoraSettings(),
        optimizer: OptimizerSettings | Mapping[str, Any] = OptimizerSettings(),
        init_seed: int | None = None,
        dropout_seed: int | None = None,
        seed: int = 42,
        adapter: str | Path | None = None,
    ) -> None:
        """Load nothing yet; the Trainer calls `configure_model` on its device.

        Args:
            base: Hugging Face hub id, a folder, or a name: 'smollm2', 'microworld'.
            revision: Commit, tag or branch of the hub model.
            dtype: Type of the frozen weights; auto: bfloat16 where the device computes it faster.
            quantize: nf4: the frozen linear layers take 4 bits a weight, by bitsandbytes; None:
                they are of `dtype`.
            attn_implementation: Attention kernel: auto, or any name that transformers takes.
            activation_checkpointing: Whether to recompute activations in the backward pass.
            compile: Whether to compile the decoder layer in the first steps of training.
            trust_remote_code: Whether code from the model's repository may run on this machine.
            lora: The adapters.
            optimizer: The optimizer and the schedule of its learning rate. With lr: auto, the
                number follows when the base is loaded; `settings` and checkpoints then hold it.
            init_seed: Seed of the adapters' initial values; None: derived from `seed`.
            dropout_seed: Seed of dropout; None: derived from `seed`.
            seed: The run's seed.
            adapter: An adapter folder; the adapters start from its weights.

        Raises:
            ConfigError: A setting does not exist or has another type.
        """
        super().__init__()
        self.settings = ModelSettings(
            base=base,
            revision=revision,
            dtype=dtype,
            quantize=quantize,
            attn_implementation=attn_implementation,
            activation_checkpointing=activation_checkpointing,
            compile=compile,
            trust_remote_code=trust_remote_code,
            lora=as_settings(LoraSettings, lora, "model.lora"),
            optimizer=as_settings(OptimizerSettings, optimizer, "model.optimizer"),
            init_seed=init_seed,
            dropout_seed=dropout_seed,
        )
        check_ranges(plain(self.settings), RANGES, "model")
        self.seed = seed
        self.adapter = adapter
        self.save_hyperparameters({**plain(self.settings), "seed": seed})
        self.strict_loading = False  # checkpoints only hold the adapters; see load_state_dict
        self.model: Any = None
        self.trained_steps = 0
        self._names: tuple[str, ...] = ()
        self._step_sums: Tensor | None = None  # of an optimizer step
        self._window_sums: Tensor | None = None  # since the last numbers were logged
        self._evaluation_sums: Tensor | None = None
        self._micro_step = 0
        self._kernel_chosen = False
        self._watched: deque[Watched] = deque()

    def configure_model(self) -> None:
        """Load the base and put the adapters on it, once, on the device of the strategy.

        With FSDP2 there is a device mesh: the model is built on the CPU and moved layer by layer.
        """
        if self.model is not None:
            return
        self.settings = with_rate(self.settings)
        self.save_hyperparameters({**plain(self.settings), "seed": self.seed})
        seed = seed_for("init", self.seed, self.settings.init_seed)
        mesh = self.device_mesh
        strategy = "fsdp2" if mesh else "auto"
        check_quantize(self.settings, strategy)
        check_compile(self.settings, strategy)
        base = load_base(self.settings, mesh.device_type if mesh else None)
        self.model = add_adapters(base, self.settings.lora, seed=seed)
        if self.settings.activation_checkpointing:
            base = self.model.get_base_model()
            # transformers 5.23 has renamed the method.
            enable = getattr(base, "activation_checkpointing_enable", None)
            (enable or base.gradient_checkpointing_enable)({"use_reentrant": False})
        # `from_pretrained` returns eval mode, which silently turns off checkpointing and dropout.
        self.model.train()
        self.parameter_count = ParameterCount(*self.model.get_nb_trainable_parameters())
        if self.adapter is not None:
            load_weights(self.model, Path(self.adapter))
        if self.settings.compile:
            compile_layers(self.model)
        if mesh is not None:
            shard(self.model, mesh["data_parallel"])

    def largest_micro_batch(
        self, sizes: Sequence[int], batch_of: Callable[[int], Batch]
    ) -> int | None:
        """Try which micro-batches fit into the memory of this device (`micro_batch`).

        Args:
            sizes: The sizes to choose from, ascending.
            batch_of: Makes the batch of a size, with the longest rows.

        Returns:
            The largest size that fits; None if not even the smallest does.

        Raises:
            TellError: The model is sharded, where one rank cannot try by itself.
        """
        if self.device_mesh is not None:
            raise ShardingError(
                "data.micro_batch: must be a number where the model is sharded, for all devices "
                "would have to run out of memory together, got auto. Set data.micro_batch: 1."
            )
        with self.trainer.init_module():
            self.configure_model()
        return largest_micro_batch(self, sizes, batch_of)

    # Training

    def setup(self, stage: str) -> None:
        """Reset the sums to log; a checkpoint, loaded after this, may set them again.

        Raises:
            ConfigError: Layers are to be compiled, and there is no compiler.
        """
        if stage == "fit":
            self._window_sums = None
            if self.settings.compile:
                check_compiler(self.trainer.strategy.root_device.type)

    def on_fit_start(self) -> None:
        """Reset the state of an optimizer step."""
        assert self.model.training
        self._watched.clear()
        self._step_sums = None
        self._micro_step = 0

    def on_train_start(self) -> None:
        """Say why the first steps take long, if they do."""
        if self.settings.compile:
            rank_zero_info(
                "model.compile: the first steps compile a layer, which may take minutes."
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the summed loss of a micro-batch, scaled to values near 1.

        Raises:
            IsolationError: The batch is packed, and the model lets examples see each other. This
                is checked before the first packed batch.
        """
        batch = indexed(batch)
        if not self._kernel_chosen and (batch.packed or self.device.type == "cuda"):
            self._choose_kernel(packed=batch.packed)
        self._names = batch.names
        self._seed_dropout()
        losses, _ = token_losses(self.model, batch)
        self._step_sums = _added(self._step_sums, sums_by_source(losses, batch))
        self._micro_step += 1
        # Lightning divides by accumulate_grad_batches, on_before_optimizer_step by the tokens.
        return losses.sum() * (self.trainer.accumulate_grad_batches / REFERENCE_TOKENS)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Turn the gradients of the sum into gradients of the token mean, before clipping.

        Raises:
            DivergedError: The loss or a gradient is infinite or NaN. On a GPU, the step is skipped
                there, and the host hears of it later, at the latest before anything is saved.
        """
        assert self._step_sums is not None
        self._check_watched(wait=False)
        sums = self._all_reduce(self._step_sums)
        world = self.trainer.world_size  # DDP and FSDP2 have averaged the gradients over the ranks
        scale = REFERENCE_TOKENS * world / sums[:, 1].sum().clamp(min=1.0)
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        torch._foreach_mul_(gradients, scale)
        norm = whole(torch.nn.utils.get_total_norm(gradients)).to(sums.device)
        numbers = torch.stack([sums[:, 0].sum(), norm.float()])
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            numbers = numbers[:1]  # a scaler meets infinite gradients on its way, and skips them
        elif optimizer.defaults.get("fused"):
            optimizer.found_inf = 1 - numbers.sum().isfinite().float()  # type: ignore[attr-defined]
        self._watch("gradients", self.trainer.global_step + 1, numbers)
        self._window_sums = _added(self._window_sums, sums)
        self._step_sums = None
        self._micro_step = 0
        trainer: Any = self.trainer
        if (trainer.global_step + 1) % trainer.log_every_n_steps == 0:
            self._check_watched(wait=True)
            self._log_window(norm)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Count the optimizer steps.

        Raises:
            DivergedError: A step has made adapters that are no numbers.
        """
        if self.trained_steps != self.trainer.global_step:
            self.trained_steps = self.trainer.global_step
            adapters = [p for p in self.parameters() if p.requires_grad]
            norm = whole(torch.nn.utils.get_total_norm(adapters))
            self._watch("adapters", self.trained_steps, norm.reshape(1))

    def on_train_end(self) -> None:
        """Check the last step."""
        self._check_watched(wait=True)

    def configure_optimizers(self) -> Any:
        """Return AdamW over the trained parameters, with warm-up and decay by optimizer step."""
        settings = self.settings.optimizer
        assert settings.lr != "auto"  # the base is loaded
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(
            trained,
            lr=settings.lr,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            fused=self._has_fused_step(trained) or None,  # None: PyTorch's choice
        )
        optimizer.register_load_state_dict_pre_hook(_with_own_kernel)
        # Lightning takes every fused optimizer for one that undoes the scale of float16 itself, and
        # refuses to clip its gradients.
        optimizer._step_supports_amp_scaling = False
        total = self.trainer.max_steps
        if total < 1:  # the run ends after epochs, and its loader is not ours
            total = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: lr_scale(step, total, settings)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    # Evaluation: the loss of dev, test and held-out general rows, by source

    def on_validation_epoch_start(self) -> None:
        """Reset the sums. What is scored has been checked."""
        self._check_watched(wait=True)
        self._evaluation_sums = None

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the sums."""
        batch = indexed(batch)
        losses, _ = token_losses(self.model, batch)
        self._evaluation_sums = _added(self._evaluation_sums, sums_by_source(losses, batch))
        self._evaluated = batch.split, batch.names

    def on_validation_epoch_end(self) -> None:
        """Log nats per supervised token of each source."""
        if self._evaluation_sums is not None:
            split, names = self._evaluated
            sums = self._all_reduce(self._evaluation_sums)
            self.log_dict(means(sums, names, log_stage(split)))

    on_test_epoch_start = on_validation_epoch_start
    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end

    # Checkpoints: adapters only

    def adapter_keys(self) -> set[str]:
        """Return the names of the trained parameters, as checkpoints hold them."""
        return {name for name, parameter in self.named_parameters() if parameter.requires_grad}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the sums that are not logged yet. What is saved has been checked."""
        self._check_watched(wait=True)
        sums = self._window_sums
        checkpoint["window_sums"] = None if sums is None else sums.tolist()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the sums that are not logged yet."""
        self.trained_steps = int(checkpoint["global_step"])
        sums = checkpoint.get("window_sums")
        self._window_sums = None if sums is None else torch.tensor(sums, device=self.device)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return only the trained parameters."""
        keys = self.adapter_keys()
        state = super().state_dict(*args, **kwargs)
        return {name: value for name, value in state.items() if name in keys}

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Load adapters.

        Raises:
            AdapterError: The adapters of the checkpoint and of this configuration differ.
        """
        trained = {name: value for name, value in self.named_parameters() if value.requires_grad}
        wanted = {name: list(value.shape) for name, value in trained.items()}
        saved = {name: list(value.shape) for name, value in state_dict.items()}
        names = sorted(wanted.keys() | saved.keys())
        differing = [name for name in names if wanted.get(name) != saved.get(name)]
        if differing:
            name = differing[0]
            raise AdapterError(
                f"checkpoint: must hold the adapters that model.lora describes, got "
                f"{len(differing)} that differ, such as {name} ({saved.get(name, 'none')} instead "
                f"of {wanted.get(name, 'none')}). Use the configuration of the run that wrote it."
            )
        state = {name: shard_like(trained[name], value) for name, value in state_dict.items()}
        super().load_state_dict(state, strict=False, assign=assign)
        return _IncompatibleKeys([], [])  # a checkpoint does not hold the base

    # Private

    def _choose_kernel(self, *, packed: bool) -> None:
        """Choose the kernel of attention, and check that packed examples do not see each other.

        A model whose layers do not learn where examples begin gets masks instead.
        """
        self._kernel_chosen = True
        wanted = self.settings.attn_implementation == "auto"
        if wanted and use_packed_kernel(self.model, self.device.type):
            try:
                check_isolation(self.model)
            except (IsolationError, TypeError):
                use_masks(self.model)
            else:
                return
        if packed:
            check_isolation(self.model)

    def _seed_dropout(self) -> None:
        """Make dropout a function of seed, optimizer step, micro-step and rank."""
        seed = seed_for("dropout", self.seed, self.settings.dropout_seed)
        rank = self.trainer.global_rank
        torch.manual_seed(derive_key(seed, self.trainer.global_step, self._micro_step, rank))

    def _has_fused_step(self, parameters: Sequence[Tensor]) -> bool:
        """Say whether one kernel updates all parameters: on a GPU, without a scaler of float16."""
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        return not scaled and all(parameter.device.type == "cuda" for parameter in parameters)

    def _watch(self, kind: Literal["gradients", "adapters"], step: int, numbers: Tensor) -> None:
        """Check numbers of a step: on a CPU at once, on a GPU when they have arrived."""
        if numbers.device.type != "cuda":
            self._check_finite(kind, step, numbers)
            return
        host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
        host.copy_(numbers, non_blocking=True)
        cuda: Any = torch.cuda
        arrived = cuda.Event()
        arrived.record()
        self._watched.append(Watched(step, kind, host, arrived))

    def _check_watched(self, *, wait: bool) -> None:
        """Check the numbers that have arrived, or wait for all of them."""
        while self._watched and (wait or self._watched[0].arrived.query()):
            step, kind, numbers, arrived = self._watched.popleft()
            arrived.synchronize()
            self._check_finite(kind, step, numbers)

    def _check_finite(self, kind: str, step: int, numbers: Tensor) -> None:
        """Stop a training that is no number."""
        values = numbers.tolist()
        if all(map(isfinite, values)):
            return
        self._watched.clear()
        got = "adapters that are no numbers"
        if kind == "gradients":
            norm = "".join(f" and a gradient norm of {value:g}" for value in values[1:])
            got = f"a summed loss of {values[0]:g}{norm}"
        lr = self.trainer.optimizers[0].param_groups[0]["lr"]
        raise DivergedError(
            f"training: loss, gradients and adapters must stay finite, got {got} at step {step}, "
            f"with a learning rate of {lr:g}. Lower model.optimizer.lr, or set "
            "trainer.gradient_clip_val: 1.0. Checkpoints of earlier steps stay."
        )

    def _all_reduce(self, sums: Tensor) -> Tensor:
        """Sum over the ranks. Lightning's own call begins with a barrier, for which hosts wait."""
        reduced = sums.clone()
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(reduced)
        return reduced

    def _log_window(self, gradient_norm: Tensor) -> None:
        sums, self._window_sums = self._window_sums, None
        assert sums is not None
        # A source without examples since the last log has no loss. Without NaN, Lightning would log
        # its old value again.
        values = {f"train/loss/{name}": nan for name in self._names}
        values |= means(sums, self._names, "train")
        total = sums.sum(0)
        values["train/loss"] = float(total[0] / total[1].clamp(min=1.0))
        for name, row in zip(self._names, sums.tolist(), strict=True):
            values[f"train/examples/{name}"] = row[2]
            values[f"train/label_tokens/{name}"] = row[1]
        values["train/grad_norm"] = float(gradient_norm)
        values["train/lr"] = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.log_dict(values)


def _added(before: Tensor | None, sums: Tensor) -> Tensor:
    return sums if before is None else before + sums


def _with_own_kernel(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
    """Keep the kernel of this device when the state of another one is loaded."""
    own = {"fused": optimizer.defaults["fused"]}
    return {**saved, "param_groups": [{**group, **own} for group in saved["param_groups"]]}


def means(sums: Tensor, names: Sequence[str], stage: str) -> dict[str, float]:
    """Return nats per token by log key, for the sources that have tokens."""
    return {
        f"{stage}/loss/{name}": nats / tokens
        for name, (nats, tokens, _) in zip(names, sums.tolist(), strict=True)
        if tokens
    }
