"""The command line: finds the verb, and answers mistakes with one line instead of a traceback.

    python -m tell_lightning fit [-c FILE]... [--resume RUN] [--KEY=VALUE]...

What needs no torch is answered before torch is imported.
"""

import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from tell_lightning import __version__
from tell_lightning.errors import TellError

VERBS = {
    "fit": "train adapters on anchored task examples mixed into general ones, and score them",
    "validate": "score a run's adapter on the dev sets",
    "test": "score a run's adapter on the test sets",
    "predict": "answer rows of a file or of standard input",
    "report": "write one run, or all experiments, as an HTML page that opens without a network",
    "compare": "say whether two predictions files differ by more than chance",
    "neural": "score a predictions file by COMET or BLEURT, in an environment of their own",
    "prepare": "tokenise the training rows into the cache, without training",
    "experiment": "run the cells of an experiment that have no result yet, in parallel",
    "plan": "show the resolved mixture, and rendered examples, without training",
}

_MODULES = {"validate": "evaluate", "test": "evaluate"}

HELP = """usage: python -m tell_lightning VERB ...

Teach a language model a task from a handful of examples: anchored task rows, shuffled into
abundant general instruction data, trained with LoRA (TELL, arXiv 2404.00914).

verbs:
{verbs}

  VERB --help   shows the options of a verb
  --version     shows the version

`fit` without options trains on the embedded default, in about two minutes on two cores.
"""


def main(args: Sequence[str] | None = None) -> None:
    """Run a verb; exits with 2 on a user's mistake, with 130 on Ctrl+C.

    Args:
        args: The command line without the program's name; None takes it from the process.
    """
    arguments = list(sys.argv[1:] if args is None else args)
    if not arguments or arguments[0] in {"-h", "--help"}:
        verbs = "\n".join(f"  {verb:<10} {what}" for verb, what in VERBS.items())
        print(HELP.format(verbs=verbs), end="")
        return
    if arguments[0] == "--version":
        print(__version__)
        return
    try:
        _verb(arguments[0])(arguments[1:])
    except TellError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def _verb(name: str) -> Callable[[list[str]], None]:
    if name not in VERBS:
        raise TellError(
            f"command line: the verb must be one of {', '.join(VERBS)}, got '{name}'. See --help."
        )
    module = import_module(f"tell_lightning.commands.{_MODULES.get(name, name)}")
    verb: Callable[[list[str]], None] = getattr(module, name)
    return verb
