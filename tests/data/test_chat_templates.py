"""The chat templates of common families, written by hand after their documented behaviour.

What generation would start from is the context of each trained response, in every turn.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from messages import says
from tiny_tokenizers import chat_template, family_tokenizer

from tell_lightning.data.anchors import Anchor, Example, anchor_record, reference_text
from tell_lightning.data.encoding import Encoded, encode_source
from tell_lightning.data.evaluation_rows import build
from tell_lightning.data.prepared import PreparedData
from tell_lightning.data.records import Conversation, Record, Turn
from tell_lightning.data.settings import DataSettings, General, Mixture, Task
from tell_lightning.data.templates import PLAIN_TEMPLATE, Renderer, TemplateError
from tell_lightning.data.tokens import Encoder
from tell_lightning.metrics.predictions import strip_prefix
from tell_lightning.metrics.settings import Scoring

END = {
    "qwen3": "<|im_end|>",
    "smollm2": "<|im_end|>",
    "gemma": "<end_of_turn>",
    "gemma3": "<end_of_turn>",
    "llama": "<|eot_id|>",
    "mistral": "</s>",
    "mistral_v3": "</s>",
    "phi3": "<|end|>",
    "deepseek_r1": "</s>",
}
AT_ONCE = {"smollm2", "gemma", "gemma3", "llama", "mistral", "mistral_v3", "phi3"}
"""The templates that render a conversation like the prompts of all its responses."""
TALK = ("Who wrote it?", "Laxness.", "When?", "In 1934.", "Where?", "In Rome.")
NONE = Anchor()
THOUGHT = "<think>\nHe wrote it there.\n</think>\n\n"


def turns(*contents: str, system: str = "") -> tuple[Turn, ...]:
    roles: tuple[Any, Any] = ("user", "assistant")
    spoken = [Turn(roles[n % 2], content) for n, content in enumerate(contents)]
    return (*([Turn("system", system)] if system else []), *spoken)


def record(*contents: str, system: str = "") -> Record:
    return Record("7", "d.jsonl:7", turns(*contents, system=system), {})


def encoder_of(name: str | None, thinking: Any = "strip") -> Encoder:
    tokenizer = family_tokenizer(name and chat_template(name))
    return Encoder(tokenizer, Renderer(tokenizer, thinking))


def encoded(encoder: Encoder, one: Record, anchor: Anchor = NONE, **changes: Any) -> Encoded:
    options: dict[str, Any] = {"max_tokens": 10_000, "overlong": "error", **changes}
    return encode_source(encoder, [one], anchor, name="data.tasks.t", variant="given", **options)


def pairs(encoder: Encoder, found: Encoded) -> list[tuple[str, str]]:
    """Return each trained response with all that stands before it."""
    decode = encoder.tokenizer.decode
    done = []
    for ids, supervised in found.rows:
        borders = [n for n in range(1, len(ids) + 1) if n == len(ids) or supervised[n]]
        begins = [n for n in borders if n < len(ids) and not supervised[n - 1]]
        for begin in begins:
            end = next((n for n in range(begin, len(ids)) if not supervised[n]), len(ids))
            done.append((decode(ids[:begin]), decode(ids[begin:end])))
    return done


@pytest.mark.parametrize("name", END)
def test_each_response_is_trained_behind_the_prompt_of_inference(name: str) -> None:
    encoder = encoder_of(name)
    tokenizer = encoder.tokenizer
    found = encoded(encoder, record(*TALK))
    trained = pairs(encoder, found)
    assert len(trained) == 3
    for number, (context, response) in enumerate(trained):
        messages = [
            {"role": turn.role, "content": turn.content} for turn in turns(*TALK[: 2 * number + 1])
        ]
        assert context == tokenizer.apply_chat_template(
            messages,
            chat_template=encoder.renderer.template,
            add_generation_prompt=True,
            enable_thinking=False,
            tokenize=False,
        )
        assert response.endswith(TALK[2 * number + 1] + END[name])
        thinking = "\n</think>\n\n" if name == "deepseek_r1" else " " if "mistral" in name else ""
        assert response == thinking + TALK[2 * number + 1] + END[name]
    assert len(found.rows) == (1 if name in AT_ONCE else 3)
    assert found.counts["extra_rows"] == len(found.rows) - 1
    ids = [part.id for part in found.records]
    assert ids == (["7"] if name in AT_ONCE else ["7/1", "7/2", "7/3"])


@pytest.mark.parametrize("name", END)
def test_a_system_text_reaches_every_prompt(name: str) -> None:
    encoder = encoder_of(name)
    trained = pairs(encoder, encoded(encoder, record(*TALK[:4], system="Be brief.")))
    assert [response.count(END[name]) for _, response in trained] == [1, 1]
    assert all("Be brief." in context for context, _ in trained)


def test_the_anchor_of_a_system_turn_begins_the_first_user_turn_of_gemma() -> None:
    encoder = encoder_of("gemma")
    anchor = Anchor(text="Answer like a book.", position="system")
    found = encoded(encoder, record(*TALK[:4]), anchor)
    assert found.counts["system_in_prompt"] == 1
    (first, _), (second, _) = pairs(encoder, found)
    begin = "<s><start_of_turn>user\nAnswer like a book.\n\nWho wrote it?<end_of_turn>\n"
    assert first == begin + "<start_of_turn>model\n"
    assert second.startswith(begin)
    asked = anchor_record(record("Who wrote it?"), anchor, anchored=True)
    assert encoder.tokenizer.decode(encoder.prompt_ids([asked])[0]) == first
    assert encoded(encoder_of("gemma3"), record(*TALK[:4]), anchor).counts["system_in_prompt"] == 0


def test_a_question_that_is_too_long_is_cut_in_the_row_of_its_own_response() -> None:
    encoder = encoder_of("qwen3")
    talk = record("Who?", "He.", "why " * 40, "So.")
    sizes = [len(row.input_ids) for row in encoded(encoder, talk).rows]
    found = encoded(encoder, talk, max_tokens=sizes[1] - 30, overlong="truncate_prompt")
    assert found.counts["truncated"] == 1
    short, cut = found.rows
    assert len(short.input_ids) == sizes[0]
    assert sizes[1] - 40 < len(cut.input_ids) <= sizes[1] - 30
    assert pairs(encoder, found)[1][1] == "So.<|im_end|>"
    assert "Who?" in pairs(encoder, found)[1][0]


@pytest.mark.parametrize("answer", ["In Rome.", f"{THOUGHT}In Rome.", "<think>So.</think>In Rome."])
@pytest.mark.parametrize("name", ["qwen3", "deepseek_r1"])
def test_thinking_is_stripped_or_kept(name: str, answer: str) -> None:
    thought = {"": "", "H": "He wrote it there.", "S": "So."}[
        answer.removeprefix("<think>").strip()[:1].replace("I", "")
    ]
    for thinking in ("strip", "keep"):
        encoder = encoder_of(name, thinking)
        found = encoded(encoder, record("Where?", answer))
        ((context, response),) = pairs(encoder, found)
        kept = thought if thinking == "keep" else ""
        if name == "deepseek_r1":
            assert context.endswith("Assistant\uff5c><think>\n")
            assert response == f"{kept}\n</think>\n\nIn Rome.</s>"
        elif thinking == "keep":
            assert context.endswith("<|im_start|>assistant\n")
            assert response == f"<think>\n{kept}\n</think>\n\nIn Rome.<|im_end|>"
        else:
            assert context.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
            assert response == "In Rome.<|im_end|>"
        assert found.counts["without_thinking"] == (thinking == "strip" and bool(thought))
        assert strip_prefix(response.removesuffix(END[name]), None)[0] == "In Rome."


def test_the_thinking_of_earlier_turns_is_left_out_as_in_inference() -> None:
    encoder = encoder_of("qwen3", "keep")
    talk = record("Who?", "<think>Hm.</think>Laxness.", "Where?", f"{THOUGHT}In Rome.")
    (_, first), (context, second) = pairs(encoder, encoded(encoder, talk))
    assert first == "<think>\nHm.\n</think>\n\nLaxness.<|im_end|>"
    assert "assistant\nLaxness.<|im_end|>\n" in context
    assert "Hm." not in context
    assert second == f"{THOUGHT}In Rome.<|im_end|>"


def test_tags_are_text_where_the_template_knows_no_thinking() -> None:
    encoder = encoder_of("smollm2")
    ((_, response),) = pairs(encoder, encoded(encoder, record("Where?", f"{THOUGHT}In Rome.")))
    assert response == f"{THOUGHT}In Rome.<|im_end|>"


def test_the_mode_of_thinking_is_part_of_the_digest_only_if_it_is_kept() -> None:
    tokenizer = family_tokenizer(chat_template("qwen3"))
    digests = [Renderer(tokenizer, mode).template_digest for mode in ("strip", "keep")]
    assert digests[0] != digests[1]
    assert digests[0] == Renderer(tokenizer).template_digest


def test_a_response_prefix_stands_behind_the_thinking_and_neither_is_scored() -> None:
    anchor = Anchor(text="Answer.", response_prefix="Place: ")
    example = anchor_record(record("Where?", f"{THOUGHT}In Rome."), anchor, anchored=True)
    assert example.turns[1].content == f"{THOUGHT}Place: In Rome."
    assert reference_text(example, anchor) == "In Rome."
    assert strip_prefix(f"{THOUGHT}Place: In Rome.", "Place: ") == ("In Rome.", True)
    rows = build(
        encoder_of("qwen3", "keep"),
        [record("Where?", f"{THOUGHT}In Rome.")],
        task="t",
        anchor=anchor,
        variant="given",
        scoring=Scoring(),
        max_new_tokens=9,
    )
    assert rows.references == ("In Rome.",)


class Counted:
    """A tokenizer that counts the characters that it renders and tokenises."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.characters = tokenizer, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)

    def __call__(self, texts: Any, **options: Any) -> Any:
        self.characters += sum(map(len, texts))
        return self.tokenizer(texts, **options)

    def apply_chat_template(self, *args: Any, **options: Any) -> str:
        text: str = self.tokenizer.apply_chat_template(*args, **options)
        self.characters += len(text)
        return text


