"""Rows that the base cannot take are refused before training and before an answer."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from messages import says
from tiny_tokenizers import chat_template, family_tokenizer
from transformers import PreTrainedTokenizerFast

from tell_lightning.cli import main
from tell_lightning.data.anchors import Anchor
from tell_lightning.data.limits import LimitError, Limits, base_limits
from tell_lightning.data.prepared import PreparedData
from tell_lightning.data.records import Fields
from tell_lightning.data.settings import DataSettings, General, Mixture, Task
from tell_lightning.data.tokenizer import load_tokenizer
from tell_lightning.data.tokens import TokenError

Base = Callable[..., str]
MODELS: dict[str, dict[str, Any]] = {
    "gpt2": {"model_type": "gpt2", "n_positions": 64, "vocab_size": 400},
    "llama": {"model_type": "llama", "max_position_embeddings": 64, "vocab_size": 400},
    "stretched": {
        "model_type": "qwen2",
        "max_position_embeddings": 64,
        "vocab_size": 400,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 10_000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    "bloom": {"model_type": "bloom", "vocab_size": 400},
    "small": {"model_type": "gpt2", "n_positions": 64, "vocab_size": 100},
}


@pytest.fixture
def base(tmp_path: Path) -> Base:
    """Return a function that writes configuration and tokenizer of a base."""

    def write(name: str, template: str | None = None) -> str:
        folder = tmp_path / name
        family_tokenizer(template).save_pretrained(str(folder))
        (folder / "config.json").write_text(json.dumps(MODELS[name]))
        return str(folder)

    return write


def data(base: str, folder: Path, rows: dict[str, list[str]], **task: Any) -> PreparedData:
    """Make the data of a task; its rows are given by split as prompts."""
    for split, prompts in rows.items():
        lines = [json.dumps({"prompt": prompt, "response": "Yes."}) for prompt in prompts]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    settings = DataSettings(
        root=str(folder),
        tasks={"t": Task(**{split: f"{split}.jsonl" for split in rows}, **task)},
        mixture=Mixture(arm="sft"),
        cache_dir=str(folder / "cache"),
    )
    return PreparedData(settings, load_tokenizer(base), seed=1)


def opened(made: PreparedData) -> PreparedData:
    made.prepare()
    made.open()
    return made


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("gpt2", Limits(64, True, 400)),
        ("llama", Limits(64, False, 400)),
        ("stretched", Limits(256, False, 400)),
        ("bloom", Limits(None, True, 400)),
    ],
)
def test_the_limits_of_a_base_are_those_of_its_configuration(
    name: str, wanted: Limits, base: Base
) -> None:
    assert base_limits(load_tokenizer(base(name))) == wanted


def test_a_tokenizer_alone_has_no_limits() -> None:
    assert base_limits(family_tokenizer(None)) == Limits()


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_training_row_longer_than_the_positions_is_refused_before_training(
    name: str, base: Base, tmp_path: Path
) -> None:
    made = data(base(name), tmp_path, {"train": ["Why?", "why " * 60, "Who?"]})
    with pytest.raises(TokenError) as caught:
        opened(made)
    assert str(caught.value) == says(
        "train.jsonl:2",
        rule=["64", "positions"],
        cure=["more positions", "data.max_tokens: 64", "truncate_prompt"],
    )
    opened(data(base("bloom"), tmp_path, {"train": ["Why?", "why " * 60, "Who?"]}))


def test_a_row_to_score_longer_than_the_positions_is_refused_before_training(
    base: Base, tmp_path: Path
) -> None:
    rows = {"train": ["Why?"], "test": ["Who?", "why " * 60]}
    with pytest.raises(TokenError, match=r"test\.jsonl:2: a row must fit the 64 positions"):
        opened(data(base("llama"), tmp_path, rows))


def test_learned_positions_must_hold_the_answer_too(base: Base, tmp_path: Path) -> None:
    rows = {"train": ["Why?"], "test": ["Who?"]}
    made = data(base("gpt2"), tmp_path, rows, max_new_tokens=60)
    with pytest.raises(TokenError) as caught:
        opened(made)
    assert str(caught.value) == says(
        "test.jsonl:1", rule=["answer", "64"], cure=["max_new_tokens", "shorten"]
    )
    opened(data(base("llama"), tmp_path, rows, max_new_tokens=60))
    opened(data(base("gpt2"), tmp_path, rows, max_new_tokens=30))


def test_a_tokenizer_with_more_tokens_than_embeddings_is_refused(
    base: Base, tmp_path: Path
) -> None:
    folder = base("small")
    size = len(load_tokenizer(folder))
    with pytest.raises(LimitError) as caught:
        data(folder, tmp_path, {"train": ["Why?"]})
    assert str(caught.value) == says(
        "model.base", rule="100", got=str(size), cure="resize_token_embeddings"
    )


def test_predict_refuses_a_prompt_longer_than_the_positions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "long.jsonl"
    file.write_text(json.dumps({"prompt": "word " * 60_000}) + "\n")
    with pytest.raises(SystemExit) as exit_:
        main(["predict", "--base", "--task", "translate", "--input", str(file)])
    assert exit_.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[-1] == says(
        f"error: {file}:1", rule=["512", "positions"], got="", cure="Shorten"
    )


def test_the_plan_says_what_the_template_does_and_shows_the_plain_one(
    base: Base, tmp_path: Path
) -> None:
    rows = {"train": ["Why?", "Why </s>?"], "test": ["Who <s>?"]}
    made = opened(data(base("llama"), tmp_path, rows, max_new_tokens=9))
    plain, *others = made.describe(1)["notes"]
    assert "no chat template" in plain
    assert "chat_template.jinja" in plain
    assert repr("<s>### User:\nQUESTION\n\n### Assistant:\nANSWER</s>") in plain
    assert [note.partition(":")[0] for note in others] == ["t", "t.test"]
    assert all("ordinary text" in note and "(rows: 1)" in note for note in others)


def test_the_plan_says_where_conversations_give_more_rows_and_thinking_is_left_out(
    base: Base, tmp_path: Path
) -> None:
    talk = [
        {"role": "user", "content": "How?"},
        {"role": "assistant", "content": "<think>Hm.</think>So."},
    ]
    made = data(
        base("llama", chat_template("qwen3")), tmp_path, {"train": ["Why?"]}, max_new_tokens=9
    )
    (tmp_path / "talk.jsonl").write_text(json.dumps({"messages": [*talk, *talk]}) + "\n")
    settings = DataSettings(
        **{
            **vars(made.settings),
            "general": {"g": General(train="talk.jsonl", fields=Fields(messages="messages"))},
            "tasks": {"t": Task(train="train.jsonl", anchor=Anchor(text="Say."))},
            "mixture": Mixture(task_share=0.5, general_repeat=True),
        }
    )
    made = opened(PreparedData(settings, made.encoder.tokenizer, seed=1))
    thinking, more = made.describe(1)["notes"]
    assert thinking.startswith("g: thinking is left out")
    assert "(rows: 1)" in thinking
    assert more.startswith("g: each response")
    assert "(additional rows: 1)" in more


def test_a_configuration_that_is_code_is_neither_run_nor_asked_about(
    base: Base, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard input may hold the rows to answer."""
    folder = Path(base("llama"))
    config = {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "own.py").write_text("raise SystemExit('was run')\n", encoding="utf-8")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    assert base_limits(tokenizer) == Limits()
    assert capsys.readouterr().out == ""
