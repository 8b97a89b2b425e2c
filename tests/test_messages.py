"""The tests' own way to look at messages finds each part that is wrong."""

import pytest
from messages import says

TEXT = "x.yaml:3: eval.rows: must be from 1 to 99, got 100 rows. Set eval.limit, or drop --all."
RIGHT = {"where": "x.yaml:3: eval.rows", "rule": ["1", "99"], "got": "100", "cure": "eval.limit"}


def test_a_message_with_every_part_is_equal_whatever_its_words() -> None:
    assert says(**RIGHT) == TEXT
    other = "x.yaml:3: eval.rows: only from 1 to 99 is allowed, got: 100. Try eval.limit=9."
    assert other == says(**RIGHT)
    assert says(**RIGHT) == f"/a/folder/{TEXT}"


def test_an_error_is_looked_at_where_it_is_raised() -> None:
    with pytest.raises(ValueError, check=says(**RIGHT)):
        raise ValueError(TEXT)
    assert not says("elsewhere")(ValueError(TEXT))


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        ("where", "x.yaml:3: eval.row"),
        ("where", "x.yaml:2: eval.rows"),
        ("where", "eval.rows"),
        ("rule", "eval.limit"),
        ("got", "10"),
        ("got", "rows"),
        ("cure", ["eval.limit", "99"]),
    ],
)
def test_a_part_that_is_wrong_or_elsewhere_is_found(part: str, wrong: str | list[str]) -> None:
    assert says(**RIGHT | {part: wrong}) != TEXT


@pytest.mark.parametrize(
    "text",
    [TEXT.replace(", got", ", not"), TEXT.replace("Set", "\nSet"), f"a: /{TEXT}", f"a{TEXT}"],
)
def test_a_message_of_another_form_is_found(text: str) -> None:
    assert says("x.yaml:3: eval.rows") != text
