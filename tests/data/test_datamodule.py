"""The data module: prepares once, resumes exactly, and refuses what would change the order."""

import json
from collections.abc import Callable
from dataclasses import fields
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from messages import says
from tiny_tokenizers import chat_template

from tell_lightning.callbacks.resume import Resume
from tell_lightning.data.anchors import Anchor
from tell_lightning.data.batches import IGNORE, Batch
from tell_lightning.data.datamodule import StreamError, TellDataModule
from tell_lightning.data.formats import RecordError
from tell_lightning.data.plan import PlanError
from tell_lightning.data.records import Fields
from tell_lightning.data.settings import DataSettings, General, Mixture, Task
from tell_lightning.data.splits import SplitError
from tell_lightning.data.tokens import TokenError
from tell_lightning.settings import ConfigError

Make = Callable[[str | None], Any]

ANCHOR = Anchor(text="Translate this.", response_prefix="Here it is: ")


def pairs(letter: str, count: int) -> list[dict[str, str]]:
    return [{"prompt": f"{letter}{n}", "response": "x" * (n % 7 + 1)} for n in range(count)]


class Files:
    """Small data files that can be changed in place."""

    def __init__(self, folder: Path, write: Callable[..., Path]) -> None:
        self.folder, self.write = folder, write
        for name, count in {"t": 12, "d": 3, "e": 4, "g": 60, "h": 2, "more": 30}.items():
            self.put(name, pairs(name, count))

    def put(self, name: str, rows: list[dict[str, str]]) -> None:
        self.write(*rows, name=f"{name}.jsonl")

    def settings(self, **changes: Any) -> dict[str, Any]:
        task = Task(train="t.jsonl", dev="d.jsonl", test="e.jsonl", anchor=ANCHOR)
        return {
            "root": str(self.folder),
            "cache_dir": str(self.folder / "cache"),
            "tasks": {"t": task},
            "general": {"g": General(train="g.jsonl", held_out="h.jsonl")},
            "mixture": Mixture(task_share=0.25, task_examples=4),
            "optimizer_batch": 8,
            "micro_batch": 4,
            **changes,
        }


@pytest.fixture
def files(tmp_path: Path, jsonl: Callable[..., Path]) -> Files:
    return Files(tmp_path, jsonl)


@pytest.fixture(scope="session")
def tokenizer(make_tokenizer: Make) -> Any:
    return make_tokenizer(None)


@pytest.fixture
def ready(files: Files, tokenizer: Any) -> Callable[..., TellDataModule]:
    """Return a function that prepares and sets up a data module."""

    def make(*, seed: int = 1, tokenizer: Any = tokenizer, **changes: Any) -> TellDataModule:
        datamodule = TellDataModule(**files.settings(**changes), tokenizer=tokenizer, seed=seed)
        datamodule.prepare_data()
        datamodule.setup()
        return datamodule

    return make


Ready = Callable[..., TellDataModule]


class FakeTrainer(SimpleNamespace):
    """As much of a Trainer as the data module looks at."""

    @property
    def max_steps(self) -> int:
        """As Lightning has it."""
        steps: int = self.fit_loop.epoch_loop.max_steps
        return steps


def place(
    datamodule: TellDataModule, world: int = 1, rank: int = 0, max_steps: int = 5, **more: Any
) -> TellDataModule:
    """Set a data module up for training as a Trainer does."""
    numbers = {
        "global_step": 0,
        "current_epoch": 0,
        "max_epochs": -1,
        "accumulate_grad_batches": 1,
        "overfit_batches": 0.0,
        "limit_train_batches": 1.0,
        "fast_dev_run": False,
        **more,
    }
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(max_steps=max_steps))
    trainer: Any = FakeTrainer(world_size=world, global_rank=rank, fit_loop=loop, **numbers)
    datamodule.trainer = trainer
    datamodule.setup("fit")
    return datamodule


# Preparing


def folders(files: Files) -> set[str]:
    return {path.name for path in (files.folder / "cache").iterdir()}


def test_sources_are_prepared_once_with_their_counts(ready: Ready, files: Files) -> None:
    datamodule = ready()
    first = folders(files)
    assert len(first) == 2
    assert datamodule.prepared.source_reports["g"]["counts"] == {
        **{"read": 60, "bad": 0, "leaks": 0},
        **{"overlong": 0, "truncated": 0, "kept": 60},
    }
    ready()
    assert folders(files) == first


