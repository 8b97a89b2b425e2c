"""Ids are given once: the first row of an id is found whichever process has seen it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tell_lightning.data.ids import Ids

fixed = settings(derandomize=True, max_examples=60)
lists = st.lists(st.text(max_size=2), max_size=30)


@fixed
@given(lists, st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)))
def test_the_first_row_of_an_id_is_found(
    names: list[str], settled: set[int], stopped: set[int]
) -> None:
    """Against a dictionary, with tables settled, and handed to a new process, at any row."""
    ids, tables, known = Ids(), [], dict[str, int]()
    for number, name in enumerate(names, start=1):
        assert ids.first(name, number) == known.get(name)
        known.setdefault(name, number)
        if number in settled | stopped:
            tables.append(ids.settle())
        if number in stopped:
            ids = Ids()
            for table in tables:
                ids.extend(table)


def test_settling_returns_what_is_new() -> None:
    ids = Ids()
    sizes = []
    for names in ("ab", "cb", "", "d"):
        for number, name in enumerate(names):
            ids.first(name, number)
        sizes.append(ids.settle().shape)
    assert sizes == [(2, 2), (2, 1), (2, 0), (2, 1)]
