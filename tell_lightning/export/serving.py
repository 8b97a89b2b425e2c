"""What to type to serve an exported folder, and what an engine cannot serve."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self

from tell_lightning.model.settings import LoraSettings

Form = Literal["adapter", "merged", "gguf"]
MODEL_GGUF, ADAPTER_GGUF, MODELFILE = "model.gguf", "adapter.gguf", "Modelfile"
"""The files of a GGUF folder; of several tasks each has a Modelfile, with its name behind."""
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values of vLLM's --max-lora-rank (0.32); 16 is its default."""


@dataclass(frozen=True)
class Served:
    """An exported folder as engines load it."""

    folder: str
    """Where the folder lies, as commands write it."""
    form: Form
    base: str
    """Folder or hub id of the base."""
    revision: str | None
    rank: int
    """The largest rank of the adapters."""
    tasks: Sequence[str]
    """The tasks whose anchors the template puts on; a request names one of several."""
    prompt: str
    """A prompt to try."""
    temperature: float = 0.0
    others: Mapping[str, str] = field(default_factory=dict)
    """Folders of other adapters on the same server, by the name of each in requests."""
    max_new_tokens: int = 256
    """Longest answer of a task, in tokens."""
    gguf_base: str | None = None
    """The GGUF file that a GGUF adapter is loaded with; None: it is merged."""
    modelfiles: bool = True
    """Whether a GGUF folder has Modelfiles."""
    template: str = "chat_template.jinja"
    """The chat template in the folder."""

    @property
    def name(self) -> str:
        """The name of the model in requests."""
        return self.folder if self.form == "merged" else Path(self.folder).name

    @property
    def is_alone(self) -> bool:
        """Whether the adapter lies in the folder without the weights of the base."""
        return self.form == "adapter" or self.gguf_base is not None

    def of_task(self, task: str) -> Self:
        """Return the folder as it is served for one task alone."""
        if len(self.tasks) == 1:
            return self
        return replace(self, tasks=[task], template=f"additional_chat_templates/{task}.jinja")

    @property
    def request(self) -> dict[str, object]:
        """The body of a request to the chat endpoint."""
        chosen = {"chat_template_kwargs": {"task": self.tasks[0]}} if len(self.tasks) > 1 else {}
        messages = [{"role": "user", "content": self.prompt}]
        return {"model": self.name, "messages": messages, **chosen}


def vllm_rank(rank: int) -> int | None:
    """Return the least --max-lora-rank of vLLM for a rank; None: it is too large."""
    return next((allowed for allowed in VLLM_RANKS if rank <= allowed), None)


def serving_notes(lora: LoraSettings) -> list[str]:
    """Say which engines cannot serve an adapter as it is, or need a flag for it."""
    needed, notes = vllm_rank(lora.rank), []
    if needed is None:
        notes.append(
            f"vLLM serves adapters up to rank {VLLM_RANKS[-1]}, not model.lora.rank "
            f"{lora.rank}: lower it, or serve it by `export --format merged`."
        )
    elif needed > 16:
        notes.append(
            f"vLLM serves model.lora.rank {lora.rank} only with --max-lora-rank {needed}, which "
            "`export` prints."
        )
    if lora.rslora:
        notes.append(
            "llama.cpp and Ollama scale adapters by alpha / rank, not as model.lora.rslora does: "
            "serve it there by `export --format gguf`, which merges, or set rslora: false."
        )
    return notes


def lora_modules(served: Served) -> list[str]:
    """Return the values of vLLM's --lora-modules."""
    return [
        f"{name}={folder}" for name, folder in {served.name: served.folder, **served.others}.items()
    ]


def vllm_line(served: Served) -> str | None:
    """Return the command that starts vLLM; None if it cannot serve the adapter."""
    folder = served.folder
    greedy = ["--override-generation-config", json.dumps({"temperature": served.temperature})]
    if served.form == "merged":
        return _line(["vllm", "serve", folder], greedy)
    needed = vllm_rank(served.rank)
    if needed is None:
        return None
    return _line(
        ["vllm", "serve", served.base],
        ["--revision", served.revision] if served.revision else [],
        ["--enable-lora", "--max-lora-rank", str(needed)],
        ["--lora-modules", *lora_modules(served)],
        ["--chat-template", f"{folder}/chat_template.jinja", "--generation-config", folder],
        greedy,
    )