def test_over_long_and_leaked_rows_are_counted(ready: Ready, files: Files) -> None:
    long = {"prompt": "z" * 300, "response": "y"}
    files.put("g", [*pairs("g", 50), *pairs("e", 2), long])
    report = ready(max_tokens=200).prepared.source_reports["g"]
    assert report["counts"] == {
        **{"read": 53, "bad": 0, "leaks": 2},
        **{"overlong": 1, "truncated": 0, "kept": 50},
    }
    assert [note.partition("jsonl:")[2].partition(":")[0] for note in report["left_out"]] == [
        *("51", "52", "53")
    ]
    with pytest.raises(TokenError, match=r"must fit data\.max_tokens 40, .* data\.tasks\.t\.overl"):
        ready(max_tokens=40)


def test_a_file_edited_in_place_is_prepared_anew(ready: Ready, files: Files) -> None:
    before = ready()
    old = folders(files)
    files.put("t", pairs("u", 12))
    after = ready()
    assert len(folders(files) - old) == 2  # the general rows are compared with it
    assert after.prepared.digest != before.prepared.digest
    assert "u" in before.prepared.encoder.tokenizer.decode(after.prepared.rows[0][0]["input_ids"])


@pytest.mark.parametrize("name", ["t", "d", "e", "h"])
def test_general_rows_are_prepared_anew_when_another_file_takes_one(
    name: str, ready: Ready, files: Files
) -> None:
    ready()
    files.put(name, [*pairs(name, 12), {"prompt": "g7", "response": "r"}])
    report = ready().prepared.source_reports["g"]
    assert report["counts"]["leaks"] == 1
    assert report["counts"]["kept"] == 59


def test_general_rows_are_prepared_anew_when_the_fields_of_a_task_change(
    ready: Ready, files: Files
) -> None:
    """The same bytes, read as another prompt, protect other rows."""
    rows = [{**row, "other": f"g{n}"} for n, row in enumerate(pairs("t", 12))]
    files.put("t", rows)
    assert ready().prepared.source_reports["g"]["counts"]["leaks"] == 0
    task = Task(train="t.jsonl", fields=Fields(prompt="other"), anchor=ANCHOR)
    assert ready(tasks={"t": task}).prepared.source_reports["g"]["counts"]["leaks"] == 12


def test_the_plan_counts_the_rows_that_are_left(ready: Ready, files: Files) -> None:
    datamodule = ready()
    assert [(s.name, s.kind, s.rows, s.slots) for s in datamodule.plan.sources] == [
        ("t", "task", 4, 4),
        ("g", "general", 60, 12),
    ]
    assert [len(rows) for rows in datamodule.prepared.rows] == [4, 60]
    more = ready(mixture=Mixture(task_share=0.25, task_examples=6))
    assert more.prepared.drawn_ids["t"][:4] == datamodule.prepared.drawn_ids["t"]  # nested
    all_of_them = ready(mixture=Mixture(task_share=0.25))
    assert len(set(all_of_them.prepared.drawn_ids["t"])) == 12


def test_seeds_of_draw_and_order_can_be_set_alone(ready: Ready) -> None:
    def of(seed: int, **seeds: Any) -> tuple[list[str], list[tuple[int, int, int]]]:
        mixture = Mixture(task_share=0.25, task_examples=4, **seeds)
        datamodule = ready(seed=seed, mixture=mixture)
        return datamodule.prepared.drawn_ids["t"], list(datamodule.plan.at(range(16)))

    drawn, order = of(1)
    assert of(1) == (drawn, order)
    other_drawn, other_order = of(2)
    assert other_drawn != drawn
    assert other_order != order
    assert of(1, draw_seed=5)[1] == order
    assert of(1, order_seed=5)[0] == drawn
    assert of(1, draw_seed=5, order_seed=5) == of(2, draw_seed=5, order_seed=5)


def test_arms_train_what_they_say(ready: Ready) -> None:
    def names(arm: Any) -> list[str]:
        plan = ready(mixture=Mixture(arm=arm, task_examples=4)).plan
        return [source.name for source in plan.sources]

    assert names("tell") == ["t", "g"]
    assert names("sft") == ["t"]
    assert names("general_only") == ["g"]


def test_without_the_anchor_it_is_nowhere(ready: Ready) -> None:
    for anchored in (True, False):
        datamodule = ready(mixture=Mixture(task_share=0.25, anchor="given" if anchored else "none"))
        ids = [
            *datamodule.prepared.rows[0]["input_ids"],
            *datamodule.evaluation["test"]["t"].prompts,
        ]
        texts = [datamodule.prepared.encoder.tokenizer.decode(one) for one in ids]
        assert len(texts) == 12 + 4
        assert {"Translate this." in text for text in texts} == {anchored}
        prefix = datamodule.evaluation["test"]["t"].response_prefix
        assert prefix == ("Here it is: " if anchored else "")


