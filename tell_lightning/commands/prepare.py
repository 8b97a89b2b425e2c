"""`prepare`: tokenise what would be trained on into the cache, without a model."""

from tell_lightning.commands.arguments import KEYS, CommandParser
from tell_lightning.commands.check import check
from tell_lightning.commands.general import with_written_rows
from tell_lightning.commands.plan import reasons_left_out
from tell_lightning.commands.reference import keys_help
from tell_lightning.commands.startup import quieten
from tell_lightning.data.splits import read_splits

DESCRIPTION = """
Tokenise the training rows into the cache, without a model.

`fit` does the same before it trains. On its own it needs no accelerator; a source of millions of
rows takes minutes. After a stop, the same command continues from the last complete chunk.
"""


def prepare(arguments: list[str]) -> None:
    """Run the command.

    Args:
        arguments: What follows the command on the command line.
    """
    parser = CommandParser("prepare", DESCRIPTION, keys=KEYS, list_keys=keys_help)
    _, options = parser.parse_with_keys(arguments)
    config = check(options)
    config, written = with_written_rows(config)
    text = read_splits(config.data)
    quieten()
    from tell_lightning.data import store
    from tell_lightning.data.preparation import Preparation, training_sources
    from tell_lightning.data.templates import Renderer
    from tell_lightning.data.tokenizer import load_tokenizer
    from tell_lightning.data.tokens import Encoder

    tokenizer = load_tokenizer(config.model.base, **config.model.hub_options)
    preparation = Preparation(
        config.data, Encoder(tokenizer, Renderer(tokenizer, config.data.thinking))
    )
    for line in written:
        print(line)
    for source in training_sources(config.data, text):
        preparation.prepare([source])
        folder = preparation.folder(source)
        found = store.load(folder)
        left_out = reasons_left_out(found.report["counts"])
        print(
            f"{source.name}: {len(found.rows):,} rows, {found.lengths.tokens.sum():,} tokens, "
            f"{folder}; left out: {', '.join(left_out) or 'nothing'}"
        )
