"""Read the configuration of a command, without torch.

This is the only parser of configurations. LightningCLI is not used: it must import torch and
Lightning, five seconds, before it can say that a key is wrong. The keys of `trainer` are those of
Lightning's Trainer, read from its source; `session` checks their values when it makes the Trainer.
"""

import ast
import json
import re
import sys
import typing
from argparse import ArgumentError
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import docstring_parser
import yaml
from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from tell_lightning.callbacks.settings import (
    EVAL_RANGES,
    RUN_RANGES,
    EvalSettings,
    RunSettings,
)
from tell_lightning.commands.config_files import (
    config_paths,
    read_config,
    with_shipped,
)
from tell_lightning.commands.several_files import joined
from tell_lightning.data.settings import RANGES as DATA_RANGES
from tell_lightning.data.settings import DataSettings, General, Task, check_batches
from tell_lightning.metrics.kinds.registry import BUILT_IN, check_kind, kind_of
from tell_lightning.metrics.predictions import MetricError
from tell_lightning.model.settings import RANGES as MODEL_RANGES
from tell_lightning.model.settings import ModelSettings, check_compile, check_quantize
from tell_lightning.settings import (
    DEMO,
    EXTENDS,
    SHIPPED,
    ConfigError,
    Files,
    Range,
    Ranges,
    check_ranges,
    explain,
    field_names,
    locate,
    place,
    plain,
)
from tell_lightning.tuning.settings import RANGES as TUNE_RANGES
from tell_lightning.tuning.settings import TuneSettings

SECTIONS = {
    "run": RunSettings,
    "data": DataSettings,
    "model": ModelSettings,
    "eval": EvalSettings,
    "tune": TuneSettings,
}
RANGES: dict[str, Ranges] = {
    "run": RUN_RANGES,
    "data": DATA_RANGES,
    "model": MODEL_RANGES,
    "eval": EVAL_RANGES,
    "tune": TUNE_RANGES,
    "trainer": {
        "log_every_n_steps": Range(1),
        "gradient_clip_val": Range(0),
        "devices": Range(-1),
        "num_nodes": Range(1),
    },
}
"""The numbers that each key may have, by section."""
DECIDED_ELSEWHERE = {
    "accumulate_grad_batches": "Set data.optimizer_batch and data.micro_batch instead",
    "max_epochs": "Set trainer.max_steps instead",
    "val_check_interval": "Set eval.every_steps instead",
    "check_val_every_n_epoch": "Set eval.every_steps instead",
    "fast_dev_run": "Set trainer.max_steps: 2 instead",
    "overfit_batches": "Set data.mixture.task_examples instead",
    "limit_train_batches": "Set trainer.max_steps instead",
    "num_sanity_val_steps": "Leave it out: the base is scored before training",
    "use_distributed_sampler": "Leave it out: the stream divides its rows among devices",
    "enable_checkpointing": "Set run.checkpoint_every_steps instead",
    "enable_progress_bar": "Leave it out: a terminal gets a bar, a file plain lines",
    "enable_model_summary": "Leave it out: one line says what is trained",
    "barebones": "Leave it out: a run keeps checkpoints and numbers",
    "default_root_dir": "Set run.dir instead",
}
"""Keys of Lightning's Trainer that are refused, and what to set instead."""
TRAINER_DEFAULTS = {"log_every_n_steps": 10, "gradient_clip_val": 1.0}
"""Defaults of ours for keys of Lightning's Trainer; the others have Lightning's own."""


