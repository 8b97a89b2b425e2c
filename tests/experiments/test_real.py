"""The experiments on a real chat model: their data, their configurations and their plan."""

import gzip
import json
import os
import sys
from collections import Counter
from hashlib import sha256
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from messages import says
from tiny_models import save_llama

from tell_lightning.cli import main
from tell_lightning.commands.check import check
from tell_lightning.experiment.bases import located
from tell_lightning.experiment.cells import TUNING, Cell, Chosen, configuration, expand
from tell_lightning.experiment.overlays import value_of
from tell_lightning.experiment.rules import check_rule
from tell_lightning.experiment.specification import Experiment, read_experiment

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT / "experiments/real"
SHARED = Path(os.environ.get("TELL_DATA", ROOT.parent / "shared/data"))
MIRROR = ROOT.parent / ".mirror"
CLONES = {
    "banking77": "PolyAI-LDN+task-specific-datasets",
    "clinc_travel": "clinc+oos-eval",
    "nl2bash": "TellinaTool+nl2bash",
    "advising_sql": "jkkummerfeld+text2sql-data",
    "en_pidgin": "masakhane-io+lafand-mt",
}
"""The repository of each task, as it is kept here: `OWNER+NAME/repo`."""
DIGESTS = {
    "banking77/dev.jsonl": "38608976461f1f59065ad6da345979a8b3c49f2c3c4c26c422e60a855c6379db",
    "banking77/labels.txt": "11f57b39099f7d88d46ef4a331a94fbe0cd0a4fdc11fccd2f4f280bbd571b3ea",
    "banking77/test.jsonl": "39ce6a295bbbdd4a9be9eb5607b958a861fc89cc415bd34c2c6b0beb7397218d",
    "banking77/train.jsonl": "a9638c1c4ea0b858a4a68000013f62aa01d18302652cc9ba8223f7490ab878d1",
    "clinc_travel/dev.jsonl": "bd06be3a661929eb28814f23e42e3f9221005db0614f8c6bd84d38efddde7143",
    "clinc_travel/labels.txt": "f4d9b68f0e87096e8650f97f4058f8c9c2ed9c8e64dd602faa06529a26cb7553",
    "clinc_travel/test.jsonl": "0f63adf3ec8922d158b68ee34555a7e853e7c606a62918df9c7f78e8121ff0d2",
    "clinc_travel/train.jsonl": "daa8abeb53452743fb689e7778e3415656a0d5080bf66da22c10b71465fcbe2a",
    "nl2bash/dev.jsonl": "ec54968302b458d504f01e0b51a0e111e0e29f792fe6cdc503960ad10c0749ca",
    "nl2bash/test.jsonl": "32699d1e2ef8cba91e9009d5b49395e4fb1bd4158d56a73218c9168e5128229f",
    "nl2bash/train.jsonl": "a0ad281becb5e042c9c639e8b1ac919cc1c510b30aa011afc1f06d842798fc40",
    "advising_sql/dev.jsonl": "2bc8519128f54bb95bc1dc6f1b20a991eede3e68b457587a694207721b5e4c41",
    "advising_sql/test.jsonl": "05b80e986c378c62b7706455b2b6e4b517268105ea10a3897a06801e2dbcf60b",
    "advising_sql/train.jsonl": "f4b1c434c407aa7aa76bd0f336b04998b3d7525ffae29e5ce4b307c1a2737257",
    "en_pidgin/dev.jsonl": "19943bc55f6c9dff652f6af3d0245488880bc41485802cf51ac345401b909848",
    "en_pidgin/test.jsonl": "0879c150adb56ff4888a07ccb329d7c9ed6bfd2f127d7c0b634c1c839d66ea18",
    "en_pidgin/train.jsonl": "a40e06993a3a3d3312cf4198f18730f0b62562c2619e05c56864c1bcab616033",
}
"""SHA-256 of every file that the converter makes."""
EXPERIMENTS = sorted(path.parent for path in REAL.glob("*/experiment.yaml"))
TASKS = [*CLONES]
SPLITS = ("train", "dev", "test")
BASES = {"smollm2": "smollm2", "qwen3_0.6b": "Qwen/Qwen3-0.6B", "qwen3_8b": "Qwen/Qwen3-8B"}