def test_evaluation_rows_are_the_file_in_order(ready: Ready) -> None:
    datamodule = ready()
    test = datamodule.evaluation["test"]["t"]
    assert test.references == ("x", "xx", "xxx", "xxxx")
    assert [record.turns[0].content for record in test.records] == ["e0", "e1", "e2", "e3"]
    assert [list(ids) for ids in test.prompts] == datamodule.prepared.encoder.prompt_ids(
        test.examples
    )
    longest = len("Here it is: ") + 7
    assert test.max_new_tokens == int(longest * 1.25) + 8
    assert len(datamodule.evaluation["dev"]["t"]) == 3


def test_the_plan_as_saved_is_json_and_adds_up(ready: Ready) -> None:
    datamodule = ready()
    described = json.loads(json.dumps(datamodule.prepared.describe(5)))
    assert described["digest"] == datamodule.prepared.digest == ready().prepared.digest
    assert described["cycle"] == 16
    assert described["optimizer_batch"] == 8
    realised = described["realised"]["sources"]
    assert sum(values["examples"] for values in realised.values()) == 40
    slots = list(datamodule.plan.at(range(40)))
    rows = [datamodule.prepared.rows[source][row] for _, source, row in slots]
    assert sum(v["tokens"] for v in realised.values()) == sum(len(r["input_ids"]) for r in rows)
    assert sum(v["label_tokens"] for v in realised.values()) == sum(
        sum(row["supervised"]) for row in rows
    )
    assert described["task_examples"] == {"t": datamodule.prepared.drawn_ids["t"]}
    assert described["inputs"]["t"]["counts"]["kept"] == 12


# Batches and ranks


@pytest.mark.parametrize(
    ("batch", "micro", "world", "passes"), [(8, 4, 1, 2), (8, 4, 2, 1), (8, 1, 4, 2), (6, 2, 3, 1)]
)
def test_accumulation_follows(
    batch: int, micro: int, world: int, passes: int, files: Files, tokenizer: Any
) -> None:
    settings = files.settings(optimizer_batch=batch, micro_batch=micro)
    assert TellDataModule(**settings, tokenizer=tokenizer).accumulation(world) == passes


@pytest.mark.parametrize(
    ("batch", "micro", "world", "way_out"),
    [
        (8, 3, 1, (9, 3)),
        (10, 4, 4, (16, 4)),
        (4, 8, 1, (8, 8)),
    ],
)
def test_an_optimizer_batch_that_cannot_be_split_is_refused(
    batch: int, micro: int, world: int, way_out: tuple[int, int], files: Files, tokenizer: Any
) -> None:
    settings = files.settings(optimizer_batch=batch, micro_batch=micro)
    with pytest.raises(ConfigError) as caught:
        TellDataModule(**settings, tokenizer=tokenizer).accumulation(world)
    assert str(caught.value) == says(
        "data.optimizer_batch",
        rule=[f"data.micro_batch {micro}", f"{world} device"],
        got=f"{batch}",
        cure=[f"data.optimizer_batch: {way_out[0]}", f"data.micro_batch: {way_out[1]}"],
    )
    changed = files.settings(optimizer_batch=way_out[0], micro_batch=way_out[1])
    made = TellDataModule(**changed, tokenizer=tokenizer)
    assert made.accumulation(world) >= 1  # the advice helps


@pytest.mark.parametrize("name", ["optimizer_batch", "micro_batch", "max_tokens"])
def test_numbers_that_must_be_at_least_one_are_named(
    name: str, files: Files, tokenizer: Any
) -> None:
    with pytest.raises(ConfigError, match=rf"^data\.{name}: must be at least 1, got 0\."):
        TellDataModule(**files.settings(**{name: 0}), tokenizer=tokenizer)


