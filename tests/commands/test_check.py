"""What no run can do is refused before anything is read."""

from pathlib import Path

import pytest
import torch
import yaml
from messages import Says, says

from tell_lightning.cli import main
from tell_lightning.commands.check import RANGES, check, neutral
from tell_lightning.settings import ConfigError


def refused(*options: str) -> str:
    with pytest.raises(ConfigError) as caught:
        check(list(options))
    return str(caught.value)


@pytest.mark.parametrize("steps", ["null", "-1"])
def test_cycles_end_a_run_that_has_no_steps(steps: str) -> None:
    config = check(["--data.mixture.cycles=2", f"--trainer.max_steps={steps}"])
    assert config.data.mixture.cycles == 2
    assert config.trainer["max_steps"] == -1


def test_a_saved_configuration_keeps_the_end(tmp_path: Path) -> None:
    config = check(["--data.mixture.cycles=0.5", "--trainer.max_steps=null"])
    saved = tmp_path / "config.yaml"
    saved.write_text(config.to_yaml())
    assert check(["-c", str(saved)]) == config
    longer = check(["-c", str(saved), "--data.mixture.cycles=1"])
    assert longer.data.mixture.cycles == 1


def test_no_steps_are_refused() -> None:
    assert refused("--trainer.max_steps=0") == says(
        "trainer.max_steps", rule="1", got="0", cure="data.mixture.cycles"
    )


@pytest.mark.parametrize(
    ("options", "got"),
    [
        ([], "250"),
        (["--trainer.max_steps=5"], "5"),
        (["--trainer.max_steps=0"], "0"),
    ],
)
def test_two_ends_are_refused(options: list[str], got: str) -> None:
    assert refused("--data.mixture.cycles=2", *options) == says(
        "trainer.max_steps",
        rule=["null", "data.mixture.cycles", "2"],
        got=got,
        cure=["--trainer.max_steps=null", "--data.mixture.cycles=null"],
    )


WRONG = {
    "run.checkpoint_every_steps": "0",
    "run.checkpoint_every_minutes": "-1",
    "data.max_tokens": "0",
    "data.optimizer_batch": "0",
    "data.micro_batch": "-16",
    "data.num_workers": "-1",
    "data.prefetch_factor": "0",
    "data.max_bad_share": "1.5",
    "data.mixture.task_share": "-0.1",
    "data.mixture.task_passes": "0",
    "data.mixture.cycles": "0",
    "data.tasks.*.dev_from_train": "0",
    "data.tasks.*.max_new_tokens": "0",
    "data.tasks.*.min_new_tokens": "-1",
    "data.general.*.weight": "0",
    "data.general.*.generate": "0",
    "model.lora.rank": "0",
    "model.lora.alpha": "0",
    "model.lora.dropout": "1",
    "model.optimizer.lr": "-1",
    "model.optimizer.weight_decay": "-1",
    "model.optimizer.betas": "[0.9,3]",
    "model.optimizer.warmup_share": "5",
    "model.optimizer.final_lr_share": "-0.5",
    "eval.every_steps": "0",
    "eval.dev_rows": "0",
    "eval.test_rows": "0",
    "eval.loss_rows": "0",
    "eval.batch_tokens": "0",
    "eval.temperature": "-0.5",
    "eval.samples": "-1",
    "eval.table_rows": "-1",
    "eval.patience": "0",
    "tune.search.task_share": "[0.1,1]",
    "tune.search.lr": "[0]",
    "tune.search.steps": "[0]",
    "tune.folds": "1",
    "tune.seeds": "1",
    "trainer.log_every_n_steps": "0",
    "trainer.gradient_clip_val": "-1",
    "trainer.devices": "-2",
    "trainer.num_nodes": "0",
}
NAMES = {"tasks.*": "tasks.translate", "general.*": "general.instructions"}


def test_every_range_has_a_wrong_value_here() -> None:
    assert set(WRONG) == {f"{section}.{key}" for section, each in RANGES.items() for key in each}


@pytest.mark.parametrize("key", WRONG)
def test_a_number_out_of_its_range_is_refused(key: str) -> None:
    section, _, below = key.partition(".")
    path = key
    for star, name in NAMES.items():
        path = path.replace(star, name)
    stop = ["--trainer.max_steps=null"] if path.endswith("cycles") else []
    assert refused(f"--{path}={WRONG[key]}", *stop) == says(
        path,
        rule=str(RANGES[section][below]),
        got=WRONG[key].strip("[]").split(",")[-1],
        cure="help",
    )


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "1e400"])
def test_what_is_no_finite_number_is_refused(value: str) -> None:
    message = refused(f"--model.optimizer.lr={value}")
    assert message.startswith("model.optimizer.lr: must be at least 0, got ")


