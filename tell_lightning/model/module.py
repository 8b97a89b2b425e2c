"""`TellModule`: a LoRA-adapted causal LM, its loss and its optimizer.

The loss is the token mean over the whole optimizer batch. A mean per micro-batch, averaged over
accumulation and ranks, would weigh the tokens of short answers too much; so each micro-batch gives
the gradient of a *sum*, and before the step the gradients are divided by the number of supervised
tokens of all micro-batches on all ranks. Loss, tokens and examples are logged per source as sums.
"""

from collections.abc import Callable, Sequence
from math import nan
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from tell_lightning.data.batches import Batch
from tell_lightning.data.permutation import derive_key
from tell_lightning.model.base import load_base
from tell_lightning.model.isolation import check_isolation
from tell_lightning.model.lora import AdapterError, add_adapters, count_parameters
from tell_lightning.model.loss import sums_by_source, token_losses
from tell_lightning.model.schedule import lr_scale
from tell_lightning.model.settings import ModelSettings
from tell_lightning.model.sharding import cut_like, shard, whole

# A power of two, so that scaling by it and back is exact; it keeps the loss near 1.
REFERENCE_TOKENS = 1024.0


class TellModule(pl.LightningModule):
    """Trains adapters on a base model."""

    def __init__(self, **settings: Any) -> None:
        """Take the fields of `ModelSettings`."""
        super().__init__()
        self.settings = ModelSettings(**settings)
        self.strict_loading = False  # checkpoints hold the adapters alone; see load_state_dict
        self.model: Any = None
        self.seed = 0
        self.packed = False
        self._window_before: Tensor | None = None
        self.seen: Callable[[Batch], None] | None = None  # the audit
        self.built: Callable[[Any], None] | None = None  # loads an adapter, before it is cut
        self.source_names: list[str] = []
        self.loss_names: list[str] = []

    def connect(self, *, seed: int, packed: bool = False) -> None:
        """Give what other sections decide.

        Args:
            seed: The run's seed; initialisation and dropout derive theirs from it.
            packed: Whether examples share rows, which not every model can keep apart.
        """
        self.seed = seed
        self.packed = packed

    def configure_model(self) -> None:
        """Load the base and put the adapters on, once, on the device that the strategy chose.

        FSDP2 has a mesh of processes: the model is built on the CPU and moves layer by layer.
        """
        if self.model is not None:
            return
        init_seed = self.settings.init_seed
        seed = derive_key(self.seed, "init") if init_seed is None else init_seed
        mesh = self.device_mesh
        base = load_base(self.settings, mesh.device_type if mesh else None)
        self.model = add_adapters(base, self.settings.lora, seed=seed)
        if self.settings.activation_checkpointing:
            base = self.model.get_base_model()
            enable = getattr(base, "activation_checkpointing_enable", None)  # 5.23 renames it
            (enable or base.gradient_checkpointing_enable)({"use_reentrant": False})
        # `from_pretrained` gives eval mode, in which checkpointing and dropout are silently off.
        self.model.train()
        self.parameter_count = count_parameters(self.model)
        if self.built is not None:
            self.built(self.model)
        if mesh is not None:
            shard(self.model, mesh["data_parallel"])

    def setup(self, stage: str) -> None:
        """Learn the names of the sources from the data module."""
        datamodule: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        self.source_names = [source.name for source in datamodule.plan.sources]
        self.loss_names = datamodule.loss_names

    # Training

    def on_fit_start(self) -> None:
        """Start the sums of the optimizer step and of the logging window.

        Raises:
            IsolationError: Examples are packed, and the model lets them see each other.
        """
        assert self.model.training
        if self.packed:
            check_isolation(self.model)
        self._step_sums = torch.zeros(len(self.source_names), 3, device=self.device)
        before = self._window_before
        self._window_sums = torch.zeros_like(self._step_sums) if before is None else before
        self._micro_step = 0

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the summed loss of a micro-batch, scaled so that values stay near 1."""
        if self.seen is not None:
            self.seen(batch)
        self._seed_dropout()
        losses, examples = token_losses(self.model, batch)
        self._step_sums += sums_by_source(losses, examples, batch.sources, len(self.source_names))
        self._micro_step += 1
        # Lightning divides by accumulate_grad_batches; on_before_optimizer_step by the tokens.
        return losses.sum() * (self.trainer.accumulate_grad_batches / REFERENCE_TOKENS)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Turn summed gradients into those of the token mean; clipping comes after this."""
        sums = self._all_reduce(self._step_sums)
        world = self.trainer.world_size  # DDP and FSDP2 have averaged over the ranks
        scale = REFERENCE_TOKENS * world / sums[:, 1].sum().clamp(min=1.0)
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        torch._foreach_mul_(gradients, scale)
        self._window_sums += sums
        self._step_sums.zero_()
        self._micro_step = 0
        trainer: Any = self.trainer
        if (trainer.global_step + 1) % trainer.log_every_n_steps == 0:
            self._log_window(whole(torch.nn.utils.get_total_norm(gradients)))

    def configure_optimizers(self) -> Any:
        """AdamW over the trained parameters, with warm-up and decay by optimizer step."""
        settings = self.settings.optimizer
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(
            trained, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay
        )
        total = self.trainer.max_steps
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: lr_scale(step, total, settings)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    # Evaluation: the loss of dev, test and held-out general rows, by source

    def on_validation_epoch_start(self) -> None:
        """Start the sums."""
        self._evaluation_sums = torch.zeros(len(self.loss_names), 3, device=self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the sums."""
        losses, examples = token_losses(self.model, batch)
        self._evaluation_sums += sums_by_source(
            losses, examples, batch.sources, len(self.loss_names)
        )

    def on_validation_epoch_end(self) -> None:
        """Log nats per supervised token of each source."""
        self._log_evaluation("val")

    on_test_epoch_start = on_validation_epoch_start
    test_step = validation_step

    def on_test_epoch_end(self) -> None:
        """Log nats per supervised token of each source."""
        datamodule: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        self._log_evaluation(datamodule.test_split)

    # Checkpoints: adapters only

    def adapter_keys(self) -> set[str]:
        """Return the names of the trained parameters, as checkpoints hold them."""
        return {name for name, parameter in self.named_parameters() if parameter.requires_grad}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the sums that are not logged yet."""
        checkpoint["window_sums"] = self._window_sums.tolist()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with these sums."""
        self._window_before = torch.tensor(checkpoint["window_sums"], device=self.device)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return the trained parameters alone."""
        keys = self.adapter_keys()
        state = super().state_dict(*args, **kwargs)
        return {name: value for name, value in state.items() if name in keys}

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Load adapters.

        Raises:
            AdapterError: The checkpoint holds other adapters than this configuration makes.
        """
        trained = {name: value for name, value in self.named_parameters() if value.requires_grad}
        wanted = {name: list(value.shape) for name, value in trained.items()}
        found = {name: list(value.shape) for name, value in state_dict.items()}
        names = sorted(wanted.keys() | found.keys())
        differing = [name for name in names if wanted.get(name) != found.get(name)]
        if differing:
            name = differing[0]
            raise AdapterError(
                f"checkpoint: must hold the adapters that model.lora describes, got "
                f"{len(differing)} that differ, such as {name} ({found.get(name, 'none')} instead "
                f"of {wanted.get(name, 'none')}). Use the configuration of the run that wrote it."
            )
        state = {name: cut_like(trained[name], value) for name, value in state_dict.items()}
        return super().load_state_dict(state, strict=False, assign=assign)

    # Private

    def _seed_dropout(self) -> None:
        """Make dropout a function of seed, optimizer step, micro-step and rank."""
        seed = self.settings.dropout_seed
        seed = derive_key(self.seed, "dropout") if seed is None else seed
        rank = self.trainer.global_rank
        torch.manual_seed(derive_key(seed, self.trainer.global_step, self._micro_step, rank))

    def _all_reduce(self, sums: Tensor) -> Tensor:
        reduced = self.trainer.strategy.reduce(sums.clone(), reduce_op="sum")
        assert isinstance(reduced, Tensor)
        return reduced

    def _log_window(self, gradient_norm: Tensor) -> None:
        sums, self._window_sums = self._window_sums, torch.zeros_like(self._window_sums)
        # A source that the window has not seen has no loss; without a value of its own Lightning
        # would log the last one again.
        values = {f"train/loss/{name}": nan for name in self.source_names}
        values |= means(sums, self.source_names, "train")
        total = sums.sum(0)
        values["train/loss"] = float(total[0] / total[1].clamp(min=1.0))
        for name, row in zip(self.source_names, sums.tolist(), strict=True):
            values[f"train/examples/{name}"] = row[2]
            values[f"train/label_tokens/{name}"] = row[1]
        values["train/grad_norm"] = float(gradient_norm)
        values["train/lr"] = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.log_dict(values)

    def _log_evaluation(self, stage: str) -> None:
        sums = self._all_reduce(self._evaluation_sums)
        self.log_dict(means(sums, self.loss_names, stage))


def means(sums: Tensor, names: Sequence[str], stage: str) -> dict[str, float]:
    """Return nats per token by log key, for the sources that were seen."""
    return {
        f"{stage}/loss/{name}": nats / tokens
        for name, (nats, tokens, _) in zip(names, sums.tolist(), strict=True)
        if tokens
    }