@pytest.mark.parametrize("world", [1, 2])
def test_the_training_stream_covers_the_run(world: int, ready: Ready) -> None:
    loaders = [place(ready(), world, rank).train_dataloader() for rank in range(world)]
    assert [len(loader) for loader in loaders] == [5 * 8 // 4 // world] * world
    positions = [int(p) for loader in loaders for batch in loader for p in batch.positions]
    assert sorted(positions) == list(range(40))


def test_a_run_longer_than_the_general_rows_is_refused(ready: Ready) -> None:
    with pytest.raises(PlanError, match=r"^data\.general\.g: 88 training examples"):
        place(ready(), max_steps=11)
    again = Mixture(task_share=0.25, task_examples=4, general_repeat=True)
    assert len(place(ready(mixture=again), max_steps=11).train_dataloader()) == 22


@pytest.mark.parametrize("world", [1, 2, 4, 8])
@pytest.mark.parametrize("split", ["dev", "test"])
def test_the_ranks_watch_the_loss_of_every_row_once(world: int, split: str, ready: Ready) -> None:
    datamodule = ready()
    seen: list[tuple[str, tuple[int, ...]]] = []
    counts = set()
    for rank in range(world):
        datamodule.trainer = FakeTrainer(world_size=world, global_rank=rank)  # type: ignore[assignment]
        loader = datamodule.val_dataloader() if split == "dev" else datamodule.test_dataloader()
        batches: list[Batch] = list(loader)
        counts.add(len(batches))
        for batch in batches:
            for ids, examples, labels, source in zip(
                batch.input_ids, batch.examples, batch.labels, batch.sources, strict=True
            ):
                if (labels != IGNORE).any():
                    name = batch.names[int(source)]
                    seen.append((name, tuple(ids[examples >= 0].tolist())))
    wanted = [(name, tuple(row.input_ids)) for name, row in datamodule.prepared.loss_rows[split]]
    assert sorted(seen) == sorted(wanted)
    assert len(wanted) == {"dev": 3, "test": 4}[split] + 2
    (count,) = counts  # a rank with fewer would leave the others waiting
    assert count


def test_nothing_to_watch_is_one_row_without_weight(ready: Ready) -> None:
    bare = {"t": Task(train="t.jsonl")}
    datamodule = place(ready(tasks=bare, general={"g": General(train="g.jsonl")}))
    (batch,) = datamodule.val_dataloader()
    assert (batch.labels == IGNORE).all()


# State


def test_the_state_is_what_completed_steps_have_consumed(ready: Ready) -> None:
    state = place(ready(), global_step=3).state_dict()
    assert (state["unit"], state["consumed"]) == ("examples", 24)
    assert {type(value) for value in state.values()} == {int, str}  # loads with weights_only
    resumed = place(ready(), global_step=3)
    resumed.load_state_dict(state)
    positions = [int(p) for batch in resumed.train_dataloader() for p in batch.positions]
    assert positions == list(range(24, 40))
    assert len(resumed.train_dataloader()) == 10


def test_micro_batch_and_workers_may_change_on_resume(ready: Ready) -> None:
    state = place(ready(), global_step=2).state_dict()
    resumed = place(ready(micro_batch=2, num_workers=1), world=2, rank=1, global_step=2)
    resumed.load_state_dict(state)
    positions = [int(p) for batch in resumed.train_dataloader() for p in batch.positions]
    assert positions == list(range(17, 40, 2))


def test_the_trainers_accumulation_decides_the_micro_batch(ready: Ready) -> None:
    datamodule = place(ready(micro_batch=4), accumulate_grad_batches=4)
    assert [len(batch.sources) for batch in datamodule.train_dataloader()] == [2] * 20
    with pytest.raises(
        StreamError, match=r"^accumulate_grad_batches: must divide optimizer_batch 8 .* got 3\."
    ):
        place(ready(), accumulate_grad_batches=3)


SEED = "the seed (seed_everything or data.mixture.order_seed)"
DRAWN = "the task examples drawn (data.mixture.task_examples or draw_seed)"
CHANGES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "seed": ({"seed": 2}, [SEED, DRAWN]),
    "order_seed": ({"mixture": Mixture(task_share=0.25, task_examples=4, order_seed=9)}, [SEED]),
    "draw_seed": ({"mixture": Mixture(task_share=0.25, task_examples=4, draw_seed=9)}, [DRAWN]),
    "order": (
        {"mixture": Mixture(task_share=0.25, task_examples=4, order="spread")},
        ["data.mixture.order"],
    ),
    "task_share": ({"mixture": Mixture(task_share=0.5, task_examples=4)}, ["data.mixture"]),
    "arm": ({"mixture": Mixture(arm="sft", task_examples=4)}, ["data.mixture"]),
    "anchored": (
        {"mixture": Mixture(task_share=0.25, task_examples=4, anchor="none")},
        ["data.mixture.anchor"],
    ),
    "cycles": (
        {"mixture": Mixture(task_share=0.25, task_examples=4, cycles=2)},
        ["data.mixture.cycles"],
    ),
    "optimizer_batch": ({"optimizer_batch": 16}, ["data.optimizer_batch"]),
    "packing": (
        {
            "packing": True,
            "mixture": Mixture(task_share=0.25, task_examples=4, general_repeat=True),
        },
        ["data.packing"],
    ),
    "source": (
        {"general": {name: General(train=f"{name}.jsonl") for name in ("g", "more")}},
        ["data.general.more"],
    ),
    "max_tokens": ({"max_tokens": 900}, ["data.max_tokens"]),
}