def test_numbers_at_the_border_of_their_range_are_taken() -> None:
    check(
        [
            "--model.optimizer.warmup_share=0",
            "--model.optimizer.final_lr_share=1",
            "--model.optimizer.weight_decay=0",
            "--model.lora.dropout=0",
            "--eval.samples=0",
            "--trainer.gradient_clip_val=0",
            "--trainer.devices=-1",
        ]
    )


@pytest.mark.parametrize("command", ["fit", "plan"])
@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--data.micro_batch=5"], says("data.optimizer_batch", rule="5", got="32")),
        (
            ["--trainer.devices=3", "--trainer.accelerator=cpu"],
            says("data.optimizer_batch", rule="3 device", got="32"),
        ),
        (
            ["--trainer.precision=16-mixed", "--trainer.accelerator=cpu"],
            says("trainer.precision", rule=["32-true", "bf16-mixed"], got="16-mixed"),
        ),
        (["--model.lora.rank=0"], says("model.lora.rank", rule="1", got="0")),
        (
            ["--model.lora.target_modules=[q_proj,frob]"],
            says("model.lora.target_modules", got="['frob']", cure="q_proj"),
        ),
    ],
)
def test_plan_refuses_what_fit_refuses(
    command: str,
    options: list[str],
    error: Says,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, f"--run.dir={tmp_path / 'runs'}", *options])
    assert stop.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].removeprefix("error: ") == error
    assert not (tmp_path / "runs").exists()


def test_a_gpu_that_is_not_there_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if torch.cuda.is_available():
        pytest.skip("Requires: [a machine without GPU]")
    with pytest.raises(SystemExit) as stop:
        main(["fit", f"--run.dir={tmp_path / 'runs'}", "--trainer.accelerator=gpu"])
    assert stop.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1].removeprefix("error: ")
    assert error == says("trainer", got="accelerator gpu", cure="leave it out")
    assert not (tmp_path / "runs").exists()


# Where the values come from


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text("data: {root: /data}\nmodel: {base: mine}\n")
    return path


def test_a_file_of_ones_own_takes_nothing_from_the_demo(mine: Path) -> None:
    found = check(["-c", str(mine)]).values
    wanted = neutral()
    wanted["data"]["root"] = "/data"
    wanted["model"]["base"] = "mine"
    wanted["trainer"]["max_steps"] = -1
    assert found == wanted
    demo = check([]).values
    assert demo["data"]["mixture"]["task_examples"] == 50
    assert found["data"]["mixture"]["task_examples"] is None
    assert found["run"]["name"] != demo["run"]["name"]


def test_a_file_must_name_its_base(mine: Path) -> None:
    mine.write_text("data: {root: /data}\n")
    assert refused("-c", str(mine)) == says("model.base", got="nothing", cure="--model.base=")


def test_the_demo_is_a_configuration_like_any_other(mine: Path) -> None:
    assert check(["-c", "microworld"]) == check([])
    assert check(["--run.name=x"]).run.name == "x"
    built = check(["-c", "microworld", "-c", str(mine)])
    assert built.data.mixture == check([]).data.mixture
    assert built.data.root == "/data"
    assert built.model.base == "mine"
    changed = check(["-c", str(mine), "--config=microworld"])
    assert changed.values == check([]).values


def test_a_file_may_say_what_it_extends(mine: Path) -> None:
    plain = check(["-c", "microworld", "-c", str(mine), "--run.name=x"]).values
    mine.write_text(mine.read_text() + "extends: microworld\n")
    assert check(["-c", str(mine), "--run.name=x"]).values == plain
    other = mine.with_name("other.yaml")
    other.write_text("run: {name: x}\n")
    assert check(["-c", str(other), "-c", str(mine)]).values == plain
    mine.write_text(mine.read_text().replace(": microworld", ": micro"))
    assert refused("-c", str(mine)) == says("mine.yaml: extends", rule="microworld", got="micro")


def test_tasks_of_a_later_file_replace_those_of_a_shipped_one(mine: Path) -> None:
    mine.write_text("extends: microworld\ndata: {tasks: {own: {train: a.jsonl}}}\n")
    data = check(["-c", str(mine)]).data
    assert set(data.tasks) == {"own"}
    assert set(data.general) == {"instructions"}


