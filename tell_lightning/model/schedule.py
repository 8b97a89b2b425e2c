"""The learning rate as a function of the optimizer step."""

import math

from tell_lightning.model.settings import OptimizerSettings


def lr_scale(step: int, total: int, settings: OptimizerSettings) -> float:
    """Return the learning rate at a step, divided by the peak rate.

    Args:
        step: Completed optimizer steps.
        total: Optimizer steps of the whole run.
        settings: Warm-up, shape and final rate.

    >>> lr_scale(0, 100, OptimizerSettings(warmup_share=0.1))
    0.1
    >>> lr_scale(99, 100, OptimizerSettings(schedule="constant"))
    1.0
    """
    warmup = round(total * settings.warmup_share)
    if step < warmup:
        return (step + 1) / warmup
    if settings.schedule == "constant":
        return 1.0
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    fall = progress if settings.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * progress))
    return 1.0 - (1.0 - settings.final_lr_share) * fall