def imported(name: str) -> ModuleType:
    spec = spec_from_file_location(f"real_{name}", REAL / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def convert() -> ModuleType:
    """The converter of the tasks, imported from its file."""
    return imported("convert")


@pytest.fixture(scope="module")
def general() -> ModuleType:
    """The maker of the general rows, imported from its file."""
    return imported("general")


# The data


@pytest.mark.parametrize("task", TASKS)
def test_the_files_of_a_task_are_made_from_its_repository_byte_for_byte(
    convert: ModuleType, task: str, tmp_path: Path
) -> None:
    clone = MIRROR / CLONES[task] / "repo"
    if not clone.is_dir():
        pytest.skip(f"Requires: a clone of {convert.SOURCES[task].repository} in {clone}")
    (tmp_path / CLONES[task].partition("+")[2]).symlink_to(clone)
    made = {name: text.encode() for name, text in convert.convert(task, tmp_path).items()}
    digests = {f"{task}/{name}": sha256(content).hexdigest() for name, content in made.items()}
    assert digests == {name: of for name, of in DIGESTS.items() if name.startswith(f"{task}/")}


@pytest.mark.parametrize("name", DIGESTS)
def test_the_files_that_are_here_are_those_that_the_converter_makes(name: str) -> None:
    path = SHARED / "real" / name
    if not path.is_file():
        pytest.skip(f"Requires: {path}")
    assert sha256(path.read_bytes()).hexdigest() == DIGESTS[name]


ADVISING = [
    {
        "sql": ["SELECT long AS longer FROM T ;", "SELECT a FROM T WHERE y = number0  ;"],
        "sentences": [{"text": "Is number0 easy ?", "variables": {"number0": "574"}}],
    }
]
SOURCES: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "banking77": (
        {
            "banking_data/train.csv": 'text,category\n"Hi, there\nagain ",Card_arrival\n',
            "banking_data/test.csv": "text,category\nWhere?,reverted_card_payment?\n",
        },
        {
            "train": [("Hi, there\nagain", "card arrival")],
            "dev": [("Hi, there\nagain", "card arrival")],
            "test": [("Where?", "reverted card payment")],
        },
    ),
    "clinc_travel": (
        {"data/data_full.json": '{"train": [["a", "car_rental"]], "val": [], "test": []}'},
        {"train": [("a", "car rental")], "dev": [], "test": []},
    ),
    "nl2bash": (
        {"data/bash/all.nl": "List\u2028it \nTwo", "data/bash/all.cm": "ls\n find . "},
        {split: [("List\u2028it", "ls"), ("Two", "find .")] for split in SPLITS},
    ),
    "advising_sql": (
        {"data/advising.json": json.dumps(ADVISING)},
        {split: [("Is 574 easy ?", "SELECT long AS longer FROM T ;")] for split in SPLITS},
    ),
    "en_pidgin": (
        {f"data/tsv_files/en-pcm/{s}.tsv": f"en\tpcm\n {s}\tna {s} \n" for s in ("dev", "train")}
        | {"data/tsv_files/en-pcm/test.tsv": 'en\tpcm\n"He said ""x"""\tE say\n'},
        {
            "train": [("train", "na train")],
            "dev": [("dev", "na dev")],
            "test": [('He said "x"', "E say")],
        },
    ),
}


@pytest.mark.parametrize("task", TASKS)
def test_a_source_is_read_as_it_is(convert: ModuleType, task: str) -> None:
    files, pools = SOURCES[task]
    assert convert.SOURCES[task].pools(lambda path: files[path]) == pools


