"""The `data` section of the configuration: plain values, without torch or Lightning."""

from dataclasses import dataclass, field
from typing import Literal

from tell_lightning.data.anchors import Anchor
from tell_lightning.data.reading import Location
from tell_lightning.data.records import Fields
from tell_lightning.data.variants import Variant
from tell_lightning.metrics.settings import Scoring
from tell_lightning.settings import ConfigError, Range

RANGES = {
    "max_tokens": Range(1),
    "optimizer_batch": Range(1),
    "micro_batch": Range(1),
    "num_workers": Range(0),
    "prefetch_factor": Range(1),
    "max_bad_share": Range(0, 1),
    "tasks.*.dev_from_train": Range(1),
    "tasks.*.max_new_tokens": Range(1),
    "tasks.*.min_new_tokens": Range(0),
    "general.*.generate": Range(1),
    "general.*.weight": Range(above=0),
    "mixture.task_share": Range(0, 1),
    "mixture.task_passes": Range(1),
    "mixture.cycles": Range(above=0),
}
"""The numbers that each key may have."""

Arm = Literal["tell", "sft", "general_only"]
Order = Literal["random", "spread", "general_then_task", "task_then_general", "late_mix"]
Thinking = Literal["strip", "keep"]
Overlong = Literal["error", "drop", "truncate_prompt"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A named low-resource set with its anchor and its metrics."""

    train: Location | None = None
    """Rows to train on: a path below data.root, {path, hub, split, revision}, or a list of rows."""
    dev: Location | None = None
    """Rows to choose the adapter by."""
    dev_from_train: int | None = None
    """Instead of dev: how many training rows become dev rows, the same ones for every seed."""
    test: Location | None = None
    """Rows for the final score; never dropped, never trained on."""
    fields: Fields = Fields()
    """The names of the fields of a row."""
    anchor: Anchor = Anchor()
    """The fixed prompt text on every example of this task."""
    scoring: Scoring = Scoring()
    """How predictions are scored."""
    max_new_tokens: int | None = None
    """Longest answer in tokens; null: a quarter more than the longest known answer."""
    min_new_tokens: int = 0
    """Least number of tokens of an answer."""
    stop_tokens: tuple[str, ...] = ()
    """Texts that end an answer besides the end of the turn, such as a line break; each must be one
    token."""
    force_response_prefix: bool = False
    """Whether answers are forced to begin with the anchor's response prefix. If not, the prefix is
    generated like the rest, and how often it is right is reported."""
    overlong: Overlong = "error"
    """What happens to a training example longer than data.max_tokens."""
    license: str | None = None
    """Licence of the rows, such as cc-by-4.0: the model card of an export names it."""

    def has(self, split: Literal["dev", "test"]) -> bool:
        """Say whether the task is scored on a split."""
        return getattr(self, split) is not None or (
            split == "dev" and self.dev_from_train is not None
        )


@dataclass(frozen=True, kw_only=True)
class General:
    """A source of general instruction data."""

    train: Location | None = None
    """Rows to mix in."""
    generate: int | None = None
    """Instead of train: how many rows the base writes itself, a chat model: instructions, and its
    answers to them. They are kept in the cache. Without held_out a twentieth of them, at least 20,
    is held out."""
    closings: tuple[str, ...] = ()
    """With generate: texts that end the prompts in turn, after an empty line, such as Answer in one
    or two sentences. An empty one adds nothing. Short answers are sooner written and trained."""
    held_out: Location | None = None
    """Rows never trained on; the loss of the first 500 shows what the model forgets."""
    fields: Fields = Fields()
    """The names of the fields of a row."""
    weight: float | None = None
    """Share of the general slots, relative to the other sources; null: the number of rows."""
    overlong: Overlong = "drop"
    """What happens to an example longer than data.max_tokens."""
    license: str | None = None
    """Licence of the rows, such as cc-by-4.0: the model card of an export names it."""


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """What is trained on, and how much of each; the plan is made from it before training."""

    arm: Arm = "tell"
    """tell: task and general rows; sft: task rows alone; general_only: general rows alone."""
    order: Order = "random"
    """How a cycle is mixed; every order has the same counts (`tell_lightning/data/orders.py`)."""
    anchor: Variant = "given"
    """The anchor of task rows, in training and evaluation: given, none, arbitrary (fixed words
    without a meaning), random (other such words for each row), end (given, after the prompt)."""
    task_share: float | None = 0.2
    """Task slots over all slots of a cycle, 0 to 1; null: it follows from task_passes."""
    task_share_in: Literal["examples", "tokens"] = "examples"
    """Whether task_share counts examples or tokens, prompt and response together. With tokens, long
    task examples bring more general slots."""
    task_passes: int | None = None
    """Passes over the task examples in a cycle; null: one. If task_share is null, a cycle is one
    pass over the general rows. An order that is not mixed needs all passes in one cycle."""
    cycles: float | None = None
    """Length of the run in cycles; then set trainer.max_steps: null. null: the run ends after
    trainer.max_steps. If that is not set either: after ten passes over the task examples, at least
    150 and at most 500 steps (`tell_lightning/data/length.py`)."""
    task_examples: int | None = None
    """Examples drawn of each task; null: all. A smaller draw is part of a larger one."""
    general_repeat: bool = False
    """Whether general rows may be seen again when they run out; if not, that is an error."""
    draw_seed: int | None = None
    """Seed of the draw of task examples; null: derived from seed_everything."""
    order_seed: int | None = None
    """Seed of the order; null: derived from seed_everything."""


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which tokens are trained on, in which order, and what is evaluated."""

    root: str = "."
    """Folder that the paths below start from; a relative one lies beside the file that names it.
    'microworld': the data of the demo; 'testbeds': those of experiments/."""
    tasks: dict[str, Task] = field(default_factory=dict)
    """The low-resource tasks, by name."""
    general: dict[str, General] = field(default_factory=dict)
    """The general sources, by name."""
    mixture: Mixture = Mixture()
    """The plan's proportions."""
    max_tokens: int = 1024
    """Longest training example in tokens, prompt and response together."""
    thinking: Thinking = "strip"
    """The text between <think> and </think> in responses, where the chat template knows thinking.
    strip: it is left out, and answers are asked for without it; keep: it is trained, and answers
    may think. It is never scored."""
    packing: bool = False
    """Whether examples share bins of max_tokens tokens instead of being padded. An example attends
    only to itself; optimizer_batch and micro_batch then count bins."""
    optimizer_batch: int = 16
    """Examples (or bins) per optimizer step, over all devices and accumulation steps."""
    micro_batch: int | Literal["auto"] = 8
    """Examples (or bins) per device and forward pass; the accumulation steps follow from it. auto:
    the largest that fits, found by trying the longest rows before training; on a CPU at most 16, in
    half of the available memory. The order is the same for all; rounding is not."""
    num_workers: int = 0
    """Worker processes that read rows; the order does not depend on their number."""
    prefetch_factor: int | None = None
    """Micro-batches that each worker reads ahead; null: two."""
    multiprocessing_context: Literal["fork", "spawn", "forkserver"] | None = None
    """How workers are started; null: Python's default."""
    audit: bool = False
    """Whether the ids of every step are written to audit/ and compared with the plan."""
    on_bad_rows: Literal["error", "skip"] = "error"
    """error: the first bad row stops the run; skip: bad rows are left out, counted and listed."""
    max_bad_share: float = 0.001
    """With on_bad_rows: skip, the largest share of bad rows, rounded up to whole rows; above it the
    run stops."""
    cache_dir: str | None = None
    """Where prepared tokens are kept; null: ~/.cache/tell_lightning."""


def check_batches(optimizer_batch: int, micro_batch: int | str, devices: int) -> None:
    """Check that an optimizer batch can be divided over devices and forward passes.

    Where the micro-batch is `auto`, devices alone count.

    Raises:
        ConfigError: It is not a multiple of micro-batch times devices.
    """
    if isinstance(micro_batch, str):
        micro_batch = 1
    step = micro_batch * devices
    if optimizer_batch % step:
        raise ConfigError(
            f"data.optimizer_batch: must be a multiple of data.micro_batch {micro_batch} times "
            f"{devices} device(s), got {optimizer_batch}. Try data.optimizer_batch: "
            f"{-(-optimizer_batch // step) * step} with data.micro_batch: {micro_batch}."
        )