def refused(resumed: TellDataModule, state: dict[str, Any], names: list[str]) -> None:
    with pytest.raises(StreamError, match=r"^resume: ") as caught:
        resumed.load_state_dict(state)
    assert str(caught.value) == (
        "resume: the data order must be the one that the run began with, got a change of "
        f"{', '.join(names)}. Undo the change, or start a new run."
    )


@pytest.mark.parametrize("change", CHANGES)
def test_a_resume_with_another_order_is_refused(change: str, ready: Ready) -> None:
    state = place(ready(), global_step=2).state_dict()
    changes, names = CHANGES[change]
    refused(place(ready(**changes)), state, names)


@pytest.mark.parametrize(
    ("name", "key"), [("t", "the file of data.tasks.t"), ("g", "the file of data.general.g")]
)
def test_a_resume_with_another_file_is_refused(
    name: str, key: str, ready: Ready, files: Files
) -> None:
    state = place(ready(), global_step=2).state_dict()
    rows = pairs(name, 12 if name == "t" else 60)
    files.put(name, [{**rows[0], "response": "changed"}, *rows[1:]])
    refused(place(ready()), state, [key])


def test_a_resume_with_another_tokenizer_or_template_is_refused(
    ready: Ready, make_tokenizer: Make
) -> None:
    state = place(ready(), global_step=2).state_dict()
    larger = make_tokenizer(None)
    larger.add_tokens(["Translate"])
    refused(place(ready(tokenizer=larger)), state, ["the tokenizer"])
    gemma = chat_template("gemma")
    names = ["the chat template", "the tokenizer"]
    refused(place(ready(tokenizer=make_tokenizer(gemma))), state, names)


def test_a_resume_without_a_row_that_was_there_is_refused(ready: Ready, files: Files) -> None:
    """A test file has taken it."""
    state = place(ready(), global_step=2).state_dict()
    files.put("e", [*pairs("e", 4), pairs("g", 60)[7]])
    refused(place(ready()), state, ["the rows that are left of data.general.g"])


def test_a_test_file_may_change_on_resume(ready: Ready, files: Files) -> None:
    """No trained row depends on it."""
    state = place(ready(), global_step=2).state_dict()
    files.put("e", pairs("f", 9))
    resumed = place(ready())
    resumed.load_state_dict(state)


class Recorder(pl.LightningModule):
    """Records the position of every example that it is trained on, and where dev was scored."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.positions: list[int] = []
        self.scored: list[int] = []

    def training_step(self, batch: Batch, index: int) -> torch.Tensor:
        self.positions += batch.positions.tolist()
        return self.weight * batch.labels.shape[0]

    def validation_step(self, batch: Batch, index: int) -> None:
        """Nothing to do."""

    def on_validation_end(self) -> None:
        self.scored.append(self.trainer.global_step)

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        # Asks for the number of steps, which sets the loaders up before a checkpoint is restored.
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


class Saver(pl.Callback):
    """Saves a checkpoint at the end of each optimizer step, as `<steps>.ckpt`, and after scores."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
        if not trainer.fit_loop._should_accumulate():
            trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.global_step}-scored.ckpt")


