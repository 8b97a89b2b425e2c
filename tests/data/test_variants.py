from typing import Any

import pytest

from tell_lightning.data.anchors import Anchor
from tell_lightning.data.records import Record, Turn
from tell_lightning.data.variants import apply_anchor, variant_anchor

ANCHOR = Anchor(text="Put this into English.", response_prefix="Here it is: ")


def record(prompt: str, response: str = "A dog.", id: str = "1") -> Record:
    return Record(id, "f:1", (Turn("user", prompt), Turn("assistant", response)), {})


def texts(variant: Any, one: Record, anchor: Anchor = ANCHOR) -> list[str]:
    return [turn.content for turn in apply_anchor(one, anchor, variant).turns]


def test_each_variant_reads_as_it_should() -> None:
    plain = record("hundur")
    assert texts("given", plain) == ["Put this into English.\n\nhundur", "Here it is: A dog."]
    assert texts("none", plain) == ["hundur", "A dog."]
    assert texts("end", plain) == ["hundur\n\nPut this into English.", "Here it is: A dog."]
    prompt, response = texts("arbitrary", plain)
    words = prompt.removesuffix("\n\nhundur").split()
    assert len(words) == 4
    assert not set(words) & set(["Put", "this", "into", "English."])
    assert response == "Here it is: A dog."


def test_arbitrary_is_one_text_and_random_another_for_each_row() -> None:
    rows = [record("hundur", id=str(number)) for number in range(50)]
    assert len({texts("arbitrary", row)[0] for row in rows}) == 1
    assert len({texts("random", row)[0] for row in rows}) == 50
    assert texts("random", rows[3]) == texts("random", rows[3])
    other = Anchor(text="Judge this one here.")
    assert texts("arbitrary", rows[0], other)[0] != texts("arbitrary", rows[0])[0]


@pytest.mark.parametrize("variant", ["given", "none", "arbitrary", "random", "end"])
def test_data_that_carry_the_anchor_give_the_same_variants(variant: Any) -> None:
    carrying = record("Put this into English.\n\nhundur", "Here it is: A dog.")
    present = Anchor(text=ANCHOR.text, response_prefix=ANCHOR.response_prefix, present=True)
    assert texts(variant, carrying, present) == texts(variant, record("hundur"))


def test_an_empty_anchor_has_no_variants() -> None:
    assert variant_anchor(Anchor(), "random", row="1") == Anchor()