def test_a_missing_clone_is_named_and_nothing_is_written(
    convert: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        convert.main(["--clones", str(tmp_path), "--out", str(tmp_path / "out")])
    assert exit_.value.code == 2
    assert capsys.readouterr().err.removeprefix("error: ").strip() == says(
        f"{tmp_path}/task-specific-datasets",
        rule="57ec275d8078af65b7731c2a98be812d844a6d6b",
        got="none",
        cure="git clone https://github.com/PolyAI-LDN/task-specific-datasets",
    )
    assert not (tmp_path / "out").exists()


def rows_of(**tasks: int) -> list[dict[str, str]]:
    return [
        {"task": task, "id": f"{task}-{n}", "instruction": "Do it.", "input": "", "output": "Yes."}
        for task, count in tasks.items()
        for n in range(count)
    ]


def test_held_out_general_rows_are_of_tasks_that_are_not_trained(general: ModuleType) -> None:
    rows = rows_of(**{f"t{n:02}": 30 for n in range(20)})
    train, held_out = general.divided(rows)
    assert {row["task"] for row in held_out} == {"t00", "t08", "t16"}
    assert len(train) == 17 * 30
    assert not {row["task"] for row in train} & {row["task"] for row in held_out}
    assert [row["task"] for row in held_out[:4]] == ["t00", "t08", "t16", "t00"]


def test_rows_that_the_base_wrote_have_the_fields_of_the_others(general: ModuleType) -> None:
    rows = general.own_words()
    assert len(rows) == 380
    assert {tuple(row) for row in rows} == {("task", "id", "instruction", "input", "output")}
    assert len({row["id"] for row in rows}) == len(rows)


def test_long_general_rows_are_left_out(general: ModuleType) -> None:
    rows = rows_of(t=3)
    rows[1]["input"] = "word " * (general.WORDS - 3)
    rows[2]["input"] = "word " * (general.WORDS - 2)
    assert general.short(rows) == rows[:2]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (None, says("rows.jsonl.gz", got="none", cure="experiments/real/README.md")),
        ([{"task": "t"}], says("rows.jsonl.gz:1", rule="id", got="task")),
    ],
)
def test_general_rows_of_another_form_are_refused(
    general: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: Any, message: Any
) -> None:
    path = tmp_path / "rows.jsonl.gz"
    if rows:
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    with pytest.raises(SystemExit):
        general.main(["--rows", str(path), "--out", str(tmp_path / "out")])
    assert capsys.readouterr().err.removeprefix("error: ").strip() == message
    assert not (tmp_path / "out").exists()


# The configurations


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("task", TASKS)
def test_a_task_goes_with_every_base(task: str, base: str) -> None:
    names = [task] if base == "smollm2" else [task, base]
    config = check([f"--config={ROOT}/configs/real/{name}.yaml" for name in names])
    assert [*config.data.tasks] == [task]
    assert config.model.base == BASES[base]
    anchor = config.data.tasks[task].anchor.text
    assert anchor
    assert "\n" not in anchor
    assert config.model.optimizer.lr == "auto"


@pytest.mark.parametrize("task", ["banking77", "clinc_travel"])
def test_the_anchor_of_intents_lists_them_all(task: str) -> None:
    path = SHARED / "real" / task / "labels.txt"
    if not path.is_file():
        pytest.skip(f"Requires: {path}")
    config = check([f"--config={ROOT}/configs/real/{task}.yaml"])
    listed = config.data.tasks[task].anchor.text.rpartition(": ")[2].removesuffix(".")
    assert listed.split(", ") == path.read_text().splitlines()


