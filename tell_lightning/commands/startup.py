"""What every command does before it trains or answers: keep libraries quiet."""

import logging
import os
import warnings

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
"""Parts of messages of Lightning that tell our users nothing."""


def quieten() -> None:
    """Hide messages of libraries that our users can do nothing about."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
        logging.getLogger(name).addFilter(_says_something)
    # PEFT imports it where it is installed; it says that a package of kernels from the hub is not.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    for message in (
        ".*LightningCLI's args parameter.*",  # `check` has accepted the arguments already
        ".*LeafSpec.*",  # Lightning 2.6 calls what torch 2.13 deprecates
        ".*is_gradient_checkpointing.*",  # PEFT 0.21 calls what transformers 5 deprecates
        ".*does not have many workers.*",  # rows are read from memory
        ".*sync_dist=True.*",  # what we log is the same on all ranks
        ".*need to be provided.*EarlyStopping.*",  # patience: null on resume
        ".*Checkpoint directory .* exists and is not empty.*",  # always so on resume
    ):
        warnings.filterwarnings("ignore", message=message)


def _says_something(entry: logging.LogRecord) -> bool:
    return not any(part in entry.getMessage() for part in ADVERTS)