class Fail(pl.Callback):
    """Raises in the midst of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_before_optimizer_step(self, trainer: pl.Trainer, *rest: Any) -> None:
        if trainer.global_step + 1 == self.step:
            raise RuntimeError("in the midst of a step")


def train(
    datamodule: TellDataModule,
    steps: int,
    folder: Path,
    resume: Path | None = None,
    *more: pl.Callback,
) -> Recorder:
    """Train up to a step, scoring dev every two."""
    module = Recorder()
    accumulation = datamodule.accumulation(1)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=steps,
        max_epochs=-1,
        accumulate_grad_batches=accumulation,
        check_val_every_n_epoch=None,
        val_check_interval=2 * accumulation,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[Saver(folder), Resume(None), *more],
    )
    trainer.fit(
        module,
        datamodule=datamodule,
        ckpt_path=None if resume is None else str(resume),
        weights_only=True,
    )
    assert trainer.global_step == steps
    return module


# https://github.com/Lightning-AI/pytorch-lightning/issues/21326
leaves = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")


@leaves
def test_a_trainer_goes_on_where_it_stopped(ready: Ready, tmp_path: Path) -> None:
    """Through real checkpoints, at every step, across a cycle (16), twice in a row."""
    whole = train(ready(), 5, tmp_path / "whole")
    assert whole.positions == list(range(40))
    assert whole.scored == [2, 4]
    for step in (1, 2, 3, 4):
        checkpoint = tmp_path / "whole" / f"{step}.ckpt"
        assert train(ready(), 5, tmp_path / "rest", checkpoint).positions == list(
            range(8 * step, 40)
        )
    middle = train(ready(), 3, tmp_path / "second", tmp_path / "whole" / "1.ckpt")
    assert (middle.positions, middle.scored) == (list(range(8, 24)), [2])
    third = train(ready(), 5, tmp_path / "third", tmp_path / "second" / "3.ckpt")
    assert (third.positions, third.scored) == (list(range(24, 40)), [4])


@leaves
@pytest.mark.parametrize("step", [2, 4])
def test_a_checkpoint_after_a_scoring_is_gone_on_from_without_another(
    step: int, ready: Ready, tmp_path: Path
) -> None:
    train(ready(), 5, tmp_path)
    rest = train(ready(), 5, tmp_path / "rest", tmp_path / f"{step}-scored.ckpt")
    assert rest.positions == list(range(8 * step, 40))
    assert rest.scored == ([4] if step == 2 else [])


@leaves
def test_after_an_exception_the_last_checkpoint_is_gone_on_from(
    ready: Ready, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match="in the midst"):
        train(ready(), 5, tmp_path, None, Fail(4))
    assert not (tmp_path / "4.ckpt").exists()
    assert train(ready(), 5, tmp_path, tmp_path / "3.ckpt").positions == list(range(24, 40))


@leaves
@pytest.mark.parametrize(("before", "after"), [(4, 8), (4, 2), (8, 1), (1, 8), (2, 4)])
@pytest.mark.parametrize("checkpoint", ["1", "2-scored", "3", "4-scored"])
def test_micro_batch_and_accumulation_may_change_on_resume(
    before: int, after: int, checkpoint: str, ready: Ready, tmp_path: Path
) -> None:
    """Lightning's counters go on too: the run has as many steps, and dev is scored at the same."""
    train(ready(micro_batch=before), 4, tmp_path)
    resume = tmp_path / f"{checkpoint}.ckpt"
    rest = train(ready(micro_batch=after), 7, tmp_path / "rest", resume)
    step = int(checkpoint[0])
    assert rest.positions == list(range(8 * step, 56))
    assert rest.scored == [n for n in (2, 4, 6) if n > step]
    progress = torch.load(tmp_path / "rest" / "7.ckpt")["loops"]["fit_loop"]
    assert progress["epoch_loop.batch_progress"]["total"]["processed"] == 7 * 8 // after


PACKED = {"packing": True, "max_tokens": 100}


@leaves
@pytest.mark.parametrize(("before", "after"), [(4, 4), (8, 2), (2, 8)])
def test_packed_runs_go_on_in_any_layout(
    before: int, after: int, ready: Ready, tmp_path: Path
) -> None:
    """Cycles have 16 positions and bins a few examples, so that steps end anywhere in a cycle."""
    mixture = Mixture(task_share=0.25, task_examples=4, general_repeat=True)
    whole = train(ready(**PACKED, micro_batch=before, mixture=mixture), 6, tmp_path)
    assert whole.positions != sorted(whole.positions)  # packed
    assert len(set(whole.positions)) == len(whole.positions) > 2 * 6 * 8
    state = torch.load(tmp_path / "3.ckpt")["TellDataModule"]
    assert (state["unit"], state["consumed"]) == ("bins", 3 * 8)
    for step in ("1", "2-scored", "3"):
        resume = tmp_path / f"{step}.ckpt"
        datamodule = ready(**PACKED, micro_batch=after, mixture=mixture)
        rest = train(datamodule, 6, tmp_path / "rest", resume)
        if before == after:
            assert rest.positions == whole.positions[-len(rest.positions) :]
        done = len(whole.positions) - len(rest.positions)
        assert sorted(rest.positions) == sorted(whole.positions[done:])