def llama_server_words(served: Served) -> list[list[str]]:
    """Return the command that starts llama.cpp's server on a GGUF folder, in groups of words.

    Of several tasks it serves one: it refuses a template that needs `chat_template_kwargs`, because
    it tries the template without them when it starts.
    """
    folder, adapter = served.folder, served.gguf_base is not None
    loaded = ["-m", served.gguf_base or f"{folder}/{MODEL_GGUF}"]
    answers = ["--temp", f"{served.temperature:g}", "--n-predict", str(served.max_new_tokens)]
    if served.temperature:
        answers += ["--top-k", "0", "--top-p", "1", "--min-p", "0"]
    return [
        ["llama-server", *loaded, *(["--lora", f"{folder}/{ADAPTER_GGUF}"] if adapter else [])],
        ["--jinja", "--chat-template-file", f"{folder}/{served.template}"],
        ["--reasoning-format", "none", "--alias", served.name],
        answers,
    ]


def ollama_lines(served: Served) -> str:
    """Return the commands that make Ollama models of a GGUF folder, one for each task."""
    lines = []
    for task in served.tasks:
        name, file = served.name.lower(), MODELFILE
        if len(served.tasks) > 1:
            name, file = f"{name}-{task.lower()}", f"{MODELFILE}-{task}"
        lines.append(_line(["ollama", "create", name, "-f", f"{served.folder}/{file}"]))
    return "\n".join(lines)


def curl_line(served: Served) -> str:
    """Return the command that sends one request."""
    body = json.dumps(served.request, ensure_ascii=False)
    return _line(
        ["curl", "http://localhost:8000/v1/chat/completions"],
        ["-H", "Content-Type: application/json"],
        ["-d", body],
    )


def python_lines(served: Served) -> str:
    """Return a program that answers one prompt with transformers and, for an adapter, PEFT."""
    folder = _quoted(served.folder)
    revision = f", revision={_quoted(served.revision)}" if served.revision else ""
    if served.form == "adapter":
        load = [
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig",
            "",
            f"folder = {folder}",
            "base = AutoModelForCausalLM.from_pretrained(",
            f'    {_quoted(served.base)}{revision}, dtype="auto"',
            ")",
            "model = PeftModel.from_pretrained(base, folder).eval()",
        ]
    else:
        load = [
            "from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig",
            "",
            f"folder = {folder}",
            'model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()',
        ]
    task = f", task={_quoted(served.tasks[0])}" if len(served.tasks) > 1 else ""
    return "\n".join(
        [
            *load,
            "tokenizer = AutoTokenizer.from_pretrained(folder)",
            f'messages = [{{"role": "user", "content": {_quoted(served.prompt)}}}]',
            "inputs = tokenizer.apply_chat_template(",
            f"    messages, add_generation_prompt=True{task},",
            '    return_tensors="pt", return_dict=True,',
            ")",
            "settings = GenerationConfig.from_pretrained(folder)",
            "answer = model.generate(**inputs, generation_config=settings)",
            'new = answer[0, inputs["input_ids"].shape[1]:]',
            "print(tokenizer.decode(new, skip_special_tokens=True))",
        ]
    )


def instructions(served: Served) -> str:
    """Return what to type to serve the folder and to ask it, for each engine."""
    if served.form == "gguf":
        one = served.of_task(served.tasks[0])
        start = _line(*llama_server_words(one), ["--port", "8000"])
        others = ", ".join(served.tasks[1:])
        note = f"\nIt serves {served.tasks[0]}; {others}: each by a server of its own."
        parts = [f"With llama.cpp:\n{start}{note if others else ''}"]
        parts.append(f"Ask it:\n{curl_line(one)}")
        parts += [f"With Ollama:\n{ollama_lines(served)}"] if served.modelfiles else []
        return "\n\n".join(parts)
    parts, names = [], [served.name, *served.others]
    if line := vllm_line(served):
        note = "\nThe template counts for all requests to this server, also to the base."
        parts.append(f"With vLLM:\n{line}{note if served.form == 'adapter' else ''}")
        if served.others:
            parts[-1] += f"\nThe key `model` chooses the adapter: {', '.join(names)}."
    else:
        parts.append(f"vLLM cannot serve rank {served.rank}: export --format merged.")
    if served.form == "merged":
        parts.append("With transformers:\n" + _line(["transformers", "serve", served.folder]))
    parts += [f"Ask it:\n{curl_line(served)}", f"From Python:\n{python_lines(served)}"]
    return "\n\n".join(parts)


def _quoted(text: str) -> str:
    """Write a text as Python and JSON do."""
    return json.dumps(text, ensure_ascii=False)


def _line(*groups: Sequence[str]) -> str:
    """Write a command line that can be pasted into a shell, a group of words a line."""
    return " \\\n  ".join(shlex.join(group) for group in groups if group)