def test_a_saved_configuration_needs_no_other(tmp_path: Path) -> None:
    """Also where a default of ours was switched off."""
    saved = tmp_path / "config.yaml"
    made = check(["--trainer.gradient_clip_val=null"])
    saved.write_text(made.to_yaml())
    assert check(["-c", str(saved)]) == made


TEXTS = ["1e-4", "5e12345", "+1E5", ".5e3", "1.e3", "12", "0x1f", "1_000", "1:30", "2024-01-01"]
TEXTS += ["true", "no", ".inf", "nan", "a: b", "#x", "[a]", "'q'", "é 😀", "two\nlines"]


@pytest.mark.parametrize("text", TEXTS)
def test_text_that_looks_like_something_else_stays_text(tmp_path: Path, text: str) -> None:
    """In every key of text: as it is given, as it is saved, and as it is read again."""
    task = {
        "train": text,
        "fields": {"prompt": text, "response": text},
        "anchor": {"text": text, "response_prefix": text, "separator": text},
        "scoring": {"kind": "text", "baselines": {"b": {"text": text}}},
        "stop_tokens": [text],
    }
    values = {
        "run": {"name": "1e-4", "dir": text, "wandb_project": text},
        "data": {"root": f"/{text}", "tasks": {"t": task}, "general": {"g": {"train": text}}},
        "model": {"base": text, "lora": {"target_modules": [text]}},
    }
    path, saved = tmp_path / "mine.yaml", tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values, default_style='"'), encoding="utf-8")
    made = check(["-c", str(path)])
    assert made.data.tasks["t"].anchor.text == text
    saved.write_text(made.to_yaml(), encoding="utf-8")
    assert check(["-c", str(saved)]) == made
    found = yaml.safe_load(made.to_yaml())
    assert found == made.values
    assert [found["run"]["dir"], found["model"]["base"], found["data"]["root"][1:]] == [text] * 3
    assert found["data"]["tasks"]["t"]["fields"]["prompt"] == text


def test_text_typed_on_the_command_line_stays_text(tmp_path: Path) -> None:
    made = check(["--run.name=1e-4", "--model.revision=5e12345"])
    assert (made.run.name, made.model.revision) == ("1e-4", "5e12345")
    saved = tmp_path / "config.yaml"
    saved.write_text(made.to_yaml())
    assert check(["-c", str(saved)]) == made


def test_a_relative_base_is_absolute_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run and its adapter are used from other folders, too."""
    (tmp_path / "my base").mkdir()
    (tmp_path / "my base/config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    for typed in ("my base", "./my base/", str(tmp_path / "my base")):
        config = check(["-c", "microworld", f"--model.base={typed}"])
        assert config.model.base == str(tmp_path / "my base")
        assert yaml.safe_load(config.to_yaml())["model"]["base"] == config.model.base
    for hub in ("org/name", "microworld"):
        assert check(["-c", "microworld", f"--model.base={hub}"]).model.base == hub


@pytest.mark.parametrize(
    ("text", "key", "got"),
    [
        ("data:\n# tasks: {}\n", "data", "nothing"),
        ("trainer: null", "trainer", "nothing"),
        ("model: {lora: [r]}", "model.lora", "['r']"),
        ("model: {optimizer: !!binary YWI=}", "model.optimizer", "b'ab'"),
        ("eval: 3", "eval", "3"),
        ("data: {general: }", "data.general", "nothing"),
        ("data: {tasks: [a]}", "data.tasks", "['a']"),
    ],
)
def test_a_group_of_keys_that_holds_another_value_is_refused(
    tmp_path: Path, text: str, key: str, got: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    said = says(f"{path}: {key}", rule="mapping", got=got, cure=["KEY: VALUE", "remove"])
    assert refused("-c", str(path)) == said


@pytest.mark.parametrize(
    ("option", "got"),
    [("--data=null", "null"), ("--model.lora=x", "x"), ("--data.mixture=3", "3")],
)
def test_a_typed_group_needs_keys(option: str, got: str) -> None:
    key = option.removeprefix("--").partition("=")[0]
    assert refused(option) == says(key, rule="mapping", got=got, cure="KEY: VALUE")


@pytest.mark.parametrize("value", ["a\0b", "caf\udce9"])
def test_a_text_that_no_file_can_be_named_by_is_refused(value: str) -> None:
    said = says("data.cache_dir", rule=["Unicode", "null"], got=repr(value))
    assert refused(f"--data.cache_dir={value}") == said