@pytest.mark.parametrize(("steps", "cycles"), [(10**12, None), (-1, 1e12)])
def test_packed_run_that_is_far_too_long_is_refused_without_packing_it(
    steps: int, cycles: float | None, ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    datamodule = ready(**PACKED, mixture=Mixture(task_share=0.25, task_examples=4, cycles=cycles))
    monkeypatch.setattr("tell_lightning.data.packing.fill", None)
    with pytest.raises(PlanError, match=r"^data\.general\.g: \d+ training examples, which is "):
        datamodule.prepared.steps(steps)


@leaves
@pytest.mark.parametrize("packed", [False, True])
def test_cycles_train_every_slot_once_and_fill_the_last_step_up(
    packed: bool, ready: Ready, tmp_path: Path
) -> None:
    mixture = Mixture(task_share=0.25, task_examples=4, cycles=2.25)
    datamodule = ready(mixture=mixture, **(PACKED if packed else {}))
    steps = datamodule.prepared.steps(-1)
    assert steps == 5 if not packed else steps < 5
    assert sorted(train(datamodule, steps, tmp_path).positions) == list(range(36))


# Settings of a plain Trainer


def fit_plain(
    datamodule: TellDataModule, folder: Path, resume: Path | None = None, **options: Any
) -> Recorder:
    """Train by a Trainer as anybody makes one, without callbacks of ours."""
    module = Recorder()
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[Saver(folder)],
        **options,
    )
    checkpoint = None if resume is None else str(resume)
    trainer.fit(module, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
    module.epochs = trainer.current_epoch
    return module


UNEVEN = Mixture(task_share=0.3, task_examples=4)  # a cycle of 13, batches of 8


@leaves
@pytest.mark.parametrize("packed", [False, True])
def test_an_epoch_is_a_cycle(packed: bool, ready: Ready, tmp_path: Path) -> None:
    options = PACKED if packed else {}
    epochs = fit_plain(ready(mixture=UNEVEN, **options), tmp_path, max_epochs=3)
    assert sorted(epochs.positions) == list(range(39))
    assert epochs.epochs == 3
    assert len(epochs.scored) == 3  # at the end of each, of however many steps it is
    in_cycles = Mixture(task_share=0.3, task_examples=4, cycles=3)
    cycles = ready(mixture=in_cycles, **options)
    steps = 5 if not packed else epochs.scored[-1]
    assert train(cycles, steps, tmp_path / "cycles").positions == epochs.positions


@leaves
@pytest.mark.parametrize("checkpoint", ["1", "2", "2-scored", "3", "4", "4-scored"])
def test_an_epoch_goes_on_where_it_stopped(checkpoint: str, ready: Ready, tmp_path: Path) -> None:
    whole = fit_plain(ready(mixture=UNEVEN), tmp_path, max_epochs=3)
    assert whole.scored == [2, 4, 5]
    resume = tmp_path / f"{checkpoint}.ckpt"
    rest = fit_plain(ready(mixture=UNEVEN), tmp_path / "rest", resume, max_epochs=3)
    step = int(checkpoint[0])
    assert rest.positions == list(range(8 * step, 39))
    assert rest.scored[-1] == 5
    assert rest.epochs == 3


@leaves
def test_an_epoch_shorter_than_a_batch_is_a_batch(ready: Ready, tmp_path: Path) -> None:
    mixture = Mixture(arm="sft", task_examples=3)
    assert fit_plain(ready(mixture=mixture), tmp_path, max_epochs=4).positions == list(range(32))


@leaves
def test_limited_epochs_go_on_where_the_last_one_ended(ready: Ready, tmp_path: Path) -> None:
    found = fit_plain(ready(), tmp_path, max_epochs=3, limit_train_batches=2)
    assert found.positions == list(range(24))
    by_steps = fit_plain(ready(), tmp_path, max_steps=4, limit_train_batches=4)
    assert by_steps.positions == list(range(32))
    assert by_steps.epochs == 2


@leaves
def test_one_batch_is_enough_to_try_it_out(ready: Ready, tmp_path: Path) -> None:
    assert fit_plain(ready(), tmp_path, fast_dev_run=True).positions == list(range(4))


@leaves
def test_without_steps_and_epochs_the_length_follows_from_the_rows(
    ready: Ready, tmp_path: Path
) -> None:
    datamodule = ready()
    found = fit_plain(datamodule, tmp_path, max_epochs=-1)
    assert datamodule.prepared.length is not None
    assert len(found.positions) == 8 * datamodule.prepared.length.steps


@pytest.mark.parametrize(
    ("options", "mixture", "error"),
    [
        ({"overfit_batches": 2, "max_steps": 2}, {}, "overfit_batches: .* never repeats .* got 2"),
        ({"max_steps": 2, "limit_train_batches": 3}, {}, "limit_train_batches: .* got 3"),
        ({"max_epochs": 2}, {"cycles": 2}, "data.mixture.cycles: .* got 2 and 2 epochs"),
    ],
)
def test_trainer_settings_that_cannot_hold_are_refused(
    options: dict[str, Any], mixture: dict[str, Any], error: str, ready: Ready, tmp_path: Path
) -> None:
    datamodule = ready(mixture=Mixture(task_share=0.25, task_examples=4, **mixture))
    with pytest.raises(StreamError, match=f"^{error}"):
        fit_plain(datamodule, tmp_path, **options)


def test_dictionaries_are_settings_and_mistakes_in_them_are_named(
    ready: Ready, files: Files, tokenizer: Any
) -> None:
    tasks = {"t": {"train": "t.jsonl", "dev": "d.jsonl", "test": "e.jsonl", "anchor": ANCHOR}}
    general = {"g": {"train": "g.jsonl", "held_out": "h.jsonl"}}
    mixture = {"task_share": 0.25, "task_examples": 4}
    same = ready(tasks=tasks, general=general, mixture=mixture)
    assert same.prepared.digest == ready().prepared.digest
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"tasks": {"t": {"trian": "x"}}}, r"data\.tasks\.t\.trian: .* Did you mean 'train'"),
        ({"general": {"g": {}}}, r"data\.general\.g: must have train, or generate"),
        ({"mixture": {"arm": "tel"}}, r"data\.mixture\.arm: must be one of .* got tel"),
        ({"mixture": 0.2}, r"data\.mixture: must be Mixture or a dictionary .* got 0\.2"),
    ]
    for change, error in wrong:
        with pytest.raises((ConfigError, SplitError), match=f"^{error}"):
            TellDataModule(**files.settings(**change), tokenizer=tokenizer)


