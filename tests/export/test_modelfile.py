"""Ollama's prompts, made by the template of a Modelfile, are those of `predict`."""

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from go_template import render
from messages import says
from tiny_tokenizers import chat_template, family_tokenizer

from tell_lightning.data.anchors import Anchor, anchor_record
from tell_lightning.data.records import Record, Turn
from tell_lightning.data.templates import Renderer
from tell_lightning.data.tokens import Encoder
from tell_lightning.export.chat_template import served_anchor
from tell_lightning.export.modelfile import (
    ModelfileError,
    TurnTexts,
    go_template,
    modelfile,
    turn_texts,
)

FAMILIES = (
    *("smollm2", "qwen", "qwen3", "gemma", "gemma3", "llama", "mistral", "phi3", "deepseek_r1"),
    None,
)
OTHERS = ("mistral_v3",)
"""Families whose template moves the system text."""
TEXT = 'Say "true" or\n\\not }} {{ x }} 🙂\u00a0\u2028.'
ANCHORS = {
    "prefix": Anchor(text="Translate into English."),
    "suffix": Anchor(text="The answer is", position="suffix", separator=" "),
    "system": Anchor(text=TEXT, position="system", response_prefix="In English:"),
    "quoted": Anchor(text=TEXT, response_prefix="Because"),
    "none": Anchor(),
}
CONVERSATIONS = (
    ("Why?",),
    ("Why?", "Because.", "And?"),
    ("Why?", "In English: so.", "And why?", "Because so.", "Who?"),
)
SYSTEMS = (None, "Be brief.")


@cache
def encoder_of(name: str | None) -> Encoder:
    tokenizer = family_tokenizer(name and chat_template(name))
    return Encoder(tokenizer, Renderer(tokenizer))


def cases(family: str | None, name: str, *, forced: bool) -> list[tuple[str, Any, str]]:
    """Template, messages as a caller sends them, and the prompt of `predict`."""
    encoder, anchor = encoder_of(family), ANCHORS[name]
    served = served_anchor(
        encoder.renderer, anchor, "given", force_response_prefix=forced, where="task"
    )
    template = go_template(turn_texts(encoder), served)
    found = []
    for texts in CONVERSATIONS:
        for system in SYSTEMS:
            turns = [Turn("user" if n % 2 == 0 else "assistant", t) for n, t in enumerate(texts)]
            turns = [*([Turn("system", system)] if system else []), *turns]
            messages = [{"role": turn.role, "content": turn.content} for turn in turns]
            answered = [
                turn
                if turn.role != "assistant" or turn.content.startswith(anchor.response_prefix)
                else Turn("assistant", f"{anchor.response_prefix}{turn.content}")
                for turn in turns
            ]
            plain = Record("1", "row", tuple(answered), {})
            bare = Anchor(text=anchor.text, position=anchor.position, separator=anchor.separator)
            wanted = encoder.renderer.prompt_text(anchor_record(plain, bare, anchored=True))
            bos = encoder.tokenizer.bos_token
            if bos and encoder.tokenizer("Mark").input_ids[:1] == [encoder.tokenizer.bos_token_id]:
                wanted = wanted.removeprefix(bos)
            found.append((template, messages, wanted + served.forced))
    return found


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("name", ANCHORS)
@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_are_those_of_predict(family: str | None, name: str, forced: bool) -> None:
    for template, messages, wanted in cases(family, name, forced=forced):
        assert render(template, messages) == wanted


@pytest.mark.parametrize("name", ["prefix", "system", "quoted"])
def test_an_anchor_that_is_there_is_not_put_on_again(name: str) -> None:
    anchor = ANCHORS[name]
    template, _, wanted = cases("smollm2", name, forced=False)[0]
    sent = [{"role": "user", "content": "Why?"}]
    if anchor.position == "system":
        sent = [{"role": "system", "content": anchor.text}, *sent]
    else:
        sent = [{"role": "user", "content": f"{anchor.text}\n\nWhy?"}]
    assert render(template, sent) == wanted


def test_a_negative_control_another_anchor_gives_another_prompt() -> None:
    template, messages, _ = cases("smollm2", "prefix", forced=False)[0]
    other = template.replace("Translate", "Copy")
    assert render(other, messages) != render(template, messages)


@pytest.mark.parametrize("family", OTHERS)
def test_a_template_that_moves_turns_has_no_modelfile(family: str) -> None:
    with pytest.raises(
        ModelfileError,
        check=says("Modelfile", rule="alike", got="a conversation in which", cure="llama-server"),
    ):
        turn_texts(encoder_of(family))


def written(anchor: Anchor, **changes: Any) -> list[str]:
    texts = TurnTexts("<u>", "<s>", "</s><u>", "</u><a>", "</a><u>", "</u><a>")
    served = served_anchor(
        encoder_of("smollm2").renderer, anchor, "given", force_response_prefix=False, where="task"
    )
    options = {
        "model": "./model.gguf",
        "adapter": None,
        "stop": ["<|im_end|>", "<|im_end|>", 'a"b'],
        "temperature": 0.0,
        "max_new_tokens": 40,
    }
    return modelfile(texts, served, **(options | changes)).splitlines()


def test_a_modelfile_names_the_files_and_how_to_generate() -> None:
    first, template, *others = written(Anchor(text="Go.", position="system"))
    assert first == "FROM ./model.gguf"
    assert template.startswith('TEMPLATE """{{ $before := "<s>Go.</s><u>" }}')
    assert template.endswith('{{ "</u><a>" }}"""')
    assert others == [
        'SYSTEM """Go."""',
        'PARAMETER stop "<|im_end|>"',
        'PARAMETER stop """a"b"""',
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
        "PARAMETER num_predict 40",
    ]
    assert written(Anchor(text="Go."), adapter="./a.gguf")[1] == "ADAPTER ./a.gguf"
    sampled = written(Anchor(), temperature=0.5)
    assert {"PARAMETER temperature 0.5", "PARAMETER top_k 0", "PARAMETER top_p 1"} <= set(sampled)


@pytest.mark.parametrize("text", ['Say """x""".', "No\u00a0break."])
def test_what_ollama_would_read_otherwise_is_left_to_the_template(text: str) -> None:
    lines = written(Anchor(text=text, position="system"))
    assert not any(line.startswith("SYSTEM") for line in lines)
    assert "\u00a0" not in "\n".join(lines)
    assert lines[1].count('"""') == 2


@pytest.mark.long
def test_go_renders_as_the_renderer_of_these_tests(tmp_path: Path) -> None:
    if shutil.which("go") is None:
        pytest.skip("Requires: go on PATH")
    program = Path(__file__).parents[1] / "fixtures/go_template.go"
    some = [
        case
        for family in ("smollm2", "llama")
        for name in ANCHORS
        for case in cases(family, name, forced=True)
    ]
    asked = [{"template": t, "messages": m} for t, m, _ in some]
    done = subprocess.run(
        ["go", "run", str(program)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [wanted for *_, wanted in some]