@pytest.mark.parametrize("name", sorted(AT_ONCE))
def test_the_cost_of_a_conversation_grows_with_its_turns_and_not_faster(name: str) -> None:
    counted = Counted(family_tokenizer(chat_template(name)))
    encoder = Encoder(counted, Renderer(counted))
    costs = []
    for exchanges in (10, 100):
        counted.characters = 0
        talk = record(*["Why is it so?", "Because."] * exchanges)
        (row,) = encoded(encoder, talk).rows
        costs.append(counted.characters)
        trained = [id for id, flag in zip(*row, strict=True) if flag]
        assert trained.count(encoder.renderer.stop_ids[0]) == exchanges
        assert (
            row.input_ids
            == counted.tokenizer(
                "".join(segment.text for segment in encoder.renderer.segments(talk)),
                add_special_tokens=False,
            )["input_ids"]
        )
    assert costs[1] < 11 * costs[0]


def test_text_that_looks_like_the_template_is_not_taken_for_a_turn() -> None:
    encoder = encoder_of(None)
    shots = "Say yes.\n\n### Assistant:\nYes.\n\n### User:\nSay yes."
    found = encoded(encoder, record(shots, "Yes.", shots, "Yes."))
    contexts = [context for context, _ in pairs(encoder, found)]
    assert [context.count("Say yes.") for context in contexts] == [2, 4]
    assert encoder.renderer.is_plain
    assert encoder.renderer.template == PLAIN_TEMPLATE


