"""How the slots of a cycle are ordered: a bijection of 0..L-1, position in the cycle -> slot.

The first T slots are the task's, the other M = L - T general ones. Every order has the same counts;
within the task's and within the general slots the sequence is always a keyed permutation.

    random             g g T g g g g T g g      uniform over all orders
    spread             g T g g g g g T g g      one task slot somewhere in each of T equal stretches
    general_then_task  g g g g g g g g T T
    task_then_general  T T g g g g g g g g
    late_mix           g g g g g g T g T g      half of the general slots alone, then random
"""

import numpy as np
from numpy.typing import NDArray

from tell_lightning.data.permutation import Indices, derive_key, offsets, permute
from tell_lightning.data.settings import Order

Flags = NDArray[np.bool_]


def mix(within: Indices, task: int, total: int, order: Order, key: int) -> Indices:
    """Map positions of a cycle to slots.

    Args:
        within: Positions in the cycle, 0..total-1.
        task: Task slots T of the cycle.
        total: All slots L of the cycle.
        order: Which order.
        key: 64-bit key of this cycle.

    Returns:
        Slots 0..total-1; those below `task` are the task's.
    """
    general = total - task
    if order == "random" or not task or not general:
        return permute(within, total, key)
    if order == "spread":
        is_task, nth = _spread(within, task, total, key)
    elif order == "general_then_task":
        is_task = within >= general
        nth = np.where(is_task, within - general, within)
    elif order == "task_then_general":
        is_task = within < task
        nth = np.where(is_task, within, within - task)
    else:
        is_task, nth = _late(within, task, total, key)
    slots = np.empty_like(within)
    slots[is_task] = permute(nth[is_task], task, derive_key(key, "task"))
    slots[~is_task] = task + permute(nth[~is_task], general, derive_key(key, "general"))
    return slots


def _spread(within: Indices, task: int, total: int, key: int) -> tuple[Flags, Indices]:
    """Say which positions hold a task slot, and the how manieth of its kind each position is."""
    stretch = ((within + 1) * task - 1) // total
    first = stretch * total // task
    width = (stretch + 1) * total // task - first
    chosen = first + offsets(stretch, width, derive_key(key, "spread"))
    is_task = within == chosen
    tasks_before = stretch + (within > chosen)
    return is_task, np.where(is_task, stretch, within - tasks_before)


def _late(within: Indices, task: int, total: int, key: int) -> tuple[Flags, Indices]:
    """As `_spread`, for general slots alone first and a random mixture behind them."""
    alone = (total - task) // 2
    mixed = within >= alone
    nth = within.copy()
    nth[mixed] = permute(within[mixed] - alone, total - alone, derive_key(key, "late"))
    is_task = mixed & (nth < task)
    nth[mixed & ~is_task] += alone - task
    return is_task, nth
