"""General sources whose rows the base writes itself: written before a command reads any rows."""

from dataclasses import replace

from tell_lightning.commands.check import Config
from tell_lightning.commands.startup import quieten
from tell_lightning.data.splits import check_general, read_splits


def with_written_rows(config: Config) -> tuple[Config, list[str]]:
    """Let the base write the rows of each source with `generate`, unless they are in the cache.

    Args:
        config: The checked configuration.

    Returns:
        The configuration in which these sources are files, and a line about each of them.

    Raises:
        TellError: Other rows of the run have a mistake, the base opens no turn of a user, or too
            few of its rows are fit to train on.
    """
    data = config.data
    check_general(data.general)
    others = {name: each for name, each in data.general.items() if each.generate is None}
    if len(others) == len(data.general):
        return config, []
    if others or data.tasks:  # their mistakes are told first, for writing may take an hour
        read_splits(replace(data, general=others))
    quieten()
    from tell_lightning.generation.instructions import write_rows

    general, lines = dict(data.general), []
    for name, source in data.general.items():
        if source.generate is None:
            continue
        key = f"data.general.{name}.generate"
        written = write_rows(config.model, data, source, seed=config.seed, key=key)
        train, held_out = written.rows, source.held_out
        if held_out is None and written.held_out is not None:
            train, held_out = written.train, str(written.held_out)
        general[name] = replace(
            source, generate=None, closings=(), train=str(train), held_out=held_out
        )
        lines.append(f"{name}: {written.line}; {written.rows}")
    return replace(config, data=replace(data, general=general)), lines
