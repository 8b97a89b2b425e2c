import json

import pydantic_core
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tell_lightning.metrics.json_text import NOTHING, is_repairable, read_object, read_value


def test_a_value_is_read_whole_or_not_at_all():
    assert read_object('{"a": 1}') == {"a": 1}
    assert read_object("{}") == {}
    assert read_object("1") is None
    assert read_value(" [1, null] ") == [1, None]
    assert read_value("null") is None
    for text in ("", "[1] and more", "NaN", "{'a': 1}", "[" * 100_000):
        assert read_value(text) is NOTHING


@settings(deadline=None)
@given(st.dictionaries(st.text(), st.text()))
def test_any_object_is_read_back(value):
    assert read_object(f"  {json.dumps(value)}\n") == value


@settings(deadline=None)
@given(
    st.dictionaries(st.text(), st.text() | st.integers() | st.booleans() | st.none(), min_size=1),
    st.integers(0, 200),
    st.sampled_from(["", "x", ",", '"', "}", "1", " "]),
)
def test_what_is_valid_json_is_what_another_parser_takes(value, place, mark):
    text = json.dumps(value, ensure_ascii=False)
    place %= len(text)
    damaged = text[:place] + mark + text[place + 1 :]
    try:
        theirs = pydantic_core.from_json(damaged, allow_inf_nan=False)
    except ValueError:
        theirs = None
    assert read_object(damaged) == (theirs if isinstance(theirs, dict) else None)


@pytest.mark.parametrize(
    ("text", "repairable"),
    [
        ('{"a": 1}', True),
        ('```json\n{"a": 1}\n```', True),
        ('My verdict: {"a": {"b": 1}} I hope it helps.', True),
        ('{"a": [1, 2, ], }', True),
        ("{'a': 'it is', 'b': None, 'c': True}", True),
        ("{'a': \"it's\"}", True),
        ("{'a': 'C:\\d'}", True),
        ('{"a": "x,}"}', True),
        ('{"a": "x,}",}', True),
        ('{"a": 1', False),
        ('{"a": 1} {"b": 2}', False),
        ("{'a', 'b'}", False),
        ("{'a': b'x'}", False),
        ("{'a': 1e999}", False),
        ("{'a': __import__('os')}", False),
        ('{"a": "x" "b": 1}', False),
        ("{a: 1}", False),
        ("[1]", False),
        ("yes", False),
        ("}{", False),
        ("", False),
        ("{'a':" * 100_000 + "}", False),
    ],
)
def test_a_repair_takes_wrapping_commas_and_quotes_off_and_guesses_nothing(text, repairable):
    assert is_repairable(text) == repairable


@settings(deadline=None)
@given(st.dictionaries(st.text(), st.text() | st.integers() | st.booleans() | st.none()))
def test_what_python_prints_of_an_object_is_repairable_and_a_half_of_it_is_not(value):
    assert is_repairable(f"Here: {value!r}.")
    assert is_repairable(json.dumps(value))
    assert not is_repairable(json.dumps(value)[:-1].replace("}", ""))
