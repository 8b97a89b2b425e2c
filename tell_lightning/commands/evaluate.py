"""`validate` and `test`: score a run's adapter again, on dev or on test."""

from typing import Literal

from tell_lightning.callbacks.folder import RunFolder, existing_folder, read_record, write_json
from tell_lightning.commands.arguments import KEYS, CommandParser
from tell_lightning.commands.check import Config, check
from tell_lightning.commands.reference import keys_help
from tell_lightning.commands.startup import quieten
from tell_lightning.commands.trust import (
    TRUST,
    TRUST_HELP,
    check_trust,
    model_code,
    scoring_code,
    trainer_code,
)
from tell_lightning.data.splits import Splits, read_splits
from tell_lightning.settings import ConfigError

DESCRIPTION = """
Score the adapter of a run on the {0} rows of its tasks.

The run's own configuration is used; typed keys win over it. The scores go to scores-{0}.json in
the run's folder, the predictions to its predictions/.
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
    _score(split, folder, options, config, read_splits(config.data))


def _score(
    split: str, folder: RunFolder, options: list[str], config: Config, splits: Splits
) -> None:
    quieten()
    from tell_lightning.callbacks.run_record import scores_json
    from tell_lightning.commands.session import open_session
    from tell_lightning.commands.tables import print_next, print_scores

    session = open_session(config, folder, splits, training=False, adapter=folder.adapter)
    module, trainer = session.module, session.trainer
    module.trained_steps = trained_steps(folder)
    run = trainer.validate if split == "dev" else trainer.test
    run(module, datamodule=session.datamodule, verbose=False)
    if split == "test" and config.eval.anchor_check and session.datamodule.swap_anchor():
        run(module, datamodule=session.datamodule, verbose=False)
    if trainer.is_global_zero:
        metrics = scores_json(session.evaluation)
        swapped = {name: found for name, found in metrics.items() if name.startswith("test_")}
        write_json(folder.path / f"scores-{split}.json", metrics[split] | swapped)
        if len(options) == 2:  # the run's own configuration: the base was scored on these rows
            scored = read_record(folder).get("metrics", {}).get(split, {})
            metrics[split]["before"] = scored.get("before")
        print_scores(metrics)
        print_next(folder.path, next(iter(config.data.tasks)))


def trained_steps(folder: RunFolder) -> int:
    """Return the step of the exported adapter from the run record; 0 if it has none."""
    return int(read_record(folder).get("selected", {}).get("step", 0))
