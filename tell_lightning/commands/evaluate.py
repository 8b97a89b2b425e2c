"""`validate` and `test`: score a run's adapter again, on dev or on test."""

import json
from hashlib import sha256
from typing import Any, Literal

from tell_lightning.callbacks.folder import RunFolder, existing_folder, read_record, write_json
from tell_lightning.callbacks.settings import SWAPPED
from tell_lightning.commands.arguments import KEYS, CommandParser
from tell_lightning.commands.check import Config, check
from tell_lightning.commands.general import with_written_rows
from tell_lightning.commands.reference import keys_help
from tell_lightning.commands.room import room_to_score
from tell_lightning.commands.startup import quieten
from tell_lightning.commands.trust import (
    TRUST,
    TRUST_HELP,
    check_trust,
    model_code,
    scoring_code,
    trainer_code,
)
from tell_lightning.data.base_files import ACCEPT, ACCEPT_HELP, check_base
from tell_lightning.data.splits import Splits, read_splits
from tell_lightning.export.anchor_file import check_weights, read_anchor_file
from tell_lightning.model.settings import ModelSettings
from tell_lightning.settings import ConfigError

DESCRIPTION = """
Score the adapter of a run on the {0} rows of its tasks.

The run's own configuration is used; typed keys win over it. The scores go to scores-{0}.json in
the run's folder, the predictions to its predictions/. If typed keys change the rows or their
answers, such as --eval.{0}_rows=2, both go to a folder of their own, RUN/scorings/{0}-DIGEST.
"""


def validate(arguments: list[str]) -> None:
    """Score on dev.

    Args:
        arguments: What follows the command on the command line.
    """
    _evaluate("validate", "dev", arguments)


def test(arguments: list[str]) -> None:
    """Score on test.

    Args:
        arguments: What follows the command on the command line.
    """
    _evaluate("test", "test", arguments)


def _evaluate(command: str, split: Literal["dev", "test"], arguments: list[str]) -> None:
    parser = CommandParser(command, DESCRIPTION.format(split), keys=KEYS, list_keys=keys_help)
    parser.add_argument("run", metavar="RUN", help="the folder of a run, which `fit` printed")
    parser.add_argument(TRUST, action="store_true", help=TRUST_HELP)
    parser.add_argument(ACCEPT, action="store_true", help=ACCEPT_HELP)
    asked, keys = parser.parse_with_keys(arguments)
    folder = existing_folder(asked.run)
    options = ["-c", str(folder.latest_config), *keys]
    config = check(options)
    if not asked.trust:
        values = config.values
        code = scoring_code(values, "kind", "function") | model_code(values) | trainer_code(values)
        check_trust(folder.path, code, keys)
    if not any(task.has(split) for task in config.data.tasks.values()):
        raise ConfigError(
            f"data.tasks: {command} needs a task with {split} rows, got none. "
            f"Add data.tasks.NAME.{split}."
        )
    check_weights(folder.adapter, read_anchor_file(folder.adapter))
    own = config if not keys else check(options[:2])
    wanted, target = _what_decides(config, split), folder
    if wanted != _what_decides(own, split):
        digest = sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:8]
        target = RunFolder(folder.path / "scorings" / f"{split}-{digest}")
    config, _ = with_written_rows(config)
    splits = read_splits(config.data)
    _score(split, folder, target, config, splits, accept_base=asked.accept_base)


def _what_decides(config: Config, split: str) -> dict[str, Any]:
    """Return what decides the rows that are scored, and their answers and scores."""
    data = {key: v for key, v in config.values["data"].items() if key not in {"root", "cache_dir"}}
    scored = {key: config.values["eval"][key] for key in (f"{split}_rows", "temperature")}
    return {"seed": config.seed, "data": data, "model": config.values["model"], "eval": scored}


def _score(
    split: str,
    folder: RunFolder,
    target: RunFolder,
    config: Config,
    splits: Splits,
    *,
    accept_base: bool,
) -> None:
    """Score the adapter of a run, and write to the folder of the run or to one of its own."""
    quieten()
    from tell_lightning.callbacks.run_record import scores_json
    from tell_lightning.commands.session import open_session
    from tell_lightning.commands.tables import print_next, print_scores

    session = open_session(config, target, splits, training=False, adapter=folder.adapter)
    if not accept_base:
        check_run_base(folder, config.model)
    module, trainer = session.module, session.trainer
    module.trained_steps = trained_steps(folder)
    run = trainer.validate if split == "dev" else trainer.test
    with room_to_score(config):
        run(module, datamodule=session.datamodule, verbose=False)
        if split == "test" and config.eval.anchor_check and session.datamodule.swap_anchor():
            run(module, datamodule=session.datamodule, verbose=False)
    if trainer.is_global_zero:
        metrics = scores_json(session.evaluation)
        swapped = {name: found for name, found in metrics.items() if name in SWAPPED}
        write_json(target.path / f"scores-{split}.json", metrics[split] | swapped)
        if target is folder:  # the base was scored on these rows
            scored = read_record(folder).get("metrics", {}).get(split, {})
            metrics[split]["before"] = scored.get("before")
        else:
            target.config.write_text(config.to_yaml(), encoding="utf-8")
        print_scores(metrics)
        if target is not folder:
            print(f"The run's own scores are unchanged; these are in {target.path}")
        print_next(folder.path, next(iter(config.data.tasks)))


def check_run_base(folder: RunFolder, model: ModelSettings) -> None:
    """Refuse another base than the one that a run was trained on.

    Raises:
        BaseModelError: Its files have changed, or another base is named.
    """
    saved = (read_record(folder).get("base") or {}).get("sha256")
    check_base(saved, model.base, model.revision)


def trained_steps(folder: RunFolder) -> int:
    """Return the step of the exported adapter from the run record; 0 if it has none."""
    return int(read_record(folder).get("selected", {}).get("step", 0))
