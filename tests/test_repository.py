"""The repository as a whole: its modules, its words, its files, and what answers without torch."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tell_lightning
from tell_lightning.cli import COMMANDS
from tell_lightning.commands.check import check
from tell_lightning.experiment.cells import configuration, expand, read_chosen
from tell_lightning.experiment.overlays import merged, nested
from tell_lightning.experiment.specification import read_experiment

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tell_lightning"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
)
CONFIGS = [
    PACKAGE / "configs" / "microworld.yaml",
    *sorted(set((ROOT / "configs").rglob("*.yaml")) - set(ROOT.glob("configs/cluster/*"))),
    ROOT / "experiments" / "base.yaml",
]
EXPERIMENTS = sorted((ROOT / "experiments").glob("*/experiment.yaml"))
MAY_PRINT = ("cli.py", "commands/", "neural/", "microworld/pretrain.py")
MAX_FILE_BYTES = 8 * 1024 * 1024


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("Requires: [a git checkout]")
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def test_the_tests_see_this_repository():
    assert Path(tell_lightning.__file__).parent == PACKAGE
    assert len(MODULES) > 40


@pytest.mark.parametrize("module", MODULES)
def test_every_module_can_be_imported(module):
    import_module(module)


def test_no_file_is_a_drawer_for_everything():
    names = {path.name for path in tracked_files()}
    assert not names & {"utils.py", "helpers.py", "common.py", "misc.py"}


def test_only_the_command_line_prints():
    prints = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        if not path.relative_to(PACKAGE).as_posix().startswith(MAY_PRINT)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
    ]
    assert not prints


def test_settings_are_typed_attributes_never_hparams():
    reads = [path for path in PACKAGE.rglob("*.py") if "hparams[" in path.read_text("utf-8")]
    assert not reads


def test_there_are_configurations():
    assert CONFIGS
    assert all(path.is_file() for path in CONFIGS)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_configuration_is_accepted(path):
    check(["-c", str(path)])


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.parent.name)
def test_the_settings_of_every_experiment_are_accepted(path, tmp_path):
    experiment = read_experiment(path.parent)
    if not experiment.groups:  # it reads the results of others
        return
    cells = expand(experiment)
    chosen = read_chosen(experiment)
    settings = [nested(values) for cell in cells for values in (cell.group, cell.settings)]
    arms = [nested(experiment.arms[cell.arm].set) for cell in cells]
    config = merged(configuration(experiment, cells[0], chosen), *arms, *settings)
    (tmp_path / "cell.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    check(["-c", str(tmp_path / "cell.yaml")])


def test_no_tracked_file_is_large():
    sizes = {path: path.stat().st_size for path in tracked_files() if path.is_file()}
    assert {path: size for path, size in sizes.items() if size > MAX_FILE_BYTES} == {}


def test_a_wheel_holds_the_default_and_its_base(tmp_path):
    source = tmp_path / "source"
    for path in tracked_files():
        if path.is_file() and (path.parent == ROOT or path.is_relative_to(PACKAGE)):
            copy = source / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    wheels = tmp_path / "wheels"
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", wheels]
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-qq", *options, source], check=True)
    with ZipFile(next(wheels.glob("*.whl"))) as wheel:
        held = set(wheel.namelist())
    package_files = {
        path.relative_to(source).as_posix()
        for path in (source / "tell_lightning").rglob("*")
        if path.is_file() and "egg-info" not in path.as_posix()
    }
    assert "tell_lightning/configs/microworld.yaml" in package_files
    assert package_files <= held


# What answers without torch


PROGRAM = """
import sys
from tell_lightning.cli import main
for command in {commands!r}:
    try:
        main(command)
    except SystemExit as stop:
        print("exit code", stop.code, file=sys.stderr)
print("MODULES", *{{name.partition(".")[0] for name in sys.modules}})
"""


def imported_after(*commands: list[str]) -> tuple[set[str], str]:
    """Run commands in a new process; return its top-level modules and standard error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM.format(commands=commands)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert "Traceback" not in done.stderr
    return set(done.stdout.rpartition("MODULES")[2].split()), done.stderr


@pytest.fixture
def broken_rows(tmp_path: Path) -> Path:
    rows = tmp_path / "rows.jsonl"
    good = json.dumps({"prompt": "Say yes.", "response": "yes"})
    rows.write_text("\n".join([good] * 16 + ['{"prompt": '] + [good]), encoding="utf-8")
    config = tmp_path / "broken.yaml"
    files = {"train": str(rows), "dev": str(rows), "test": str(rows)}
    values = {
        "data": {"tasks": {"yes": files}},
        "model": {"base": "microworld"},
        "trainer": {"max_steps": 5},
    }
    config.write_text(json.dumps(values), encoding="utf-8")
    return config


HEAVY = {"torch", "lightning", "transformers", "peft", "wandb", "datasets", "matplotlib"}


def test_questions_are_answered_without_torch():
    modules, errors = imported_after(
        ["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)
    )
    assert "tell_lightning" in modules
    assert not modules & HEAVY
    assert set(errors.splitlines()) <= {"exit code 0"}


def test_a_wrong_command_line_is_answered_without_torch(tmp_path):
    mistakes = [
        ["fly"],
        ["fit", "--model.lora.rnk=4"],
        ["fit", "-c", "no-such.yaml"],
        ["prepare", "--data.max_tokens=0"],
        ["plan", "--show", "x"],
        ["test"],
        ["validate", str(tmp_path)],
        ["predict"],
        ["predict", "--adapter", str(tmp_path), "--input", "-"],
        ["report"],
        ["compare"],
        ["experiment"],
    ]
    modules, errors = imported_after(*mistakes)
    assert errors.splitlines()[1::2] == ["exit code 2"] * len(mistakes)
    assert not modules & HEAVY


def test_a_broken_row_is_answered_without_torch(broken_rows):
    commands = [[name, "-c", str(broken_rows)] for name in ("fit", "plan")]
    modules, errors = imported_after(*commands)
    first, first_code, second, second_code = errors.splitlines()
    assert first == second
    assert first.startswith("error: ")
    assert "rows.jsonl:17: " in first
    assert {first_code, second_code} == {"exit code 2"}
    assert not modules & {"torch", "lightning", "transformers"}


# Dependencies


def requirements(lines: list[str]) -> Iterator[Requirement]:
    for line in lines:
        if line and not line.startswith("#"):
            yield Requirement(line)


def asked() -> list[Requirement]:
    return list(requirements([*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]))


def test_the_lock_satisfies_every_bound():
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = {
        canonicalize_name(each.name): str(each.specifier).removeprefix("==")
        for each in requirements(lines)
    }
    outside = [
        f"{each} has {pins.get(canonicalize_name(each.name))}"
        for each in asked()
        if not each.specifier.contains(pins.get(canonicalize_name(each.name), "0"))
    ]
    assert not outside


def test_the_lock_serves_any_device_and_names_no_address():
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert pins
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9.]+", pin) for pin in pins)
    assert not [pin for pin in pins if pin.startswith(("nvidia", "cuda", "triton"))]


def test_every_imported_package_is_a_dependency():
    declared = {canonicalize_name(Requirement(each).name) for each in PROJECT["dependencies"]}
    imported = {
        name.partition(".")[0]
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in _imports(node)
    }
    outside = imported - sys.stdlib_module_names - {"tell_lightning"}
    owners = packages_distributions()
    undeclared = {
        name
        for name in outside
        if not {canonicalize_name(owner) for owner in owners.get(name, [])} & declared
    }
    assert outside
    assert not undeclared


def _imports(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module]
    return []
