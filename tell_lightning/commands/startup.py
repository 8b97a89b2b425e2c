"""What every verb does first."""

import logging
import os
import warnings

from tell_lightning.commands.check import ConfigError

ADVERTS = (
    "litlogger",
    "GPU available",
    "TPU available",
    "val_check_interval=1",
    "Seed set to",
    "`Trainer.fit` stopped",
    "Restoring states from the checkpoint",
    "Restored all states from the checkpoint",
    "Tensor Cores",  # of float32 products; what we train computes in bfloat16 on a GPU
)
"""Parts of Lightning's messages that tell a user of ours nothing."""


def wants_usage(arguments: list[str], module: str | None) -> bool:
    """Print how a verb is used, where that is asked for.

    Args:
        arguments: What follows the verb on the command line.
        module: Docstring of the verb's module: a title, and the usage, which is indented.
    """
    if not {"-h", "--help"} & set(arguments):
        return False
    assert module is not None
    print(f"usage: python -m tell_lightning {module.split('    ', 1)[1].strip()}")
    return True


def take_option(arguments: list[str], flag: str) -> tuple[str | None, list[str]]:
    """Take `--flag VALUE` or `--flag=VALUE` out of a command line.

    Raises:
        ConfigError: The flag has no value.

    >>> take_option(["-c", "a.yaml", "--resume", "runs/x"], "--resume")
    ('runs/x', ['-c', 'a.yaml'])
    """
    rest: list[str] = []
    value = None
    walk = iter(arguments)
    for argument in walk:
        if argument == flag:
            value = next(walk, "")
        elif argument.startswith(f"{flag}="):
            value = argument.partition("=")[2]
        else:
            rest.append(argument)
    if value == "":
        raise ConfigError(f"{flag}: needs a value, got none. Write {flag} VALUE.")
    return value, rest


def quieten() -> None:
    """Keep libraries from writing what no user of ours can act on."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
        logging.getLogger(name).addFilter(_says_something)
    for message in (
        ".*LightningCLI's args parameter.*",  # we pass on what `check` has accepted
        ".*LeafSpec.*",  # torch 2.13 of Lightning 2.6
        ".*is_gradient_checkpointing.*",  # transformers 5 of PEFT 0.21
        ".*does not have many workers.*",  # reading rows from memory needs none
        ".*sync_dist=True.*",  # what we log is equal on all ranks already
        ".*need to be provided.*EarlyStopping.*",  # patience: null on resume
        ".*Checkpoint directory .* exists and is not empty.*",  # so it is on resume
    ):
        warnings.filterwarnings("ignore", message=message)


def _says_something(entry: logging.LogRecord) -> bool:
    return not any(part in entry.getMessage() for part in ADVERTS)
