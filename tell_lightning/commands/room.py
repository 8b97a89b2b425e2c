"""Say in one line that memory ran out, and which keys decide how much is needed."""

from collections.abc import Iterator
from contextlib import contextmanager

from tell_lightning.commands.check import Config
from tell_lightning.errors import TellError
from tell_lightning.memory import is_out_of_memory


class MemoryRanOutError(TellError):
    """A training or a scoring that needs more memory than there is."""


@contextmanager
def room_to_train(config: Config) -> Iterator[None]:
    """Turn memory that runs out while the body trains into an error of one line.

    Raises:
        MemoryRanOutError: Memory ran out.
    """
    data = config.data
    keys = [f"data.max_tokens (now {data.max_tokens:,})"]
    if data.micro_batch != 1:
        keys.insert(0, _micro_batch(config))
    cure = f"Lower {' or '.join(keys)}"
    if not config.model.activation_checkpointing:
        cure += ", or set model.activation_checkpointing: true"
    with _room("training", "a forward and backward pass", f"{cure}."):
        yield


@contextmanager
def room_to_score(config: Config) -> Iterator[None]:
    """Turn memory that runs out while the body scores into an error of one line.

    Generation has made its batches smaller by then, or says itself that a single prompt is too
    much; the loss of rows is computed in batches of `data.micro_batch` rows.

    Raises:
        MemoryRanOutError: Memory ran out.
    """
    keys = f"eval.batch_tokens (now {config.eval.batch_tokens:,})"
    if config.data.micro_batch != 1:
        keys += f" or {_micro_batch(config)}"
    with _room("scoring", "answers and losses", f"Lower {keys}, or a task's max_new_tokens."):
        yield


def _micro_batch(config: Config) -> str:
    size = config.data.micro_batch
    return f"data.micro_batch (now {'auto, set a number' if size == 'auto' else size})"


@contextmanager
def _room(what: str, purpose: str, cure: str) -> Iterator[None]:
    try:
        yield
    except TellError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        got = (str(error).splitlines() or [""])[0][:160] or type(error).__name__
        raise MemoryRanOutError(
            f"{what}: must find memory for {purpose}, got none left ({got.rstrip('. ')}). {cure}"
        ) from error
