"""The command line of a command, read by argparse.

Each command declares its options once, with a `CommandParser`, and `--help` is made of these
declarations. A user's mistake becomes a `ConfigError` of one line. Nothing here imports torch.
"""

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from tell_lightning.errors import did_you_mean
from tell_lightning.files import write_whole
from tell_lightning.settings import ConfigError

KEYS = "[-c FILE]... [--KEY=VALUE]..."
"""How the usage of a command says that it takes configuration files and keys."""
SECTIONS = {
    *("seed_everything", "run", "data", "model", "eval", "tune", "trainer"),
    *("config", "print_config"),
}
"""First parts of the keys that the parser of the configuration takes."""
NO_VALUE = "needs a value, got none. Give it one."

_FORMS = (
    (r"argument (?:\S+/)?(\S+): expected one argument", f"{{0}}: {NO_VALUE}"),
    (
        r"argument (?:\S+/)?(\S+): ignored explicit argument (.+)",
        "{0}: takes no value, got {1}. Write {0} alone, or see `{command} --help`.",
    ),
    (
        r"argument (?:\S+/)?(\S+): invalid choice: (.+) \(choose from (.+)\)",
        "{0}: must be one of {2}, got {1}. Choose one of them.",
    ),
    (
        r"argument (\S+): not allowed with argument (\S+)",
        "{0}: must not be given together with {1}, got both. Leave one of them out.",
    ),
    (
        r"one of the arguments (.+) is required",
        "{command}: needs one of {0}, got none. See `{command} --help`.",
    ),
    (
        r"the following arguments are required: (.+)",
        "{command}: needs {0}, got none. See `{command} --help`.",
    ),
    (r"argument (?:\S+/)?(\S+): (.+)", "{0}: {1}"),
)
"""What argparse says of a mistake, and the same in our form."""


class CommandParser(argparse.ArgumentParser):
    """Reads the options of one command; a mistake is raised, never printed."""

    def __init__(
        self,
        command: str,
        description: str,
        *,
        keys: str = "",
        list_keys: Callable[[], str] | None = None,
    ) -> None:
        """Start without options; `add_argument` adds them.

        Args:
            command: Name of the command.
            description: What it does, for `--help`.
            keys: How the usage shows the keys of the configuration, where the command takes them.
            list_keys: Returns the end of `--help`, which lists these keys.
        """
        super().__init__(
            prog=f"python -m tell_lightning {command}",
            description=description.strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.register("type", None, as_text)  # where none is given
        self._command, self._keys, self._list_keys = command, keys, list_keys

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Read a command line.

        Args:
            arguments: What follows the command.

        Raises:
            ConfigError: An option that does not exist, or a value that is missing or wrong.
        """
        options, keys = self.parse_with_keys(arguments)
        if keys:
            raise ConfigError(
                f"{self._command}: must get no further arguments, got '{keys[0]}'. "
                f"Leave it out, or see `{self._command} --help`."
            )
        return options

    def parse_with_keys(self, arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """Read the command's own options; return the rest, for the parser of the configuration.

        Args:
            arguments: What follows the command.

        Raises:
            ConfigError: As `parse`; wrong keys of the configuration are left to its parser.
        """
        for argument in arguments:
            self._check_name(argument.partition("=")[0])
        return self.parse_known_args(arguments)

    def format_help(self) -> str:
        """Write the usage, the options and, where there are any, the keys."""
        if self._keys and self.usage is None:
            self.usage = f"{self.format_usage().strip().removeprefix('usage: ')} {self._keys}"
        own = super().format_help()
        return f"{own}\n{self._list_keys()}" if self._list_keys else own

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print."""
        for pattern, form in _FORMS:
            if found := re.fullmatch(pattern, message, re.DOTALL):
                raise ConfigError(form.format(*found.groups(), command=self._command))
        raise ConfigError(f"{self._command}: {message}. See `{self._command} --help`.")

    def _check_name(self, name: str) -> None:
        """Refuse an option that does not exist; of a wrong key only what is like an option."""
        own = list(self._option_string_actions)
        section = name.removeprefix("--").partition(".")[0]
        if not name.startswith("--") or name in own or (self._keys and section in SECTIONS):
            return
        advice = did_you_mean(name, own)
        if advice or not self._keys:
            raise ConfigError(
                f"{self._command}: options must be known, got '{name}'. "
                f"{advice or f'See `{self._command} --help`.'}"
            )


def whole_number(least: int) -> Callable[[str], int]:
    """Return a `type` of argparse for whole numbers of at most nine digits.

    Args:
        least: The smallest one that is taken.
    """

    def read(value: str) -> int:
        if not re.fullmatch("[0-9]{1,9}", value) or int(value) < least:
            raise argparse.ArgumentTypeError(
                f"must be a whole number from {least} on, of at most 9 digits, got '{value}'. "
                f"Write a number such as {least + 3}."
            )
        return int(value)

    return read


def as_text(value: str) -> str:
    """Refuse an empty value, such as that of a shell variable that is not set."""
    if not value:
        raise argparse.ArgumentTypeError(NO_VALUE)
    return value


def as_path(value: str) -> Path:
    """Read a path; a `type` of argparse."""
    return Path(as_text(value))


def write_file(flag: str, file: Path, content: bytes) -> None:
    """Write a file that an option names, completely or not at all.

    Raises:
        ConfigError: It cannot be written.
    """
    try:
        write_whole(file, content)
    except OSError as error:
        raise ConfigError(
            f"{flag}: must be a file that can be written, got '{file}': {error.strerror}. Name "
            f"another one with {flag} FILE."
        ) from error
