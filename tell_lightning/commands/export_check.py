"""Answers as `predict` gives them, and an engine that is asked the same rows."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tell_lightning.commands.export_request import ExportSource
from tell_lightning.commands.predict import ended_by_sigterm
from tell_lightning.commands.tables import print_rows
from tell_lightning.data.records import Record
from tell_lightning.export.engines import (
    HttpEngine,
    ended,
    llama_command,
    transformers_command,
    vllm_command,
)
from tell_lightning.export.serving import Served
from tell_lightning.metrics.predictions import Prediction
from tell_lightning.progress import Progress
from tell_lightning.settings import ConfigError

if TYPE_CHECKING:
    from tell_lightning.data.tokens import Encoder
    from tell_lightning.export.engine_check import Asked

CHECKED = 32
"""How many rows of a task the merged model answers, to be compared."""
ASKED = 20
"""How many rows of a task an engine is asked."""
ENGINES = {
    "vllm": vllm_command,
    "transformers": transformers_command,
    "llama.cpp": llama_command,
}
"""How each engine is started."""


def answers_of(
    source: ExportSource,
    encoder: "Encoder",
    rows: Mapping[str, Sequence[Record]],
    *,
    merged: Path | None = None,
    adapter_off: bool = False,
    longest: Mapping[str, int] | None = None,
) -> dict[str, list[Prediction]]:
    """Answer the first rows of each task as `predict` does.

    Args:
        source: The run.
        encoder: Tokenizer and renderer of the training.
        rows: The rows by task.
        merged: The merged model; None: base and adapter.
        adapter_off: Whether the base answers alone.
        longest: Longest answers of each task, in tokens; None: as in training.
    """
    import torch

    from tell_lightning.export.prompt_check import predict_rows
    from tell_lightning.generation.answer import answer_rows
    from tell_lightning.generation.batched import Budget
    from tell_lightning.model.base import answering, load_base, precision_context
    from tell_lightning.model.lora import load_adapter

    asked = {name: rows[name][:CHECKED] for name in source.tasks if rows.get(name)}
    if not asked:
        return {}
    settings = source.config.model
    device, precision = answering(settings, source.config.trainer)
    if merged is not None:
        settings = replace(settings, base=str(merged), revision=None, quantize=None)
    with Progress("loading the model"), torch.device(device):
        model = load_base(settings)
        if merged is None and not adapter_off:
            model = load_adapter(model, source.run.adapter)
    with (
        Progress("answering", sum(map(len, asked.values()))) as progress,
        torch.device(device),
        precision_context(precision, device),
    ):
        return {
            name: answer_rows(
                model,
                encoder.tokenizer,
                predict_rows(
                    encoder,
                    some,
                    source.tasks[name],
                    source.anchors.variant,
                    max_new_tokens=longest[name] if longest else None,
                ),
                budget=Budget(source.config.eval.batch_tokens),
                temperature=source.config.eval.temperature,
                seed=source.config.seed,
                answered=progress.advance,
            )
            for name, some in asked.items()
        }


def check_engine(
    name: str,
    served: Served,
    encoder: "Encoder",
    sources: Sequence[ExportSource],
    rows: Mapping[str, Sequence[Record]],
) -> bool:
    """Ask an engine test rows as a user would, print what was found, and say whether it holds."""
    from tell_lightning.export.engine_check import LINES, check_task
    from tell_lightning.model.base import answering

    few = {task: list(some[:ASKED]) for task, some in rows.items() if some}
    if not few:
        raise ConfigError(
            f"--check: needs test rows to ask, got none that can be read. Set "
            f"data.tasks.{next(iter(sources[0].tasks), 'NAME')}.test."
        )
    device, _ = answering(sources[0].config.model, sources[0].config.trainer)
    on_gpu = device == "cuda"
    # llama.cpp serves one task at a time.
    alone = served.form == "gguf" and len(served.tasks) > 1
    parts = [(served.of_task(task), [task]) for task in few] if alone else [(served, list(few))]
    engines = [HttpEngine(ENGINES[name](part, on_gpu=on_gpu)) for part, _ in parts]
    names = [served.name, *served.others]
    asked = {
        task: one
        for source, own in zip(sources, names, strict=True)
        for task, one in _asked(served, encoder, source, few, own, on_gpu=on_gpu).items()
    }
    found = {}
    for engine, (_, tasks) in zip(engines, parts, strict=True):
        with ended_by_sigterm(), ended(engine):
            with Progress(f"starting {name}"):
                engine.start()
            with Progress(f"asking {name}", sum(len(few[task]) for task in tasks)) as progress:
                for task in tasks:
                    found[task] = check_task(engine, asked[task], progress.advance)
    print(f"\n{name}, asked plain prompts through its chat endpoint:")
    columns = zip(*(check.cells() for check in found.values()), strict=True)
    print_rows(
        [["", *found], *([line, *cells] for line, cells in zip(LINES, columns, strict=True))]
    )
    faults = [f"{task}: {fault}." for task, check in found.items() for fault in check.faults]
    print("\n".join(faults) or "All of it holds.")
    return not faults


def _asked(
    served: Served,
    encoder: "Encoder",
    source: ExportSource,
    rows: Mapping[str, Sequence[Record]],
    adapter: str,
    *,
    on_gpu: bool,
) -> dict[str, "Asked"]:
    """Return what an engine is asked of the tasks of a run, and what `predict` answers.

    On a CPU `predict` computes in float32, as the engine does there. A merged model is compared
    with its own answers by `predict`; what merging changes has been printed before.

    Args:
        served: What the engine serves.
        encoder: Tokenizer and renderer of the training.
        source: The run.
        rows: The rows by task.
        adapter: The name of the run's adapter in requests.
        on_gpu: Whether `predict` answers on a GPU.
    """
    from tell_lightning.data.prediction_rows import settle_anchor
    from tell_lightning.export.engine_check import Asked, base_tokens
    from tell_lightning.export.prompt_check import messages

    if not on_gpu:
        config = source.config
        trainer = {**config.trainer, "accelerator": "cpu", "precision": "32-true"}
        model = replace(config.model, dtype="float32")
        source = replace(source, config=replace(config, model=model, trainer=trainer))
    merged = Path(served.folder) if served.form == "merged" else None
    predicted = answers_of(source, encoder, rows, merged=merged)
    longest = {
        task: base_tokens(answers, source.tasks[task].max_new_tokens)
        for task, answers in predicted.items()
    }
    of_base = answers_of(source, encoder, rows, adapter_off=True, longest=longest)
    asked = {}
    for task in predicted:
        prompt = source.tasks[task]
        plain = [settle_anchor(r, prompt.anchor, "none", free=True)[0] for r in rows[task]]
        # vLLM has the limit from the folder; `transformers serve` has one of its own.
        extra: dict[str, Any] = {"max_tokens": prompt.max_new_tokens}
        if len(served.tasks) > 1 and served.form != "gguf":
            extra["chat_template_kwargs"] = {"task": task}
        asked[task] = Asked(
            [messages(record) for record in plain],
            predicted[task],
            of_base[task],
            "" if prompt.force_response_prefix else prompt.anchor.response_prefix,
            extra,
            adapter,
            [name for name in (served.name, *served.others) if name != adapter],
            base_tokens=longest[task],
        )
    return asked
