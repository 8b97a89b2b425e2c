"""`predict`: answer rows of a file or of standard input; the anchor is put on by itself.

    predict (--run RUN | --adapter DIR | --base) [-c FILE]... [--task NAME]
            [--input FILE|-] [--output FILE]

Without --input the task's test rows are answered. `-` reads standard input line by line: a line
that begins with `{` is a JSON row, any other is a prompt. Answers are JSON, one object a line.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, NoReturn

from tell_lightning.callbacks.folder import existing_folder
from tell_lightning.commands.check import Config, ConfigError, check
from tell_lightning.commands.startup import quieten
from tell_lightning.data.evaluation_rows import build
from tell_lightning.data.records import Record, read_records, record_from_line
from tell_lightning.data.settings import Task
from tell_lightning.data.sources import resolve_root
from tell_lightning.errors import TellError
from tell_lightning.export.anchor_file import AnchorFile, TaskPrompt, read_anchor_file


@dataclass(frozen=True)
class Request:
    """What is to be answered, read and checked before torch is imported."""

    config: Config
    adapter: Path | None
    anchors: AnchorFile | None
    batches: Iterable[tuple[str, TaskPrompt, list[Record]]]


def predict(arguments: list[str]) -> None:
    """Run the verb.

    Args:
        arguments: What follows the verb on the command line.
    """
    options = _parse(arguments)
    request = _request(options)
    if options.output is None:
        _answer(request, sys.stdout)
        return
    path = Path(options.output)
    if not path.parent.is_dir():
        raise ConfigError(
            f"--output: must be in an existing folder, got '{options.output}'. Make the folder."
        )
    with path.open("w", encoding="utf-8") as output:
        _answer(request, output)


class _Parser(argparse.ArgumentParser):
    """Reports a mistake in our form."""

    def error(self, message: str) -> NoReturn:
        """Raise what `main` prints."""
        if "one of the arguments" in message:
            raise ConfigError(
                "predict: one of --run, --adapter and --base must be given, got none. "
                "See `predict --help`."
            )
        got = message.removeprefix("unrecognized arguments: ")
        raise ConfigError(f"predict: options must be known, got {got}. See `predict --help`.")


def _parse(arguments: list[str]) -> argparse.Namespace:
    assert __doc__ is not None
    parser = _Parser(
        prog="python -m tell_lightning predict",
        usage=(
            "python -m tell_lightning predict (--run RUN | --adapter DIR | --base) [-c FILE]...\n"
            "           [--task NAME] [--input FILE|-] [--output FILE]"
        ),
        allow_abbrev=False,
        description=__doc__.split("\n\n")[0],
        epilog=__doc__.rsplit("\n\n", 1)[1],
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--run", metavar="RUN", help="the adapter of a run, with its configuration")
    which.add_argument("--adapter", metavar="DIR", help="an adapter folder alone")
    which.add_argument("--base", action="store_true", help="the base model, without an adapter")
    parser.add_argument("-c", "--config", action="append", default=[], metavar="FILE")
    parser.add_argument("--task", metavar="NAME", help="whose anchor to use, where there are many")
    parser.add_argument("--input", metavar="FILE", help="rows to answer; - is standard input")
    parser.add_argument("--output", metavar="FILE", help="where to; else standard output")
    return parser.parse_args(arguments)


def _request(options: argparse.Namespace) -> Request:
    """Read configuration, anchors and rows."""
    files = list(options.config)
    adapter = Path(options.adapter) if options.adapter else None
    if options.run:
        folder = existing_folder(options.run)
        files = [str(folder.latest_config), *files]
        adapter = folder.adapter
    config = check([part for file in files for part in ("-c", file)])
    anchors = read_anchor_file(adapter) if adapter else None
    prompts = anchors.tasks if anchors else _prompts(config)
    names = _chosen(list(prompts), options.task)
    if options.input is None:
        if options.adapter and not options.config:
            raise ConfigError(
                "--input: needs rows to answer, got none, and an adapter folder alone has no test "
                "rows. Write --input FILE, or --input - for standard input."
            )
        rows = {name: _test_rows(config, name) for name in names}
        return Request(config, adapter, anchors, [(n, prompts[n], rows[n]) for n in names])
    if len(names) > 1:
        raise ConfigError(
            f"--task: must say whose anchor the rows get, got none. Choose one of "
            f"{', '.join(names)}."
        )
    prompt = prompts[names[0]]
    if options.input == "-":
        stream = _lines(sys.stdin, prompt)
        return Request(config, adapter, anchors, ((names[0], prompt, [row]) for row in stream))
    records = read_records(
        options.input, fields=prompt.fields, root=Path(), need_response=False
    ).records
    return Request(config, adapter, anchors, [(names[0], prompt, list(records))])


def _prompts(config: Config) -> dict[str, TaskPrompt]:
    return {
        name: TaskPrompt(task.anchor, task.max_new_tokens or 256, task.fields)
        for name, task in config.data.tasks.items()
    }


def _chosen(names: list[str], wanted: str | None) -> list[str]:
    if wanted is None:
        return names
    if wanted not in names:
        raise ConfigError(
            f"--task: must be one of {', '.join(names)}, got '{wanted}'. Choose one of them."
        )
    return [wanted]


def _test_rows(config: Config, name: str) -> list[Record]:
    task = config.data.tasks.get(name, Task())
    if task.test is None:
        raise ConfigError(
            f"data.tasks.{name}.test: there are no test rows to answer, got null. "
            "Write --input FILE, or add them."
        )
    root = resolve_root(config.data)
    return list(read_records(task.test, fields=task.fields, root=root, need_response=False).records)


def _lines(stream: IO[str], prompt: TaskPrompt) -> Iterator[Record]:
    for number, line in enumerate(stream, start=1):
        if line.strip():
            where = f"standard input:{number}"
            yield record_from_line(
                line.rstrip("\r\n"), fields=prompt.fields, where=where, id=str(number)
            )


def _answer(request: Request, output: IO[str]) -> None:
    """Load the model and answer; a line is written as soon as its batch is done."""
    quieten()
    import torch

    from tell_lightning.data.templates import Renderer
    from tell_lightning.data.tokens import Encoder
    from tell_lightning.generation.answer import answer_rows
    from tell_lightning.model.base import load_base, load_tokenizer

    settings, anchors = request.config.model, request.anchors
    if anchors:
        settings = replace(settings, base=anchors.base, revision=anchors.revision)
    tokenizer = load_tokenizer(settings)
    encoder = Encoder(tokenizer, Renderer(tokenizer))
    if anchors and anchors.template_digest != encoder.renderer.template_digest:
        raise TellError(
            f"{request.adapter}: the base's chat template must be the one of the training, got "
            "another. Use the base (model.base, model.revision) that the adapter was trained on."
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with device:
        model: Any = load_base(settings)
        if request.adapter:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(request.adapter))
    for name, prompt, records in request.batches:
        rows = build(
            encoder,
            records,
            task=name,
            anchor=prompt.anchor,
            variant=anchors.variant if anchors else request.config.data.mixture.anchor,
            scoring=request.config.data.tasks.get(name, Task()).scoring,
            max_new_tokens=prompt.max_new_tokens,
        )
        batch_tokens = request.config.eval.batch_tokens
        for prediction in answer_rows(model, tokenizer, rows, batch_tokens=batch_tokens):
            known = {"reference": prediction.reference} if prediction.reference else {}
            line = {
                "id": prediction.id,
                "task": name,
                "prediction": prediction.prediction,
                **known,
                "stopped": prediction.stopped,
                "prefix_found": prediction.prefix_found,
                "new_tokens": prediction.new_tokens,
            }
            output.write(json.dumps(line, ensure_ascii=False) + "\n")
        output.flush()
