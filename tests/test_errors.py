"""Messages about a user's mistake: one line, whatever other packages say."""

from tell_lightning.errors import TellError


def test_line_breaks_of_other_packages_become_spaces():
    error = TellError(
        "a.parquet: must be whole, got: no magic\r\n  bytes\u2028 here.\nWrite it again."
    )
    assert str(error) == "a.parquet: must be whole, got: no magic bytes here. Write it again."


def test_bad_rows_are_listed_below_the_line():
    error = TellError(
        "a.jsonl: at most 1 bad row, got 2. The first:", ["a.jsonl:3: x", "a.jsonl:7: y"]
    )
    assert str(error).splitlines()[1:] == ["  a.jsonl:3: x", "  a.jsonl:7: y"]
