"""The command line: finds the command, and answers mistakes with one line instead of a traceback.

    python -m tell_lightning fit [-c FILE]... [--resume RUN] [--KEY=VALUE]...

A command's module is imported when it is called, so that no command pays for another one's imports.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from tell_lightning import __version__
from tell_lightning.commands.streams import check_words, make_usable
from tell_lightning.errors import TellError, did_you_mean
from tell_lightning.files import full_disk
from tell_lightning.memory import is_out_of_memory

COMMANDS = {
    "fit": "train adapters on anchored task examples mixed into general ones, and score them",
    "tune": "find the best adapter that a budget allows, and say whether TELL has helped",
    "validate": "score a run's adapter on the dev sets",
    "test": "score a run's adapter on the test sets",
    "predict": "answer the rows of a file or of standard input",
    "export": "write a run's adapter, or the merged model, as servers need it",
    "report": "write one run, or all experiments, as an HTML page that opens without a network",
    "compare": "say whether two predictions files differ by more than chance",
    "neural": "score a predictions file by COMET or BLEURT, in an environment of their own",
    "prepare": "tokenise the training rows into the cache, without training",
    "experiment": "run, in parallel, what an experiment has no result of yet",
    "plan": "show the resolved mixture, and rendered examples, without training",
    "help": "explain a key of the configuration, or all of them",
}

_MODULES = {
    "help": "commands.reference",
    "validate": "commands.evaluate",
    "test": "commands.evaluate",
    "neural": "neural.command",
}

HELP = """usage: python -m tell_lightning COMMAND ...

Teach a language model a task from a handful of examples: anchored task rows, shuffled into
abundant general instruction data, trained with LoRA (TELL, arXiv 2404.00914).

commands:
{commands}

  COMMAND --help   shows the options of a command
  --version        shows the version

`fit` without options runs the demo, `-c microworld`, in about two minutes on two cores.
"""


def main(args: Sequence[str] | None = None) -> None:
    """Run a command; exits with 2 on a user's mistake, with 130 on Ctrl+C.

    Args:
        args: The command line without the program's name; None takes it from the process.
    """
    make_usable()
    arguments = list(sys.argv[1:] if args is None else args)
    if not arguments or arguments[0] in {"-h", "--help"}:
        commands = "\n".join(f"  {name:<10} {what}" for name, what in COMMANDS.items())
        print(HELP.format(commands=commands), end="")
        return
    if arguments[0] == "--version":
        print(__version__)
        return
    try:
        check_words(arguments)
        _command(arguments[0])(arguments[1:])
        sys.stdout.flush()
    except TellError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, SystemExit) as error:
        # Lightning turns Ctrl+C into an exit with 1.
        if isinstance(error, SystemExit) and not isinstance(error.__context__, KeyboardInterrupt):
            raise
        print("stopped", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:  # the reader of the output, such as `head`, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if (reason := full_disk(error)) is not None:
            cure = "Free some room, or let it write elsewhere; then go on or start again."
            message = f"disk: must take what is written, got: {reason}. {cure}"
        elif is_out_of_memory(error):
            got = (str(error).splitlines() or [""])[0] or type(error).__name__
            message = f"memory: must hold what is computed, got none left: {got:.160}. End other "
            message += "programs, or use a machine with more."
        else:
            raise
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)


def _command(name: str) -> Callable[[list[str]], None]:
    if name not in COMMANDS:
        advice = did_you_mean(name, list(COMMANDS)) or "See --help."
        raise TellError(
            f"command line: the command must be one of {', '.join(COMMANDS)}, got '{name}'. "
            f"{advice}"
        )
    module = import_module(f"tell_lightning.{_MODULES.get(name, f'commands.{name}')}")
    command: Callable[[list[str]], None] = getattr(module, name)
    return command
