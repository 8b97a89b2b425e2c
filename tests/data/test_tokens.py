"""Examples in tokens: what is trained, what is cut; generation starts from the same ids."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import says
from tiny_tokenizers import chat_template

from tell_lightning.data.anchors import Anchor, Example, anchor_record
from tell_lightning.data.encoding import Encoded, encode_source
from tell_lightning.data.records import Record, Turn
from tell_lightning.data.settings import Overlong
from tell_lightning.data.templates import Renderer
from tell_lightning.data.tokens import Encoder, TokenError, TokenRow

Make = Callable[[str | None], Any]

TEMPLATES = {name: chat_template(name) for name in ("gemma", "llama", "mistral", "qwen")}
END = {
    "gemma": "<end_of_turn>",
    "llama": "<|eot_id|>",
    "mistral": "</s>",
    "plain": "</s>",
    "qwen": "<|im_end|>",
}
ANCHOR = Anchor(text="Translate this.", response_prefix="Here it is: ")


def record(*contents: str, number: int = 1, system: str = "") -> Record:
    roles: tuple[Any, Any] = ("user", "assistant")
    turns = [Turn(roles[n % 2], content) for n, content in enumerate(contents)]
    first = [Turn("system", system)] if system else []
    return Record(f"d:{number}", f"d.jsonl:{number}", (*first, *turns), {})


def example(*contents: str) -> Example:
    return anchor_record(record(*contents), Anchor(), anchored=False)


@pytest.fixture(scope="module")
def encoders(make_tokenizer: Make) -> dict[str, Encoder]:
    made = {}
    for name in END:
        tokenizer = make_tokenizer(TEMPLATES.get(name))
        made[name] = Encoder(tokenizer, Renderer(tokenizer))
    return made


def decode(encoder: Encoder, row: TokenRow, supervised: bool) -> list[str]:
    """Return the text of each stretch of tokens that is, or is not, supervised."""
    pieces: list[list[int]] = []
    before = None
    for token, flag in zip(row.input_ids, row.supervised, strict=True):
        if flag == supervised:
            if before != supervised:
                pieces.append([])
            pieces[-1].append(token)
        before = flag
    return [encoder.tokenizer.decode(ids) for ids in pieces]


words = st.text(st.characters(codec="utf-8", exclude_characters="<>[]"), min_size=1).filter(
    lambda text: bool(text.strip())
)


@pytest.mark.parametrize("name", END)
def test_generation_starts_from_the_ids_of_training(
    name: str, encoders: dict[str, Encoder]
) -> None:
    encoder = encoders[name]

    @settings(derandomize=True, max_examples=30)
    @given(words, words)
    def check(prompt: str, response: str) -> None:
        one = example(prompt, response)
        row, ids = encoder.encode([one])[0], encoder.prompt_ids([one])[0]
        assert row.input_ids[: len(ids)] == ids
        assert not any(row.supervised[: len(ids)])
        assert all(row.supervised[len(ids) :])
        trained = decode(encoder, row, True)[0]
        assert trained.endswith(END[name])
        assert trained.removesuffix(END[name]).strip() == response.strip()
        assert row.input_ids[-1] == encoder.renderer.stop_ids[0]

    check()


@pytest.mark.parametrize("name", sorted(END.keys() - {"qwen"}))  # which refuses conversations
def test_every_assistant_turn_of_a_conversation_is_trained(
    name: str, encoders: dict[str, Encoder]
) -> None:
    row = encoders[name].encode([example("Hi?", "Yes.", "Why?", "Because.", "Ah?", "So.")])[0]
    trained = [text.strip() for text in decode(encoders[name], row, True)]
    assert trained == [text + END[name] for text in ("Yes.", "Because.", "So.")]
    context = "".join(decode(encoders[name], row, False))
    assert all(text in context for text in ("Hi?", "Why?", "Ah?"))
    assert not any(text in context for text in ("Yes.", "Because.", "So."))


def test_many_examples_at_once_are_the_same_as_one_by_one(encoders: dict[str, Encoder]) -> None:
    many = [example("a", "b"), example("a", "b", "c", "d"), example("halló", "hæ")]
    encoder = encoders["llama"]
    assert encoder.encode(many) == [encoder.encode([one])[0] for one in many]
    assert encoder.encode([]) == []
    assert encoder.prompt_ids([]) == []
    assert encoder.count(["abc", "é"]) == [3, 2]


def test_a_tokenizer_that_adds_bos_gets_it_once(make_tokenizer: Make) -> None:
    from tokenizers.processors import TemplateProcessing

    for name in ("llama", "mistral", "plain"):  # their templates write it
        tokenizer = make_tokenizer(TEMPLATES.get(name))
        bos = tokenizer.bos_token_id
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", bos), ("</s>", tokenizer.eos_token_id)]
        )
        assert tokenizer("a")["input_ids"][0] == bos
        encoder = Encoder(tokenizer, Renderer(tokenizer))
        one = example("Hi?", "Yes.", "Why?", "So.")
        row = encoder.encode([one])[0]
        assert row.input_ids.count(bos) == 1
        assert row.input_ids[0] == bos
        assert encoder.prompt_ids([one])[0].count(bos) == 1
        if name == "plain":
            assert row.input_ids.count(tokenizer.eos_token_id) == 2
        assert encoder.count(["ab"]) == [2]


def test_a_token_over_the_border_of_prompt_and_response_is_not_used() -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: n for n, token in enumerate(["</s>", *alphabet, "ĊYes", "ĊY", "es"])}
    merges = [("Ċ", "Y"), ("e", "s"), ("ĊY", "es")]
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["</s>"])
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, eos_token="</s>"
    )
    encoder = Encoder(tokenizer, Renderer(tokenizer))
    one = example("Hi?", "Yes.")
    whole = "".join(segment.text for segment in encoder.renderer.segments(one))
    assert vocabulary["ĊYes"] in tokenizer(whole)["input_ids"]
    row, ids = encoder.encode([one])[0], encoder.prompt_ids([one])[0]
    assert row.input_ids[: len(ids)] == ids
    assert vocabulary["ĊYes"] not in row.input_ids
    assert decode(encoder, row, True) == ["Yes.</s>"]


def test_an_example_without_a_token_to_train_on_is_named(encoders: dict[str, Encoder]) -> None:
    with pytest.raises(TokenError, match="response token") as caught:
        encoders["qwen"].encode([example("a", "b"), example("Hi?")])
    assert str(caught.value) == says("d.jsonl:1", rule="response", got="none")


# Over-long examples


def source(
    encoder: Encoder,
    records: list[Record],
    overlong: Overlong,
    max_tokens: int,
    anchor: Anchor = ANCHOR,
    anchored: bool = True,
) -> Encoded:
    return encode_source(
        encoder,
        records,
        anchor,
        name="data.tasks.t",
        variant="given" if anchored else "none",
        max_tokens=max_tokens,
        overlong=overlong,
    )


def length(encoder: Encoder, one: Record, anchor: Anchor = ANCHOR, anchored: bool = True) -> int:
    return len(encoder.encode([anchor_record(one, anchor, anchored=anchored)])[0].input_ids)


def test_an_over_long_example_is_an_error_that_says_how_long(encoders: dict[str, Encoder]) -> None:
    encoder, long = encoders["plain"], record("x" * 99, "Yes.", number=7)
    size = length(encoder, long)
    assert source(encoder, [record("x", "y"), long], "error", size).records[1] == long
    with pytest.raises(TokenError, match="must fit") as caught:
        source(encoder, [record("x", "y"), long], "error", size - 1)
    assert str(caught.value) == says(
        "d.jsonl:7",
        rule=["data.max_tokens", str(size - 1)],
        got=str(size),
        cure=["data.max_tokens", "data.tasks.t.overlong", "truncate_prompt"],
    )


def test_over_long_examples_are_dropped_and_listed(encoders: dict[str, Encoder]) -> None:
    encoder = encoders["plain"]
    records = [record("x" * n, "Yes.", number=n) for n in (5, 99, 6, 98, 7)]
    size = length(encoder, records[4])
    encoded = source(encoder, records, "drop", size)
    assert encoded.records == records[::2]
    assert [len(row.input_ids) for row in encoded.rows] == [size - 2, size - 1, size]
    assert encoded.dropped == (
        f"d.jsonl:99: {size + 92} tokens, more than {size}, left out",
        f"d.jsonl:98: {size + 91} tokens, more than {size}, left out",
    )
    assert encoded.counts["truncated"] == 0


@pytest.mark.parametrize("name", END)
@pytest.mark.parametrize("position", ["prefix", "suffix"])
def test_a_prompt_is_cut_to_the_longest_that_fits_and_nothing_else_is(
    name: str, position: Any, encoders: dict[str, Encoder]
) -> None:
    encoder = encoders[name]
    anchor = Anchor(text="Translate this.", position=position, response_prefix="Here it is: ")
    text = "".join(chr(97 + n % 26) for n in range(200))
    records = [record(text, "Yes.", number=1), record("short", "No.", number=2)]
    limit = length(encoder, records[0], anchor) - 60
    encoded = source(encoder, records, "truncate_prompt", limit, anchor)
    assert (encoded.counts["truncated"], encoded.dropped, encoded.records) == (1, (), records)
    wanted = [
        encoder.encode([anchor_record(one, anchor, anchored=True)])[0]
        for one in (record(text[:140], "Yes."), records[1])
    ]
    assert encoded.rows == wanted  # the same as if the text had ended there
    assert len(encoded.rows[0].input_ids) == limit
    one_more = anchor_record(record(text[:141], "Yes."), anchor, anchored=True)
    assert len(encoder.encode([one_more])[0].input_ids) > limit  # the control


@pytest.mark.parametrize("anchored", [True, False])
@pytest.mark.parametrize("position", ["prefix", "suffix", "system"])
def test_cut_data_that_carry_the_anchor_keep_its_letters(
    anchored: bool, position: Any, encoders: dict[str, Encoder]
) -> None:
    """As in the paper's files: white space around anchor and prefix that the data decide."""
    encoder = encoders["llama"]
    anchor = Anchor(
        text="Translate this.",
        position=position,
        response_prefix="Here it is:",
        present=True,
    )

    def carrying(text: str) -> Record:
        response = "Here it is: \n\n Yes. Indeed."
        if position == "system":
            return record(text, response, system="  Translate this. ")
        around = {"prefix": ("Translate this.\n\n ", ""), "suffix": ("", " \n \nTranslate this.")}
        before, behind = around[position]
        return record(before + text + behind, response)

    text = "".join(chr(97 + n % 26) for n in range(200))
    limit = length(encoder, carrying(text), anchor, anchored) - 60
    encoded = source(encoder, [carrying(text)], "truncate_prompt", limit, anchor, anchored)
    wanted = anchor_record(carrying(text[:140]), anchor, anchored=anchored)
    assert decode(encoder, encoded.rows[0], True) == decode(
        encoder, encoder.encode([wanted])[0], True
    )
    assert encoded.rows == encoder.encode([wanted])
    assert len(encoded.rows[0].input_ids) == limit


