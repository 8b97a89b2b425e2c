"""Command lines: what a command takes, what it passes on, and how a mistake is worded."""

import argparse

import pytest

from tell_lightning.cli import COMMANDS
from tell_lightning.commands.arguments import KEYS, SECTIONS, CommandParser, as_path, whole_number
from tell_lightning.commands.check import check
from tell_lightning.settings import ConfigError


@pytest.fixture
def parser() -> CommandParser:
    made = CommandParser("sing", "Sing a song.", keys=KEYS, list_keys=lambda: "THE KEYS")
    made.add_argument("song", metavar="SONG", type=as_path)
    made.add_argument("--times", type=whole_number(1), default=1)
    made.add_argument("--voice", choices=("high", "low"))
    made.add_argument("--key-of", metavar="NOTE")
    made.add_argument("--loud", action="store_true")
    return made


def test_what_is_no_option_of_the_command_is_passed_on_in_its_order(parser):
    keys = ["-c", "a.yaml", "--data={tasks: {}}", "--model.base", "x y", "--run.name=loud"]
    options, rest = parser.parse_with_keys(["a.txt", "--times=3", *keys[:3], "--loud", *keys[3:]])
    assert (options.song.name, options.times, options.loud) == ("a.txt", 3, True)
    assert rest == keys


def test_help_is_made_of_the_declarations_and_ends_with_the_keys(parser, capsys):
    for _ in range(2):  # the usage does not grow
        with pytest.raises(SystemExit) as exit_:
            parser.parse_with_keys(["--help"])
        assert exit_.value.code == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert shown.startswith("usage: python -m tell_lightning sing [-h] [--times TIMES]")
        assert f"SONG {KEYS} Sing a song." in shown
        assert shown.count("[--KEY=VALUE]...") == 1
        assert shown.endswith("THE KEYS")


def test_every_section_of_the_configuration_is_passed_on(parser):
    assert set(check([]).values) <= SECTIONS
    keys = [f"--{section}={{}}" for section in SECTIONS]
    assert parser.parse_with_keys(["a.txt", *keys])[1] == keys


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tmes=3"], "sing: options must be known, got '--tmes'. Did you mean '--times'?"),
        (["--tim=3"], "sing: options must be known, got '--tim'. Did you mean '--times'?"),
        (["--times"], "--times: needs a value, got none."),
        (["--times="], "--times: must be a whole number from 1 on, of at most 9 digits, got ''."),
        (["--times=0"], "--times: must be a whole number from 1 on, of at most 9 digits, got '0'."),
        (["--times=1234567890"], "--times: must be a whole number from 1 on, of at most 9 digits,"),
        (["--times=²"], "--times: must be a whole number from 1 on, of at most 9 digits, got '²'."),
        (["--voice=deep"], "--voice: must be one of 'high', 'low', got 'deep'. Choose one of"),
        (
            ["--loud=yes"],
            "--loud: takes no value, got 'yes'. Write --loud alone, or see `si",
        ),
        (["--key-of="], "--key-of: needs a value, got none."),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(parser, arguments, message):
    with pytest.raises(ConfigError) as caught:
        parser.parse_with_keys(["a.txt", *arguments])
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_what_is_needed_and_what_is_too_much_is_named(parser):
    with pytest.raises(ConfigError, match=r"^sing: needs SONG, got none\. See `sing --help`\.$"):
        parser.parse([])
    with pytest.raises(ConfigError, match=r"^SONG: needs a value, got none\."):
        parser.parse([""])
    with pytest.raises(ConfigError, match=r"^sing: must get no further arguments, got 'b'\."):
        parser.parse(["a", "b"])


def test_no_option_may_be_cut_short():
    parser = CommandParser("sing", "Sing.")
    parser.add_argument("--times")
    with pytest.raises(ConfigError, match=r"got '--tim'\. Did you mean '--times'\?"):
        parser.parse(["--tim", "3"])
    with pytest.raises(ConfigError, match=r"got '--frob'\. See `sing --help`"):
        parser.parse(["--frob"])
    assert parser.parse([]) == argparse.Namespace(times=None)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_of_its_own(name, capsys):
    from tell_lightning.cli import main

    with pytest.raises(SystemExit) as exit_:
        main([name, "--help"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m tell_lightning {name} [-h]")