def test_an_end_of_turn_that_is_not_flagged_special_is_the_stop_token() -> None:
    template = chat_template("phi3").replace("<|end|>", "<\uff5cend\uff5c>")
    tokenizer = family_tokenizer(template)
    tokenizer.add_tokens(["<\uff5cend\uff5c>"])
    encoder = Encoder(tokenizer, Renderer(tokenizer))
    number = tokenizer.convert_tokens_to_ids("<\uff5cend\uff5c>")
    assert encoder.renderer.stop_ids == (number, tokenizer.eos_token_id)
    (row,) = encoder.encode([Example("7", "d:7", turns("Why?", "So <\uff5cend\uff5c> it is."), {})])
    assert row.input_ids[-1] == number
    assert row.input_ids.count(number) == 2  # the user's turn ends with it, too


@pytest.mark.parametrize("on_bad_rows", ["error", "skip"])
def test_a_row_that_the_template_refuses_is_skipped_if_bad_rows_are(
    on_bad_rows: Any, tmp_path: Path
) -> None:
    refusing = "{% if 'bomb' in messages[0].content %}{{ raise_exception('no bombs') }}{% endif %}"
    tokenizer = family_tokenizer(refusing + chat_template("phi3"))
    prompts = {"train": ["Why?", "A bomb?", "Who?"], "general": ["How?", "A bomb!", "Where?"]}
    for name, texts in prompts.items():
        rows = [json.dumps({"prompt": text, "response": "Yes."}) for text in texts]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    settings = DataSettings(
        root=str(tmp_path),
        tasks={"t": Task(train="train.jsonl")},
        general={"g": General(train="general.jsonl")},
        mixture=Mixture(task_share=0.5, general_repeat=True),
        cache_dir=str(tmp_path / "cache"),
        on_bad_rows=on_bad_rows,
        max_bad_share=0.4,
    )
    data = PreparedData(settings, tokenizer, seed=1)
    if on_bad_rows == "error":
        wanted = says("train.jsonl:2", rule="chat template", got="no bombs", cure="chat_template")
        with pytest.raises(TemplateError, check=wanted):
            data.prepare()
        return
    data.prepare()
    data.open()
    for name in ("t", "g"):
        report = data.source_reports[name]
        assert (report["counts"]["bad"], report["counts"]["kept"]) == (1, 2)
        assert "no bombs" in report["left_out"][0]


def test_roles_that_do_not_alternate_are_refused_by_the_template() -> None:
    one = Conversation("7", "d.jsonl:7", (Turn("user", "a"), Turn("user", "b")), {})
    wanted = says("d.jsonl:7", rule="chat template", got="conversation roles must alternate")
    with pytest.raises(TemplateError, check=wanted):
        encoder_of("mistral_v3").renderer.prompt_text(one)


@pytest.mark.parametrize("kind", ["bytes", "spaces"])
@pytest.mark.parametrize("name", END)
def test_a_forced_beginning_has_the_tokens_of_a_training_row(name: str, kind: str) -> None:
    """Also where a token joins the end of the prompt with white space before the response."""
    tokenizer = family_tokenizer(chat_template(name), kind)
    encoder = Encoder(tokenizer, Renderer(tokenizer))
    one = Example("7", "d.jsonl:7", turns("Who wrote it?", "Laxness."), {})
    (row,) = encoder.encode([one])
    (begun,) = encoder.begun_ids([one], "Laxness.")
    assert begun == row.input_ids[: len(begun)]
    assert tokenizer.decode(begun).endswith("Laxness.")
