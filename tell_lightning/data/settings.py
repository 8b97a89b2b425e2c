"""The `data` section of the configuration: plain values, without torch or Lightning."""

from dataclasses import dataclass, field
from typing import Literal

from tell_lightning.data.anchors import Anchor
from tell_lightning.data.reading import Location
from tell_lightning.data.records import Fields
from tell_lightning.data.variants import Variant
from tell_lightning.metrics.settings import Scoring

LEAST: dict[str, float] = {
    "max_tokens": 1,
    "optimizer_batch": 1,
    "micro_batch": 1,
    "num_workers": 0,
    "prefetch_factor": 1,
}
"""The least that a number of the section may be, where a smaller one would fail late."""

Arm = Literal["tell", "sft", "general_only"]
Order = Literal["random", "spread", "general_then_task", "task_then_general", "late_mix"]
Overlong = Literal["error", "drop", "truncate_prompt"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A named low-resource set with its anchor and its metrics."""

    train: Location | None = None
    """Rows to train on: a path below data.root, {path, hub, split, revision}, or a list of rows."""
    dev: Location | None = None
    """Rows to choose the adapter by."""
    dev_from_train: int | None = None
    """In place of dev: so many rows of the training file are set apart, the same for every seed."""
    test: Location | None = None
    """Rows to report the final score on; never dropped, never trained on."""
    fields: Fields = Fields()
    """Which field of a row is what."""
    anchor: Anchor = Anchor()
    """The fixed prompt text on every example of this task."""
    scoring: Scoring = Scoring()
    """How predictions are scored."""
    max_new_tokens: int | None = None
    """Longest answer in tokens; null: a quarter more than the longest known one."""
    min_new_tokens: int = 0
    """Tokens that an answer has before it may end."""
    stop_tokens: tuple[str, ...] = ()
    """What ends an answer beside the end of the turn, such as a line break; each is one token."""
    force_response_prefix: bool = False
    """Whether answers are made to begin with the anchor's response prefix; else it is generated
    like the rest, and how often it is right is reported."""
    overlong: Overlong = "error"
    """What happens to a training example longer than data.max_tokens."""

    def has(self, split: Literal["dev", "test"]) -> bool:
        """Say whether the task is scored on a split."""
        if split == "dev" and self.dev_from_train is not None:
            return True
        return getattr(self, split) is not None


@dataclass(frozen=True, kw_only=True)
class General:
    """A source of general instruction data."""

    train: Location
    """Rows to mix in."""
    held_out: Location | None = None
    """Rows never trained on; their loss is the forgetting guard."""
    fields: Fields = Fields()
    """Which field of a row is what."""
    weight: float | None = None
    """Share of the general slots relative to the other sources; null: its number of rows."""
    overlong: Overlong = "drop"
    """What happens to an example longer than data.max_tokens."""


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """What is trained, and how much of each: resolved into the plan before training."""

    arm: Arm = "tell"
    """tell: task and general rows; sft: task rows alone; general_only: general rows alone."""
    order: Order = "random"
    """How a cycle is mixed; every order has the same counts (`tell_lightning/data/plan.py`)."""
    anchor: Variant = "given"
    """Form of the anchor that task rows carry, in training and in evaluation alike: given, none,
    arbitrary (fixed words without a meaning), random (others for each row), end (behind it)."""
    task_share: float | None = 0.1
    """Task slots over all slots of a cycle, 0 to 1; null: what task_passes comes to."""
    task_share_in: Literal["examples", "tokens"] = "examples"
    """What task_share counts; tokens: by the mean example of each source, prompt and response
    together, so that long task examples bring more general slots with them."""
    task_passes: int | None = None
    """Passes over the task examples in a cycle; null: one. Without task_share, a cycle is one pass
    over the general rows. An order that is not mixed needs as many as the whole run has."""
    cycles: float | None = None
    """Stop after so many cycles; null: after trainer.max_steps. Set trainer.max_steps: null with
    it."""
    task_examples: int | None = None
    """Task examples to draw per task, nested: the first n of one keyed order; null: all."""
    general_repeat: bool = False
    """Whether general rows may be seen again when they run out; else that is an error."""
    draw_seed: int | None = None
    """Seed of the draw of task examples; null: derived from seed_everything."""
    order_seed: int | None = None
    """Seed of the order; null: derived from seed_everything."""


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Everything that decides which tokens are trained, in which order, and what is evaluated."""

    root: str = "."
    """Folder that the paths below start from; 'microworld' is the embedded default, 'testbeds' the
    world of experiments/."""
    tasks: dict[str, Task] = field(default_factory=dict)
    """The low-resource tasks, by name."""
    general: dict[str, General] = field(default_factory=dict)
    """The general sources, by name."""
    mixture: Mixture = Mixture()
    """The plan's proportions."""
    max_tokens: int = 1024
    """Longest training example in tokens, prompt and response together."""
    packing: bool = False
    """Whether examples share bins of max_tokens tokens, each seeing itself alone, instead of being
    padded; optimizer_batch and micro_batch then count bins."""
    optimizer_batch: int = 32
    """Examples (or bins) per optimizer step, over all devices and accumulation steps."""
    micro_batch: int = 16
    """Examples (or bins) per device and forward pass; the accumulation follows."""
    num_workers: int = 0
    """Processes that read rows, beside the training one; the order does not depend on it."""
    prefetch_factor: int | None = None
    """Micro-batches that each of them reads ahead; null: two."""
    multiprocessing_context: Literal["fork", "spawn", "forkserver"] | None = None
    """How they are started; null: as Python does."""
    audit: bool = False
    """Whether the ids that every step trains on are written to audit/ and held against the plan."""
    on_bad_rows: Literal["error", "skip"] = "error"
    """error: the first bad row stops the run; skip: it is counted and listed."""
    max_bad_share: float = 0.001
    """With on_bad_rows: skip, the share of bad rows above which the run stops all the same."""
    cache_dir: str | None = None
    """Where prepared tokens are kept; null: ~/.cache/tell_lightning."""
