"""The anchor as given, or one of its ablations: the values of `data.mixture.anchor`.

    given      the task's own anchor
    none       no anchor and no response prefix
    arbitrary  words without a meaning, the same for the whole task
    random     words without a meaning, different for every row
    end        the task's anchor, after the prompt instead of before it

The words without a meaning follow from the anchor's text, and for `random` from the row's id.
"""

from dataclasses import replace
from hashlib import blake2b
from typing import Literal

from tell_lightning.data.anchors import Anchor, Example, anchor_record
from tell_lightning.data.records import Record

Variant = Literal["given", "none", "arbitrary", "random", "end"]

CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"


def apply_anchor(
    record: Record, anchor: Anchor, variant: Variant, *, check_reference: bool = True
) -> Example:
    """Put a variant of the anchor on a record.

    Args:
        record: The record as read.
        anchor: The task's anchor.
        variant: The form of the anchor that the example carries.
        check_reference: As in `anchor_record`.

    Raises:
        AnchorError: As in `anchor_record`.
    """
    example = anchor_record(
        record, anchor, anchored=variant == "given", check_reference=check_reference
    )
    if variant in {"given", "none"}:
        return example
    return anchor_record(
        example,
        variant_anchor(anchor, variant, row=record.id),
        anchored=True,
        check_reference=check_reference,
    )


def variant_anchor(anchor: Anchor, variant: Variant, *, row: str) -> Anchor:
    """Return the anchor that a variant puts on a row without an anchor.

    >>> variant_anchor(Anchor(text="Translate this."), "arbitrary", row="1").text
    'sesogu pezale'
    """
    bare = replace(anchor, present=False)
    if not anchor.text or variant in {"given", "none"}:
        return bare
    if variant == "end":
        return replace(bare, position="suffix")
    key = anchor.text if variant == "arbitrary" else f"{anchor.text}\x1f{row}"
    words = range(len(anchor.text.split()))
    return replace(bare, text=" ".join(_word(key, index) for index in words))


def variant_prefix(anchor: Anchor, variant: Variant) -> str:
    """Return the response prefix that answers are expected to begin with."""
    return "" if variant == "none" else anchor.response_prefix


def _word(key: str, index: int) -> str:
    digest = blake2b(f"{key}\x1f{index}".encode(), digest_size=6).digest()
    alphabets = [CONSONANTS, VOWELS] * 3
    return "".join(
        alphabet[value % len(alphabet)] for alphabet, value in zip(alphabets, digest, strict=True)
    )