def test_the_last_question_of_a_conversation_is_cut(encoders: dict[str, Encoder]) -> None:
    encoder = encoders["gemma"]
    turns = ("First question?", "First answer.", "x" * 100, "Last answer.")
    limit = length(encoder, record(*turns)) - 70
    encoded = source(encoder, [record(*turns)], "truncate_prompt", limit)
    wanted = record(*turns[:2], "x" * 30, turns[3])
    assert encoded.rows == encoder.encode([anchor_record(wanted, ANCHOR, anchored=True)])


def test_a_response_that_does_not_fit_is_an_error_and_never_cut(
    encoders: dict[str, Encoder],
) -> None:
    encoder = encoders["plain"]
    smallest = length(encoder, record("x", "y" * 50))
    long = record("x" * 99, "y" * 50, number=3)
    assert source(encoder, [long], "truncate_prompt", smallest).counts["truncated"] == 1
    with pytest.raises(TokenError, match="alone") as caught:
        source(encoder, [long], "truncate_prompt", smallest - 1)
    assert str(caught.value) == (
        "d.jsonl:3: response, anchor and template alone are longer than data.max_tokens "
        f"{smallest - 1}. Raise data.max_tokens or remove the row."
    )


def test_white_space_alone_is_no_question_that_fits(encoders: dict[str, Encoder]) -> None:
    encoder, anchor = encoders["plain"], Anchor()
    long = record(" " * 40 + "x" * 40, "y", number=3)
    whole = length(encoder, long, anchor)
    encoded = source(encoder, [long], "truncate_prompt", whole - 39, anchor)
    assert decode(encoder, encoded.rows[0], False)[0].count("x") == 1
    with pytest.raises(TokenError, match="alone are longer"):
        source(encoder, [long], "truncate_prompt", whole - 40, anchor)


