"""`validate` and `test`: score a run's adapter again, on dev or on test.

    validate RUN [--KEY=VALUE]...        test RUN [--KEY=VALUE]...

The run's own configuration is used; what is typed after it wins. The scores go to
`scores-dev.json` or `scores-test.json` in the run's folder, the predictions beside the others.
"""

from typing import Literal

from tell_lightning.callbacks.folder import RunFolder, existing_folder, read_record, write_json
from tell_lightning.commands.check import Config, ConfigError, check, print_help
from tell_lightning.commands.startup import quieten
from tell_lightning.data.splits import Splits, read_splits


def validate(arguments: list[str]) -> None:
    """Score on dev.

    Args:
        arguments: What follows the verb on the command line.
    """
    _evaluate("validate", "dev", arguments)


def test(arguments: list[str]) -> None:
    """Score on test.

    Args:
        arguments: What follows the verb on the command line.
    """
    _evaluate("test", "test", arguments)


def _evaluate(verb: str, split: Literal["dev", "test"], arguments: list[str]) -> None:
    if {"-h", "--help"} & set(arguments):
        print_help(verb)
        return
    if not arguments or arguments[0].startswith("-"):
        raise ConfigError(
            f"{verb}: needs the folder of a run, got none. Write `{verb} runs/NAME`; `fit` prints "
            "the folder that it writes to."
        )
    folder = existing_folder(arguments[0])
    options = ["-c", str(folder.latest_config), *arguments[1:]]
    config = check(options)
    if not any(task.has(split) for task in config.data.tasks.values()):
        raise ConfigError(
            f"data.tasks: {verb} needs a task with {split} rows, got none. "
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
    """Return the step of the exported adapter, as the run record says; 0 where it does not."""
    return int(read_record(folder).get("selected", {}).get("step", 0))
