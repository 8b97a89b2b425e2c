"""`prepare`: tokenise what would be trained on into the cache, without a model.

    prepare [-c FILE]... [--KEY=VALUE]...

`fit` does it too, before it starts; done apart, it needs no accelerator, and a source of millions
of rows takes minutes. Started again after it was stopped, it goes on from its last complete chunk.
"""

from tell_lightning.commands.check import check, print_help
from tell_lightning.commands.startup import quieten
from tell_lightning.data.splits import read_splits


def prepare(arguments: list[str]) -> None:
    """Run the verb.

    Args:
        arguments: What follows the verb on the command line.
    """
    if {"-h", "--help"} & set(arguments):
        print_help("prepare")
        return
    config = check(arguments)
    text = read_splits(config.data)
    quieten()
    from tell_lightning.data import store
    from tell_lightning.data.preparation import Preparation, training_sources
    from tell_lightning.data.templates import Renderer
    from tell_lightning.data.tokenizer import load_tokenizer
    from tell_lightning.data.tokens import Encoder

    tokenizer = load_tokenizer(config.model.base, **config.model.hub_options)
    preparation = Preparation(config.data, Encoder(tokenizer, Renderer(tokenizer)))
    for source in training_sources(config.data, text):
        preparation.prepare([source])
        folder = preparation.folder(source)
        found = store.load(folder)
        left_out = [
            f"{count:,} {reason.replace('_', ' ')}"
            for reason, count in found.report["counts"].items()
            if count and reason not in {"read", "kept"}
        ]
        print(
            f"{source.name}: {len(found.rows):,} rows, {found.lengths.tokens.sum():,} tokens, "
            f"{folder}; left out: {', '.join(left_out) or 'nothing'}"
        )