class _Dumper(yaml.SafeDumper):
    """Puts text in quotes also where another reader of YAML takes it for a number, as 1e-4."""


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)?$|[-+]?\.(inf|nan)$", re.IGNORECASE),
    list("-+.0123456789"),
)
_BROKEN = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True)
class Config:
    """The typed sections, and the rest as plain values."""

    seed: int
    run: RunSettings
    data: DataSettings
    model: ModelSettings
    eval: EvalSettings
    tune: TuneSettings
    trainer: dict[str, Any]
    values: dict[str, Any]

    def to_yaml(self) -> str:
        """Write every key; read again, it gives the same configuration."""
        return yaml.dump(self.values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def check(arguments: list[str], default: str | None = DEMO) -> Config:
    """Parse the configuration files and keys of a command.

    What they leave unset has its neutral default.

    Args:
        arguments: `-c FILE` and `--KEY=VALUE`; later ones win, and keys win over files.
        default: The shipped configuration to use if no file is given; None: none.

    Raises:
        ConfigError: A file that is missing or no YAML, a wrong key, a wrong value.
    """
    set_parsing_settings(docstring_parse_attribute_docstrings=False)
    parser = _parser()
    given = {path: read_config(path) for path in config_paths(arguments)}
    # What is typed wins over the files, so that a mistake is looked for there first.
    given[""] = {argument.lstrip("-").partition("=")[0]: None for argument in arguments}
    defaults = list(parser.get_defaults(skip_validation=True).keys())
    groups = {key.rpartition(".")[0] for key in defaults} - {""}
    _check_groups({*groups, "data.tasks", "data.general"}, given)
    for path, values in given.items():
        _check_texts(values, {path: values})
    arguments = joined(arguments)
    try:
        parsed = parser.parse_args(with_shipped(arguments, default))
        trainer = _representable(parsed.pop("trainer"))  # its classes are made with the Trainer
        made = parser.instantiate_classes(parsed)
    except ArgumentError as error:
        keys = {*defaults, *field_names(Task, General)}
        raise ConfigError(explain(str(error), keys, given)) from error
    values = _plain(made, trainer)
    _say_floors(parsed.data.tasks, given)
    _check_texts(values, given)
    _check_stop(values["trainer"].get("max_steps"), made["data"].mixture.cycles)
    values["trainer"].setdefault("max_steps", -1)  # Lightning's word for no limit
    config = Config(
        seed=_seed(made.seed_everything),
        **{name: made[name] for name in SECTIONS},
        trainer=values["trainer"],
        values=values,
    )
    for section, ranges in RANGES.items():
        check_ranges(config.values[section], ranges, section)
    _check_scoring(config.data.tasks, given)
    _check_trainer(config.trainer)
    return config


def neutral() -> dict[str, Any]:
    """Return the default of every key, as plain values; `model.base` has none."""
    set_parsing_settings(docstring_parse_attribute_docstrings=False)
    parser = _parser()
    parsed = parser.parse_args(["--model.base="])
    trainer = parsed.pop("trainer").as_dict()
    values = _plain(parser.instantiate_classes(parsed), trainer)
    values["model"]["base"] = None
    return values


def _plain(made: Namespace, trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings as a file holds them: plain types, no file names, no unset Trainer key.

    A Trainer key that is set to null in place of a default of ours stays.
    """
    sections: dict[str, Any] = {name: plain(made[name]) for name in SECTIONS}
    for task in sections["data"]["tasks"].values():
        task["scoring"].pop("floors")
    trainer = {
        key: value for key, value in trainer.items() if value is not None or key in TRAINER_DEFAULTS
    }
    values = {"seed_everything": made.seed_everything, **sections, "trainer": trainer}
    return dict(json.loads(json.dumps(values)))  # tuples become lists


def _representable(value: Any) -> Any:
    """Turn the options of the Trainer into values that YAML can hold.

    An enum becomes its value. Other objects are defaults of the classes that the options name, not
    what the user gave; they are left out.
    """
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Namespace):
        return _representable(vars(value))
    if isinstance(value, Mapping):
        held = {key: _representable(item) for key, item in value.items()}
        return {key: item for key, item in held.items() if item is not ...}
    if isinstance(value, list | tuple):
        return [item for item in map(_representable, value) if item is not ...]
    return value if value is None or isinstance(value, bool | int | float | str) else ...


def _parser() -> ArgumentParser:
    # A class that is named is imported here: what it makes of stderr must be the real one.
    parser = ArgumentParser(prog="tell_lightning", allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-c", "--config", action="config")
    parser.add_argument(f"--{EXTENDS}", type=Literal[*SHIPPED] | None)
    parser.add_argument("--seed_everything", type=bool | int, default=42)
    for name, settings in SECTIONS.items():
        parser.add_class_arguments(settings, name)
    for name, (type_, _) in trainer_arguments().items():
        parser.add_argument(f"--trainer.{name}", type=type_, default=TRAINER_DEFAULTS.get(name))
    return parser


def _check_groups(groups: Collection[str], given: Files) -> None:
    """Refuse a file in which a group of keys holds another value, such as nothing."""
    for path, values in given.items():
        for group in sorted(groups) if path else ():
            *above, last = group.split(".")
            inside: Any = values
            for part in above:
                inside = inside.get(part, {})
            if not isinstance(inside.get(last, {}), Mapping):
                got = "nothing" if inside[last] is None else f"{inside[last]!r:.60}"
                raise ConfigError(
                    f"{path}: {group}: must be a mapping of keys, got {got}. Write KEY: VALUE "
                    "lines below it, or remove it."
                )


def _check_texts(values: Any, given: Files, above: str = "") -> None:
    """Refuse characters that no file name, no model and no terminal takes."""
    if isinstance(values, str) and _BROKEN.search(values):
        raise ConfigError(
            f"{place(above, given)}: must be Unicode text "
            f"without the null character, got {values!r:.60}. Write it again."
        )
    if isinstance(values, Mapping):
        for key, value in values.items():
            _check_texts(value, given, f"{above}.{key}" if above else str(key))
    elif isinstance(values, list):
        for value in values:
            _check_texts(value, given, above)


def _seed(seed: bool | int) -> int:
    if isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ConfigError(
            f"seed_everything: must be a whole number from 0 to {2**32 - 1}, got {seed}. "
            "Choose one: a run without a fixed seed cannot be repeated."
        )
    return seed


def _check_stop(max_steps: int | None, cycles: float | None) -> None:
    """Refuse a run that has two ends, or none that can be reached."""
    if cycles is not None and max_steps not in {None, -1}:
        raise ConfigError(
            f"trainer.max_steps: must be null where data.mixture.cycles: {cycles:g} says when to "
            f"stop, got {max_steps}. Write --trainer.max_steps=null or --data.mixture.cycles=null."
        )
    if cycles is None and max_steps is not None and max_steps < 1 and max_steps != -1:
        raise ConfigError(
            f"trainer.max_steps: must be at least 1, got {max_steps}. Runs are measured in "
            "optimizer steps, or in cycles of the plan with data.mixture.cycles."
        )


def check_training(config: Config) -> None:
    """Refuse what no training can do, before anything is loaded.

    Raises:
        ConfigError: Batches that do not divide, or half precision on a CPU.
    """
    trainer, data = config.trainer, config.data
    devices = trainer.get("devices")
    world = max(devices, 1) if isinstance(devices, int) else 1
    check_batches(data.optimizer_batch, data.micro_batch, world * trainer.get("num_nodes", 1))
    strategy = _strategy_name(trainer.get("strategy"))
    if data.micro_batch == "auto" and strategy == "fsdp2":
        raise ConfigError(
            "data.micro_batch: must be a number with fsdp2, where one device cannot try by itself "
            "what fits, got auto. Set data.micro_batch: 1, or a larger one."
        )
    check_quantize(config.model, strategy)
    check_compile(config.model, strategy)
    precision = str(trainer.get("precision", ""))
    if trainer.get("accelerator") == "cpu" and precision.startswith("16"):
        raise ConfigError(
            f"trainer.precision: must be 32-true or bf16-mixed on a CPU, got {precision}, which "
            "needs a GPU. Leave it out, or set trainer.accelerator: gpu."
        )


def _check_scoring(tasks: Mapping[str, Task], given: Files) -> None:
    """Refuse a scoring that does not fit; of a class path it is only checked that its file exists.

    The class itself is loaded with the data: it may need torch.
    """
    for name, task in tasks.items():
        try:
            if task.scoring.kind in BUILT_IN:
                kind_of(task.scoring)
            else:
                check_kind(task.scoring.kind)
        except MetricError as error:
            key, _, rest = str(error).partition(":")
            raise ConfigError(f"{place(f'data.tasks.{name}.{key}', given)}:{rest}") from error


def _say_floors(tasks: Mapping[str, Any], given: Files) -> None:
    """Tell the user once that baselines have another name than the one in the configuration.

    Nothing is said of the saved configuration of a run, which is not for the user to change.
    """
    for name, task in tasks.items():
        if (task.get("scoring") or {}).get("floors"):
            key = f"data.tasks.{name}.scoring.floors"
            if not (Path(locate(key, given)[0]).parent / "run.json").is_file():
                _say_renamed(place(key, given))


@cache
def _say_renamed(where: str) -> None:
    print(f"{where}: is called baselines now; the old name still works", file=sys.stderr)


def _check_trainer(trainer: dict[str, Any]) -> None:
    for key, instead in DECIDED_ELSEWHERE.items():
        if key in trainer:
            raise ConfigError(
                f"trainer.{key}: is decided by other keys, got {trainer[key]}. {instead}."
            )
    precision = str(trainer.get("precision", ""))
    if precision.endswith("-true") and not precision.startswith("32"):
        raise ConfigError(
            f"trainer.precision: must keep the adapters in float32, got {precision}, which rounds "
            "small updates away. Set bf16-mixed; model.dtype is the type of the frozen weights."
        )
    _check_strategy(trainer.get("strategy"), precision)


def _check_strategy(strategy: Any, precision: str) -> None:
    """Refuse strategies that do not fit adapters, and what fsdp2 cannot do."""
    name = _strategy_name(strategy)
    known = name.rpartition(".")[2]
    if known in {"fsdp", "fsdp_cpu_offload", "FSDPStrategy", "ModelParallelStrategy"}:
        raise ConfigError(
            f"trainer.strategy: weights are sharded over devices by FSDP2, got {name}, which does "
            "not fit adapters and their checkpoints. Write --trainer.strategy=fsdp2."
        )
    if known in {"fsdp2", "FullySharded"} and precision.startswith("16"):
        raise ConfigError(
            f"trainer.precision: fsdp2 goes with bf16-mixed or 32-true, got {precision}, whose "
            "loss scaling does not see the gradients of all shards. Set bf16-mixed."
        )


def _strategy_name(strategy: Any) -> str:
    return str(strategy.get("class_path") if isinstance(strategy, dict) else strategy)


@cache
def trainer_arguments() -> dict[str, tuple[Any, str]]:
    """Return the types and the meanings of the arguments of Lightning's Trainer, from its source.

    Types that need an import to be known are `Any`; the Trainer checks those later.
    """
    spec = find_spec("lightning")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(next(iter(spec.submodule_search_locations)))
    tree = ast.parse((folder / "pytorch/trainer/trainer.py").read_text(encoding="utf-8"))
    trainer = next(
        node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Trainer"
    )
    init = next(
        node
        for node in trainer.body
        if isinstance(node, ast.FunctionDef) and node.name == "__init__"
    )
    told = docstring_parser.parse(ast.get_docstring(init) or "").params
    meanings = {param.arg_name: (param.description or "").partition("\n\n")[0] for param in told}
    return {
        argument.arg: (_type(argument.annotation), _first_sentence(meanings.get(argument.arg, "")))
        for argument in init.args.kwonlyargs
        if argument.annotation is not None
    }


def _first_sentence(text: str) -> str:
    """Return the first sentence of a docstring, without its marks of reStructuredText."""
    plain = re.sub(r":\w+:`~?([^`]*)`|``([^`]*)``", r"\1\2", " ".join(text.split()))
    return re.split(r"(?<=[a-z)])\. |\.$", plain)[0] + "." if plain else "See Lightning's Trainer."


def _type(annotation: ast.expr) -> Any:
    simple = {"int": int, "float": float, "bool": bool, "str": str}
    names = {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}
    known = {**simple, "Optional": typing.Optional, "Union": typing.Union}
    if not names <= set(known):
        return Any
    text = compile(ast.Expression(annotation), "annotation", "eval")
    return typing.Optional[eval(text, {"__builtins__": {}}, known)]  # noqa: UP045
