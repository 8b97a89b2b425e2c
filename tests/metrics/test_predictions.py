import pytest
from hypothesis import given
from hypothesis import strategies as st

from tell_lightning.metrics.predictions import strip_prefix

PREFIX = "Sure, here is the English translation: \n\n "


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PREFIX + "Hello.\nBye.", ("Hello.\nBye.", True)),
        ("Sure, here is the English translation:\nHello.", ("Hello.", True)),
        ("\n Sure,  here\tis the English translation: Hello. \n", ("Hello.", True)),
        ("Sure, here is the English translation:", ("", True)),
        (PREFIX + PREFIX + "Hello.", (PREFIX + "Hello.", True)),
        (
            "Sure, here is the English translation:Hello.",
            ("Sure, here is the English translation:Hello.", False),
        ),
        ("sure, here is the English translation: Hi", None),
        ("Sure, here is the English trans", None),
        (" Hello. " + PREFIX, ("Hello. " + PREFIX.strip(), False)),
        ("", ("", False)),
    ],
)
def test_the_prefix_is_taken_off_the_start_whatever_its_white_space(text, expected):
    assert strip_prefix(text, PREFIX) == (expected or (text, False))


@pytest.mark.parametrize("prefix", [None, "", " \n"])
def test_without_a_prefix_only_white_space_goes(prefix):
    assert strip_prefix("\n Hello. ", prefix) == ("Hello.", None)


@given(st.text(), st.text(min_size=1))
def test_what_is_put_before_a_text_is_taken_off_again(text, prefix):
    if prefix.strip():
        assert strip_prefix(prefix + text, prefix) == (text.strip(), True)


@pytest.mark.parametrize("pair", [("en-is", "Icelandic"), ("is-en", "English")])
def test_every_real_reference_begins_with_its_prefix(pair, read_tell):
    prefix = f"Sure, here is the {pair[1]} translation: \n\n "
    rows = read_tell(f"test-{pair[0]}.jsonl") + read_tell(f"dev-{pair[0]}.jsonl")
    for row in rows:
        assert strip_prefix(row["response"], prefix) == (row["response"][len(prefix) :], True)
