"""Engines in processes of their own, and what is concluded from their answers."""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from messages import says

from tell_lightning.export.engine_check import (
    LINES,
    Asked,
    EngineCheck,
    base_tokens,
    check_task,
)
from tell_lightning.export.engines import (
    Command,
    EngineAnswer,
    EngineError,
    HttpEngine,
    llama_command,
    transformers_command,
    vllm_command,
)
from tell_lightning.export.serving import Served
from tell_lightning.metrics.predictions import Prediction

SERVER = """
import json, os, subprocess, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Answers(BaseHTTPRequestHandler):
    def reply(self, status, body):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def do_GET(self):
        self.reply(200, {"data": []})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if asked.get("bad"):
            return self.reply(400, {"error": "no such key"})
        choice = {"message": {"content": json.dumps(asked)}}
        if asked.get("logprobs"):
            choice["logprobs"] = {"content": [{"logprob": -0.5}, {"logprob": -0.25}]}
        self.reply(200, {"choices": [choice], "usage": {"prompt_tokens": 7}})

    def log_message(self, *_):
        pass

child = subprocess.Popen(["sleep", "1000"])
open(sys.argv[1], "w").write(f"{os.getpid()} {child.pid}")
assert sys.argv[2:5:2] == ["--host", "--port"] and sys.argv[3] == "127.0.0.1"
HTTPServer(("127.0.0.1", int(sys.argv[5])), Answers).serve_forever()
"""


@pytest.fixture
def pids(tmp_path: Path) -> Path:
    return tmp_path / "pids"