def test_rows_may_be_given_as_lists(ready: Ready) -> None:
    from_files = ready()
    tasks = {"t": Task(train=pairs("t", 12), dev=pairs("d", 3), test=pairs("e", 4), anchor=ANCHOR)}
    general = {"g": General(train=pairs("g", 60), held_out=pairs("h", 2))}
    from_lists = ready(tasks=tasks, general=general)
    assert from_lists.prepared.rows[0]["input_ids"] == from_files.prepared.rows[0]["input_ids"]
    assert from_lists.prepared.drawn_ids["t"][0].startswith("t.train:")
    assert from_lists.hparams["data"]["tasks"]["t"]["train"] == "12 rows"
    with pytest.raises(RecordError, match=r"^t\.train:2: field 'response' must be there"):
        ready(tasks={"t": Task(train=[*pairs("t", 1), {"prompt": "x"}])})


def test_a_constructor_takes_what_the_section_has() -> None:
    made = signature(TellDataModule.__init__).parameters
    section = {field.name: field.default for field in fields(DataSettings)}
    del section["audit"]  # a file of the run's folder
    assert set(made) - {"self", "tokenizer", "seed"} == set(section)
    for name in set(section) - {"tasks", "general"}:
        assert made[name].default == section[name], name


@leaves
def test_without_restating_a_resume_with_another_accumulation_would_be_wrong(
    ready: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tell_lightning.callbacks.resume.restate", lambda *rest: None)
    train(ready(), 3, tmp_path)
    rest = train(ready(micro_batch=8), 7, tmp_path / "rest", tmp_path / "3.ckpt")
    assert rest.scored != [4, 6]


# The paper's data


def test_the_papers_data_become_a_plan(shared_data: Path, tmp_path: Path, tokenizer: Any) -> None:
    """Documents of English and Icelandic as the task, 400 rows of general instructions."""
    source = shared_data / "general/natural_instructions/natural_instructions_sample.jsonl"
    lines = source.read_text(encoding="utf-8").split("\n")[:400]
    (tmp_path / "general.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    anchor = Anchor(
        text="This text is in English and needs to be translated into Icelandic. Please translate "
        "only the text, strictly maintaining the original content order without making any other "
        "changes.",
        response_prefix="Sure, here is the Icelandic translation:",
        present=True,
    )
    task = Task(
        train="tell/dev-en-is.jsonl",
        fields=Fields(prompt="query"),
        anchor=anchor,
        overlong="truncate_prompt",
    )
    general = General(
        train=str(tmp_path / "general.jsonl"),
        fields=Fields(prompt="instruction", input="input", response="output"),
    )
    datamodule = TellDataModule(
        root=str(shared_data),
        cache_dir=str(tmp_path / "cache"),
        tasks={"en_is": task},
        general={"instructions": general},
        mixture=Mixture(task_share=0.1, task_examples=20),
        max_tokens=8_000,
        tokenizer=tokenizer,
        seed=3,
    )
    datamodule.prepare_data()
    datamodule.setup()
    counts = datamodule.prepared.source_reports["en_is"]["counts"]
    assert (counts["read"], counts["kept"]) == (71, 71)
    assert 0 < counts["truncated"] < 10
    assert datamodule.plan.cycle == 200
    for row in datamodule.prepared.rows[0]:
        text = tokenizer.decode(row["input_ids"])
        assert text.count(f"### User:\n{anchor.text}") == 1
        assert text.count(f"### Assistant:\n{anchor.response_prefix} \n\n ") == 1
        assert len(row["input_ids"]) <= 8_000
    realised = datamodule.prepared.describe(200)["realised"]
    assert realised["sources"]["en_is"]["examples_share"] == 0.1