# What generation starts from and stops at


@pytest.mark.parametrize("name", END)
def test_forced_beginning_is_that_of_the_training_row(
    name: str, encoders: dict[str, Encoder]
) -> None:
    encoder = encoders[name]
    prefix = "Here it is: "
    answered = example("Halló, heimur.", f"{prefix}Hello.")
    (row,) = encoder.encode([answered])
    asked = example("Halló, heimur.")
    for known in (answered, asked):
        (ids,) = encoder.begun_ids([known], prefix)
        assert ids == row.input_ids[: len(ids)]
        rest = encoder.tokenizer.decode(row.input_ids[len(ids) :])
        assert rest.startswith(" Hello.")
    (prompt,) = encoder.prompt_ids([asked])
    assert ids[: len(prompt)] == prompt


def test_token_is_found_where_every_text_begins_with_a_space() -> None:
    """As in tokenizers of SentencePiece: a line break alone is a space and a line break."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: number for number, token in enumerate(["</s>", "▁", "a", "▁a", "\n", "b"])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[("▁", "a")]))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    encoder = Encoder(tokenizer, Renderer(tokenizer))
    assert encoder.count(["\n", "a"]) == [2, 1]
    assert encoder.token_id("\n", "stop_tokens") == vocabulary["\n"]
    assert encoder.token_id("a", "stop_tokens") == vocabulary["▁a"]
    with pytest.raises(
        TokenError, match=r"^stop_tokens: each must be one token .* got 'bb', which"
    ):
        encoder.token_id("bb", "stop_tokens")