@pytest.fixture
def engine(pids: Path) -> Iterator[HttpEngine]:
    made = HttpEngine(
        Command([sys.executable, "-c", SERVER, str(pids)], "mine", {"model": "base"}, logprobs=True)
    )
    made.start()
    yield made
    made.stop()


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_an_engine_is_asked_by_http_and_ended_with_its_children(
    engine: HttpEngine, pids: Path
) -> None:
    turn = [{"role": "user", "content": "Hví?"}]
    answer = engine.ask(turn, chat_template_kwargs={"task": "t"})
    assert (answer.prompt_tokens, answer.logprob) == (7, -0.75)
    body = json.loads(answer.text)
    assert body["messages"] == turn
    assert body["model"] == "mine"
    assert body["chat_template_kwargs"] == {"task": "t"}
    assert json.loads(engine.ask(turn, base=True).text)["model"] == "base"
    with pytest.raises(EngineError) as error:
        engine.ask(turn, bad=True)
    assert str(error.value) == says("--check", rule="answer", got='400: {"error": "no such key"}')
    engine.stop()
    deadline = time.monotonic() + 600
    while not all(is_gone(int(pid)) for pid in pids.read_text().split()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    engine.stop()  # a second time does nothing


def test_an_engine_that_ends_at_once_says_why() -> None:
    made = HttpEngine(Command([sys.executable, "-c", "1/0"], "mine"))
    try:
        with pytest.raises(EngineError) as error:
            made.start()
    finally:
        made.stop()
    assert str(error.value) == says(
        "--check", rule="start", got="ZeroDivisionError: division by zero", cure="1/0"
    )


# What is concluded


def prediction(number: int, text: str, near_ties: int = 0) -> Prediction:
    return Prediction(
        id=str(number),
        prediction=text,
        reference=None,
        row={},
        stopped=True,
        prefix_found=None,
        new_tokens=2,
        prompt_tokens=9,
        logprob=-1.0,
        near_ties=near_ties,
    )


class Spoken:
    """An engine that gives the answers of a list, and to the base those of another."""

    def __init__(
        self,
        texts: Sequence[str],
        *,
        tokens: int = 9,
        off: float = 0.003,
        base: str = "b",
        others: str = "o",
        rounds: bool = False,
    ) -> None:
        self.texts, self.tokens, self.off, self.has_base = texts, tokens, off, True
        self.base, self.others, self.rounds = base, others, rounds
        self.lengths: set[int] = set()

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def ask(
        self, messages: Sequence[Mapping[str, str]], *, base: bool = False, **extra: Any
    ) -> EngineAnswer:
        number = int(messages[0]["content"])
        if base:
            assert "model" not in extra
            self.lengths.add(extra["max_tokens"])
            return EngineAnswer(f"{self.base}{number}", 9, -1.003)
        if extra["model"] == "other":
            return EngineAnswer(f"So: {self.others}{number}", 9, -1.0)
        assert (extra["model"], extra["max_tokens"]) == ("mine", 30)
        return EngineAnswer(f"So: {self.texts[number]}", self.tokens, -1.0 - self.off)


def checked(engine: Spoken, near_ties: int = 0, others: Sequence[str] = ()) -> EngineCheck:
    asked = Asked(
        [[{"role": "user", "content": str(n)}] for n in range(3)],
        [prediction(n, f"a{n}", near_ties) for n in range(3)],
        [prediction(n, f"b{n}") for n in range(3)],
        "So: ",
        {"max_tokens": 30},
        "mine",
        others,
        base_tokens=4,
    )
    return check_task(engine, asked)


def test_answers_of_predict_hold_and_each_fault_is_named() -> None:
    right = ["a0", "a1", "a2"]
    engine = Spoken(right)
    found = checked(engine)
    assert found.faults == []
    assert (found.alike, found.changed, found.prompts, found.own) == (3, 3, 3, None)
    assert found.difference == found.noise == pytest.approx(0.001)  # of 3 tokens: 2 and a stop
    assert engine.lengths == {4}
    assert len(found.cells()) == len(LINES)
    assert found.cells()[:5] == ["3 of 3", "3 of 3", "0 of 0", "3 of 3", "not asked"]
    (fault,) = checked(Spoken(right, tokens=5)).faults
    assert "the anchor is lost" in fault
    (fault,) = checked(Spoken(["a0", "a1", "x"])).faults
    assert "not those of `predict`" in fault
    assert checked(Spoken(["a0", "a1", "x"]), near_ties=1).faults == []
    assert checked(Spoken(["a0", "a1", "x"], rounds=True)).faults == []
    (fault,) = checked(Spoken(["a0", "x", "x"], rounds=True)).faults
    assert "not those of `predict`" in fault
    assert "not on" in checked(Spoken(["b0", "b1", "b2"])).faults[-1]


def test_log_probabilities_may_differ_by_twice_the_noise_of_the_base() -> None:
    right = ["a0", "a1", "a2"]
    assert checked(Spoken(right, off=0.0059)).faults == []
    (fault,) = checked(Spoken(right, off=0.0061)).faults
    assert "twice the noise" in fault
    (fault,) = checked(Spoken(right, base="x")).faults  # without noise, nothing is taken for right
    assert "no answer of the base" in fault


def test_another_adapter_on_the_engine_must_answer_otherwise() -> None:
    right = ["a0", "a1", "a2"]
    found = checked(Spoken(right), others=["other"])
    assert (found.own, found.faults) == (3, [])
    found = checked(Spoken(right, others="a"), others=["other"])
    assert found.own == 0
    (fault,) = found.faults
    assert "another adapter" in fault


@pytest.mark.parametrize(
    ("tokens", "stopped", "longest"), [([3, 8], True, 10), ([8, 20], False, 20), ([19], True, 20)]
)
def test_the_base_answers_about_as_long_as_the_adapter(
    tokens: list[int], stopped: bool, longest: int
) -> None:
    answers = [
        replace(prediction(n, "a"), new_tokens=count, stopped=stopped)
        for n, count in enumerate(tokens)
    ]
    assert base_tokens(answers, 20) == longest


# The commands

SERVED = Served("/to/letters", "adapter", "owner/base", "abc", 20, ["a", "b"], "Why?")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment with the engines, at the end of PATH."""
    for name in ("vllm", "transformers", "llama-server", "python"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "python"


def test_commands_take_the_python_of_the_engine_and_the_flags_that_are_printed(
    installed: Path,
) -> None:
    made = vllm_command(SERVED, on_gpu=False)
    assert made.words[0] == str(installed)
    line = " ".join(made.words)
    for part in (
        *("--model owner/base", "--revision abc", "--enable-lora --max-lora-rank 32"),
        *("--lora-modules letters=/to/letters", "--chat-template /to/letters/chat_template.jinja"),
        *("--generation-config /to/letters", "--dtype float32 --enforce-eager"),
    ):
        assert part in line
    assert (made.model, made.base, made.logprobs) == ("letters", {"model": "owner/base"}, True)
    two = vllm_command(replace(SERVED, others={"notes": "/to/notes"}), on_gpu=False)
    assert "--lora-modules letters=/to/letters notes=/to/notes --chat" in " ".join(two.words)
    assert "float32" not in vllm_command(SERVED, on_gpu=True).words
    whole = replace(SERVED, form="merged")
    assert vllm_command(whole, on_gpu=True).words[4] == "/to/letters"
    serve = transformers_command(whole, on_gpu=False)
    assert serve.words[1:5] == ["-m", "transformers.cli.transformers", "serve", "/to/letters"]
    assert (serve.base, serve.logprobs) == (None, False)


def test_llama_server_gets_the_template_of_one_task(installed: Path) -> None:
    alone = replace(SERVED, form="gguf", gguf_base="/base.gguf", max_new_tokens=40)
    made = llama_command(alone.of_task("b"), on_gpu=False)
    line = " ".join(made.words)
    assert made.words[0] == str(installed.with_name("llama-server"))
    for part in (
        *("-m /base.gguf --lora /to/letters/adapter.gguf", "--jinja", "--alias letters"),
        "--chat-template-file /to/letters/additional_chat_templates/b.jinja",
        *("--temp 0 --n-predict 40", "--cache-type-k f32", "--no-cache-prompt"),
    ):
        assert part in line
    assert (made.model, made.logprobs, made.rounds) == ("letters", True, True)
    assert made.base == {"lora": [{"id": 0, "scale": 0.0}]}
    whole = llama_command(replace(alone, gguf_base=None, tasks=["a"]), on_gpu=True)
    assert whole.base is None
    line = " ".join(whole.words)
    assert "-m /to/letters/model.gguf --jinja" in line
    assert "--chat-template-file /to/letters/chat_template.jinja" in line
    assert "--cache-type" not in line


def test_an_engine_that_is_missing_or_cannot_serve_the_form_is_named(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        EngineError, check=says("--check vllm", rule="512", got="rank 513", cure="merged")
    ):
        vllm_command(replace(SERVED, rank=513), on_gpu=False)
    with pytest.raises(
        EngineError, check=says("--check transformers", rule="whole", got="--format adapter")
    ):
        transformers_command(SERVED, on_gpu=False)
    with pytest.raises(
        EngineError, check=says("--check vllm", got="--format gguf", cure="llama.cpp")
    ):
        vllm_command(replace(SERVED, form="gguf"), on_gpu=False)
    with pytest.raises(
        EngineError, check=says("--check llama.cpp", got="--format adapter", cure="gguf")
    ):
        llama_command(SERVED, on_gpu=False)
    monkeypatch.setenv("PATH", os.path.dirname(os.devnull))
    with pytest.raises(
        EngineError, check=says("--check llama.cpp", rule="`llama-server`", got="none", cure="PATH")
    ):
        llama_command(replace(SERVED, form="gguf"), on_gpu=False)
    with pytest.raises(
        EngineError, check=says("--check", rule="`vllm`", got="none", cure=["PATH", "serving.md"])
    ):
        vllm_command(SERVED, on_gpu=False)
