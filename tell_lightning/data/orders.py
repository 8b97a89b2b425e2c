"""The orders of a cycle: bijections of 0..L-1 from positions in the cycle to slots.

The first T slots are task slots, the other M = L - T are general slots. All orders have the same
counts. Task slots among themselves, and general slots among themselves, are always permuted by key.

    random             g g T g g g g T g g      uniform over all orders
    spread             g T g g g g g T g g      one task slot somewhere in each of T equal stretches
    general_then_task  g g g g g g g g T T
    task_then_general  T T g g g g g g g g
    late_mix           g g g g g g T g T g      half of the general slots alone, the rest random
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
        order: Name of the order.
        key: 64-bit key of this cycle.

    Returns:
        Slots 0..total-1; slots below `task` are task slots.
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
    """Return which positions hold task slots, and the index of each position among its kind."""
    stretch = ((within + 1) * task - 1) // total
    first = stretch * total // task
    width = (stretch + 1) * total // task - first
    chosen = first + offsets(stretch, width, derive_key(key, "spread"))
    is_task = within == chosen
    tasks_before = stretch + (within > chosen)
    return is_task, np.where(is_task, stretch, within - tasks_before)


def _late(within: Indices, task: int, total: int, key: int) -> tuple[Flags, Indices]:
    """Return the same as `_spread` for `late_mix`."""
    alone = (total - task) // 2
    mixed = within >= alone
    nth = within.copy()
    nth[mixed] = permute(within[mixed] - alone, total - alone, derive_key(key, "late"))
    is_task = mixed & (nth < task)
    nth[mixed & ~is_task] += alone - task
    return is_task, nth