@pytest.mark.long
@pytest.mark.parametrize("base", ["qwen3_0.6b", "qwen3_8b"])
def test_the_run_of_a_larger_base_is_planned(
    general: ModuleType, base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = SHARED / "general/natural_instructions_large/natural_instructions.jsonl.gz"
    if not rows.is_file():
        pytest.skip(f"Requires: {rows}")
    general.main(["--rows", str(rows), "--out", str(tmp_path / "general")])
    (tmp_path / "real").symlink_to(SHARED / "real")
    texts = (tmp_path / "general/short/train.jsonl").read_text().splitlines()[:2000]
    tiny = save_llama(tmp_path / "base", texts, vocab_size=4000)
    files = [f"--config={ROOT}/configs/real/{name}.yaml" for name in ("nl2bash", base)]
    small = [f"--model.base={tiny}", f"--data.cache_dir={tmp_path / 'cache'}"]
    main(["plan", *files, *small, f"--data.root={tmp_path}"])
    shown = capsys.readouterr().out
    assert "nl2bash" in shown
    assert "instructions" in shown


# The plan of the runs


def read(folder: Path) -> Experiment:
    return read_experiment(folder)


def by_name(*names: str) -> list[Cell]:
    return [cell for name in names or [f.name for f in EXPERIMENTS] for cell in cells_of(name)]


def cells_of(name: str) -> list[Cell]:
    return expand(read(REAL / name))


def any_choice() -> Chosen:
    """What tuning may choose: the first variant of each arm, testbed and number of examples."""
    tuning = read(REAL / TUNING)
    chosen: dict[str, Any] = {}
    for cell in expand(tuning):
        arm = tuning.arms[cell.arm].tuned or cell.arm
        by_n = chosen.setdefault(cell.testbed, {}).setdefault(arm, {})
        by_n.setdefault(str(cell.n), {"set": dict(cell.settings)})
    return chosen


@pytest.mark.parametrize("folder", EXPERIMENTS, ids=lambda folder: folder.name)
def test_every_run_has_a_configuration_that_fit_takes(folder: Path, tmp_path: Path) -> None:
    experiment, chosen, seen = read(folder), any_choice(), set()
    check_rule(experiment)
    for cell in expand(experiment):
        config = located(experiment, configuration(experiment, cell, chosen))
        assert config["data"]["root"] == str(REAL / "data")
        key = (cell.testbed, cell.arm)
        if key in seen:
            continue
        seen.add(key)
        path = tmp_path / f"{cell.name}.yaml"
        path.write_text(yaml.safe_dump(config))
        read_back = check(["-c", str(path)])
        assert [*read_back.data.tasks] == [experiment.testbeds[cell.testbed].task]
        assert read_back.trainer["max_steps"] <= 150


@pytest.mark.parametrize("folder", EXPERIMENTS, ids=lambda folder: folder.name)
def test_a_dry_run_shows_the_runs(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["experiment", str(folder), "--results", str(tmp_path), "--dry-run"])
    assert f"{len(cells_of(folder.name))} runs, " in capsys.readouterr().out


def test_every_arm_has_the_same_tuning_budget_on_a_seed_of_its_own() -> None:
    cells = cells_of(TUNING)
    assert {cell.seed for cell in cells} == {100}
    main_tasks = [cell for cell in cells if cell.testbed in TASKS]
    budgets = Counter((cell.testbed, cell.arm, cell.n) for cell in main_tasks)
    assert {(n, count) for (_, _, n), count in budgets.items()} == {(10, 4), (100, 2)}
    rates = {cell.settings["model.optimizer.lr"] for cell in main_tasks}
    assert len(rates) == 2
    others = [cell for f in EXPERIMENTS if f.name != TUNING for cell in cells_of(f.name)]
    assert 100 not in {cell.seed for cell in others}
    tuned = read(REAL / TUNING).arms
    needed = {(cell.testbed, arm) for cell in others if (arm := tuned[cell.arm].tuned)}
    assert needed == {(cell.testbed, cell.arm) for cell in cells}


def test_headline_contrasts_have_five_paired_seeds_on_five_tasks() -> None:
    found = Counter(
        (cell.testbed, cell.arm, cell.n)
        for cell in by_name("same_data", "ten_examples", "few_shot")
    )
    for task in TASKS:
        assert found[task, "base", 0] == 1
        for arm, n in (("tell", 10), ("sft", 10), ("few_shot", 10), ("general_only", 0)):
            assert found[task, arm, n] == 5
    hundred = Counter((cell.testbed, cell.arm) for cell in cells_of("same_data_100"))
    assert set(hundred.values()) == {5}
    assert len(hundred) == 2 * 3


def test_a_run_that_two_claims_plan_is_the_same_run() -> None:
    chosen = any_choice()
    known: dict[str, Any] = {}
    for folder in EXPERIMENTS:
        experiment = read(folder)
        if experiment.name == TUNING:
            continue
        for cell in expand(experiment):
            config = configuration(experiment, cell, chosen)
            assert known.setdefault(cell.name, config) == config


def test_all_arms_of_a_task_are_tested_on_the_same_rows() -> None:
    chosen = any_choice()
    rows: dict[str, set[Any]] = {}
    for folder in EXPERIMENTS:
        experiment = read(folder)
        for cell in expand(experiment):
            if experiment.name != TUNING:
                config = configuration(experiment, cell, chosen)
                found = rows.setdefault(cell.testbed, set())
                found.add(str(value_of(config, "eval.test_rows")))
    assert {len(found) for found in rows.values()} == {1}
