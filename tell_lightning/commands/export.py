"""`export`: write a run's adapter, or the merged model, so that servers prompt as training did."""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tell_lightning.callbacks.folder import RunFolder, existing_folder, read_record
from tell_lightning.commands.arguments import CommandParser, as_path
from tell_lightning.commands.check import Config, check
from tell_lightning.commands.predict import ended_by_sigterm
from tell_lightning.commands.startup import quieten
from tell_lightning.commands.tables import print_rows
from tell_lightning.commands.trust import TRUST, TRUST_HELP, check_trust, model_code
from tell_lightning.data.base_files import ACCEPT, ACCEPT_HELP, check_base
from tell_lightning.data.reading import DataLocation, read_records
from tell_lightning.data.records import Record
from tell_lightning.data.settings import General, Task
from tell_lightning.data.splits import resolve_root
from tell_lightning.errors import TellError
from tell_lightning.export.anchor_file import (
    WEIGHTS,
    AnchorFile,
    TaskPrompt,
    check_template,
    check_weights,
    read_anchor_file,
)
from tell_lightning.export.card import DataSource, card
from tell_lightning.export.engines import (
    HttpEngine,
    ended,
    llama_command,
    transformers_command,
    vllm_command,
)
from tell_lightning.export.gguf import TYPES, check_adapter, check_gguf_file
from tell_lightning.export.lm_eval import lm_eval_line
from tell_lightning.export.push import (
    PUBLIC,
    PUSH,
    YES,
    Repository,
    find_repository,
    listing,
    send,
    upload_line,
)
from tell_lightning.export.serving import ADAPTER_GGUF, MODEL_GGUF, MODELFILE, Served, instructions
from tell_lightning.files import follow_umask
from tell_lightning.metrics.predictions import Prediction
from tell_lightning.progress import Progress
from tell_lightning.settings import ConfigError

if TYPE_CHECKING:
    from tell_lightning.data.tokens import Encoder
    from tell_lightning.export.chat_template import ServedAnchor
    from tell_lightning.export.engine_check import Asked

DESCRIPTION = """
Write a run's adapter so that a server prompts it as in training: the chat template of the folder
puts the anchor on plain prompts by itself. The test rows are rendered with it, and their tokens
compared with those of `predict`. What to type for each engine is printed.

--format adapter: PEFT's files, for vLLM and PEFT. --format merged: the base with the adapter in its
weights, for everything that loads a Hugging Face model; a few test rows are answered before and
after. --format gguf: the same as one GGUF file for llama.cpp and Ollama, by llama.cpp's converters,
with a Modelfile; --gguf-base FILE: the adapter alone, to be loaded with that GGUF file of the base.

--check ENGINE: starts the engine, which is found on PATH (docs/serving.md); its answers to plain
prompts must be those of `predict`. The exit code is 1 where they are not.

--push OWNER/NAME: sends the folder to a private repository of the Hugging Face hub, which is made
if there is none. The list of files is shown first, and you are asked; a card that is there is kept.

Of several tasks, a request names one by chat_template_kwargs: {"task": NAME}; --task NAME exports
one alone. --beside RUN is for a vLLM that serves the adapters of two runs on one base: a server has
one template, so that the template knows the tasks of both.

--KEY=VALUE is a key of the configuration, such as --model.base=DIR for a base that has moved.
"""
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


@dataclass(frozen=True)
class _Source:
    """What is exported."""

    run: RunFolder
    config: Config
    anchors: AnchorFile
    tasks: Mapping[str, TaskPrompt]


def export(arguments: list[str]) -> None:
    """Run the command.

    Args:
        arguments: What follows the command on the command line.
    """
    asked, overrides = _parser().parse_with_keys(arguments)
    _check_push(asked)
    source = _source(asked, overrides)
    beside = [_beside(asked, source)] if asked.beside else []
    target: Path = asked.to
    if target.exists() or target.is_symlink():
        raise ConfigError(
            f"--to: must be a folder that does not exist yet, got '{target}'. Name another one, or "
            "remove it."
        )
    quieten()
    repository = find_repository(asked.push, public=asked.public) if asked.push else None
    from tell_lightning.data.templates import Renderer
    from tell_lightning.data.tokenizer import base_path, load_tokenizer
    from tell_lightning.data.tokens import Encoder

    model, anchors = source.config.model, source.anchors
    tokenizer = load_tokenizer(model.base, **model.hub_options)
    if not asked.accept_base:
        check_base(anchors.base_files, model.base, model.revision)
    encoder = Encoder(tokenizer, Renderer(tokenizer, anchors.thinking))
    sources = [source, *beside]
    for one in sources:
        check_template(
            one.run.adapter, one.anchors.template_digest, encoder.renderer.template_digest
        )
    served_anchors = _served_anchors(encoder, sources)
    rows = {name: list(_rows(one, name)) for one in sources for name in one.tasks}
    base = base_path(model.base)
    served = Served(
        folder=str(target.absolute()),
        form=asked.format,
        base=os.path.abspath(base) if Path(base).is_dir() else base,
        revision=model.revision,
        rank=max(one.config.model.lora.rank for one in sources),
        tasks=list(served_anchors),
        prompt=_example(source, rows),
        temperature=source.config.eval.temperature,
        others={one.run.path.absolute().name: str(one.run.adapter.absolute()) for one in beside},
        max_new_tokens=max((t.max_new_tokens for t in source.tasks.values()), default=256),
        gguf_base=str(asked.gguf_base.absolute()) if asked.gguf_base else None,
    )
    converters = _converters(source, base) if asked.format == "gguf" else None
    with _draft(target) as draft:
        # GGUF is made of a Hugging Face folder, which is removed then.
        folder = Path(tempfile.mkdtemp(dir=draft)) if converters else draft
        _write_prompting(folder, encoder, sources, served_anchors)
        alike = _check_prompts(folder, encoder, sources, rows, served_anchors)
        if asked.format == "adapter":
            for name in ("adapter_config.json", WEIGHTS, "anchor.json"):
                shutil.copyfile(source.run.adapter / name, draft / name)
        elif served.gguf_base is None:
            _write_merged(folder, encoder, source, rows)
        if converters:
            _write_gguf(draft, folder, converters, source, served, asked.gguf_type)
            written = _write_modelfiles(draft, encoder, served, served_anchors, source)
            served = replace(served, modelfiles=written)
            shutil.rmtree(folder)
        base_file = Path(served.gguf_base).name if served.gguf_base else None
        on_page = replace(served, folder=target.name, gguf_base=base_file, others={})
        shown = replace(anchors, tasks=dict(source.tasks))
        record = read_record(source.run)
        text = card(on_page, shown, record, _data_sources(source.config), asked.push)
        (draft / "README.md").write_text(text, encoding="utf-8")
        size = sum(path.stat().st_size for path in draft.rglob("*") if path.is_file())
    print(f"Written: {target} ({asked.format}, {size / 2**20:,.1f} MiB).\n")
    if asked.format != "gguf":
        print(f"To measure its general ability (experiments/lm_eval):\n{lm_eval_line(served)}\n")
    print(instructions(served))
    if asked.check:
        alike &= _check_engine(asked.check, served, encoder, sources, rows)
    if not alike:
        if repository:
            print(f"Not pushed, because of what differs above: {upload_line(target, repository)}")
        sys.exit(1)
    if repository:
        _push(served, repository, agreed=asked.yes)


# The command line


def _parser() -> CommandParser:
    parser = CommandParser("export", DESCRIPTION, keys="[--KEY=VALUE]...")
    parser.add_argument("run", metavar="RUN", help="the folder of a run that has ended")
    parser.add_argument(
        "--to", metavar="DIR", type=as_path, required=True, help="the folder to write"
    )
    parser.add_argument(
        "--format",
        choices=("adapter", "merged", "gguf"),
        default="adapter",
        help="what to write; default: adapter",
    )
    parser.add_argument(
        "--gguf-base",
        metavar="FILE",
        type=as_path,
        help="the GGUF file that the adapter alone is written for, by --format gguf",
    )
    parser.add_argument(
        "--gguf-type",
        choices=(*TYPES.values(), "q8_0"),
        help="the type of merged GGUF weights; default: that of the base",
    )
    parser.add_argument(
        "--check",
        choices=tuple(ENGINES),
        help="start this engine on the loopback address, and ask it test rows as a user would",
    )
    parser.add_argument(
        PUSH, metavar="OWNER/NAME", help="the repository of the Hugging Face hub to send it to"
    )
    parser.add_argument(PUBLIC, action="store_true", help="let everybody read that repository")
    parser.add_argument(YES, action="store_true", help="send without asking")
    parser.add_argument("--task", metavar="NAME", help="the one task whose anchor is put on")
    parser.add_argument(
        "--beside", metavar="RUN", help="another run whose adapter the same vLLM serves"
    )
    parser.add_argument(TRUST, action="store_true", help=TRUST_HELP)
    parser.add_argument(ACCEPT, action="store_true", help=ACCEPT_HELP)
    return parser


def _source(asked: argparse.Namespace, overrides: Sequence[str]) -> _Source:
    """Read the run; everything that can be wrong without a model is found here."""
    run = existing_folder(asked.run)
    if not run.adapter.is_dir():
        raise ConfigError(
            f"RUN: must be a run that has ended and left its adapter, got '{asked.run}' without "
            f"one. Go on with it: fit --resume {asked.run}."
        )
    anchors = read_anchor_file(run.adapter)
    check_weights(run.adapter, anchors)
    trained = [f"--model.base={anchors.base}", f"--model.revision={anchors.revision or 'null'}"]
    config = check(["-c", str(run.latest_config), *trained, *overrides], None)
    if not asked.trust:
        check_trust(run.path, model_code(config.values), overrides)
    _check_gguf_options(asked, run.adapter)
    if asked.task is not None and asked.task not in anchors.tasks:
        raise ConfigError(
            f"--task: must be one of {', '.join(anchors.tasks) or 'none'}, got '{asked.task}'. "
            "Choose one of them."
        )
    tasks = {name: t for name, t in anchors.tasks.items() if asked.task in {None, name}}
    if asked.check and config.eval.temperature:
        raise ConfigError(
            "--check: compares greedy answers, since drawn ones differ every time, got "
            f"eval.temperature: {config.eval.temperature:g}. Add --eval.temperature=0."
        )
    return _Source(run, config, anchors, tasks)


def _beside(asked: argparse.Namespace, source: _Source) -> _Source:
    """Read the other run, and refuse what one server with one template cannot serve."""
    if asked.format != "adapter":
        raise ConfigError(
            f"--beside: goes with --format adapter, got {asked.format}, which is one whole model. "
            "Leave one of them out."
        )
    model = source.config.model
    keys = [f"--model.base={model.base}", f"--model.revision={model.revision or 'null'}"]
    other = argparse.Namespace(**{**vars(asked), "run": asked.beside, "task": None})
    found = _source(other, keys)
    if not asked.accept_base:
        check_base(found.anchors.base_files, model.base, model.revision)
    for name in found.tasks:
        if name in source.tasks:
            raise ConfigError(
                f"--beside: must be a run with tasks of other names, since a request names one, "
                f"got '{name}' in both. Serve them by a server each."
            )
    if found.anchors.thinking != source.anchors.thinking:
        raise ConfigError(
            f"--beside: must be a run with data.thinking: {source.anchors.thinking}, got "
            f"{found.anchors.thinking}. Serve them by a server each."
        )
    if found.run.path.absolute().name == asked.to.absolute().name:
        raise ConfigError(
            f"--to: must have another name than the folder of --beside, by which requests choose "
            f"the adapter, got '{asked.to.absolute().name}' for both. Name another one."
        )
    return found


def _data_sources(config: Config) -> dict[str, DataSource]:
    """Return what a configuration says of its training rows, by task and general source."""
    sources: dict[str, Task | General] = {**config.data.tasks, **config.data.general}
    return {name: _data_source(source) for name, source in sources.items()}


def _data_source(source: Task | General) -> DataSource:
    place = source.train if isinstance(source.train, DataLocation) else DataLocation()
    return DataSource(place.hub, place.revision, source.license)


# The hub


def _check_push(asked: argparse.Namespace) -> None:
    """Check the options that belong together."""
    for given, name in ((asked.public, PUBLIC), (asked.yes, YES)):
        if given and not asked.push:
            raise ConfigError(
                f"{name}: must be given together with {PUSH}, got it alone. Add {PUSH} "
                "OWNER/NAME, or leave it out."
            )
    if asked.push and not asked.yes and not sys.stdin.isatty():
        raise ConfigError(
            f"{PUSH}: must ask before it sends, got no terminal to ask on. Add {YES}, which sends "
            "without asking."
        )


def _push(served: Served, repository: Repository, *, agreed: bool) -> None:
    """Show what would be sent, ask unless the user has agreed already, and send it."""
    folder = Path(served.folder)
    files = listing(folder, repository)
    print(f"\nTo push to {repository.shown}:")
    print_rows([["file", "bytes", ""], *files])
    if served.form == "adapter" and Path(served.base).is_dir():
        print(f"adapter_config.json names the base by its folder here: {served.base}")
    if not agreed:
        print("Send these files? [y/N] ", end="", flush=True)
        agreed = sys.stdin.readline().strip().lower() in {"y", "yes"}
    if not agreed:
        print(f"Nothing was sent. Later: {upload_line(folder, repository)}")
        return
    with Progress("sending", shown=not sys.stderr.isatty()):  # there, the hub's client shows it
        address = send(folder, repository)
    print(f"Sent: {address}")


# GGUF


def _check_gguf_options(asked: argparse.Namespace, adapter: Path) -> None:
    """Refuse options of another format, and an adapter that GGUF cannot carry by itself."""
    for name, given in (("--gguf-base", asked.gguf_base), ("--gguf-type", asked.gguf_type)):
        if given is not None and asked.format != "gguf":
            raise ConfigError(
                f"{name}: belongs to --format gguf, got --format {asked.format}. Write --format "
                f"gguf, or leave {name} out."
            )
    if asked.gguf_base is None:
        return
    if asked.gguf_type is not None:
        raise ConfigError(
            "--gguf-type: is the type of a merged model, got --gguf-base, with which the adapter "
            "alone is written. Leave one of them out."
        )
    check_gguf_file(asked.gguf_base)
    check_adapter(json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8")))


# The parts of the folder


@contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """Make a folder beside the target that takes its name at the end, if nothing goes wrong."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".export-", dir=target.parent))
    except OSError as error:
        raise ConfigError(
            f"--to: must be a folder that can be written, got '{target}': {error.strerror}. Name "
            "another one."
        ) from error
    try:
        yield draft
        follow_umask(draft)
        os.rename(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _served_anchors(encoder: "Encoder", sources: Sequence[_Source]) -> dict[str, "ServedAnchor"]:
    """Return what the template puts on for each task; one entry if it is the same for all."""
    from tell_lightning.data.anchors import Anchor
    from tell_lightning.export.chat_template import ServedAnchor, served_anchor

    found = {
        name: served_anchor(
            encoder.renderer,
            task.anchor,
            source.anchors.variant,
            force_response_prefix=task.force_response_prefix,
            where=f"data.tasks.{name}.anchor",
        )
        for source in sources
        for name, task in source.tasks.items()
    }
    if len(set(found.values())) > 1:
        return found
    return dict(list(found.items())[:1]) or {"none": ServedAnchor(Anchor())}


def _write_prompting(
    draft: Path,
    encoder: "Encoder",
    sources: Sequence[_Source],
    anchors: Mapping[str, "ServedAnchor"],
) -> None:
    """Write the tokenizer with its templates, and how to generate."""
    from transformers import AutoTokenizer, GenerationConfig

    from tell_lightning.export.chat_template import served_template

    thinking = sources[0].anchors.thinking
    encoder.tokenizer.save_pretrained(str(draft))
    for old in ("chat_template.jinja", "additional_chat_templates"):
        if (draft / old).is_dir():
            shutil.rmtree(draft / old)
        (draft / old).unlink(missing_ok=True)
    tokenizer: Any = AutoTokenizer.from_pretrained(str(draft))
    template = served_template(encoder, anchors, thinking)
    alone = {name: served_template(encoder, {name: one}, thinking) for name, one in anchors.items()}
    tokenizer.chat_template = template if len(anchors) == 1 else {**alone, "default": template}
    tokenizer.save_pretrained(str(draft))
    tasks = [task for source in sources for task in source.tasks.values()]
    ends = [encoder.token_id(text, "stop_tokens") for task in tasks for text in task.stop_tokens]
    if len({task.stop_tokens for task in tasks}) > 1:
        print("stop_tokens differ between the tasks: requests name their own, as `stop`.")
        ends = []
    temperature = sources[0].config.eval.temperature
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    config: Any = GenerationConfig
    config(
        **(sampling if temperature else {"do_sample": False}),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=list(dict.fromkeys((*encoder.renderer.stop_ids, *ends))),
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=max((task.max_new_tokens for task in tasks), default=256),
    ).save_pretrained(str(draft))


def _rows(source: _Source, name: str) -> Iterator[Record]:
    """Read the test rows of a task, or its dev rows; none where they cannot be read here."""
    data = source.config.data
    settings = data.tasks.get(name)
    place = (settings.test or settings.dev) if settings else None
    if place is None:
        return
    try:
        found = read_records(
            place,
            fields=source.tasks[name].fields,
            root=resolve_root(data),
            on_bad_rows=data.on_bad_rows,
            max_bad_share=data.max_bad_share,
            need_response=False,
        )
    except TellError as error:
        print(f"Prompts: not checked for {name}, whose rows cannot be read: {error}")
        return
    yield from found.records


def _example(source: _Source, rows: Mapping[str, Sequence[Record]]) -> str:
    """Return a short prompt of the first task, without its anchor, for the printed lines."""
    from tell_lightning.data.prediction_rows import settle_anchor

    for name, task in source.tasks.items():
        for record in rows[name]:
            plain, _ = settle_anchor(record, task.anchor, "none", free=True)
            text = plain.prompt_turns[-1].content
            if len(plain.prompt_turns) == 1 and len(text) <= 200:
                return text
        break
    return "Your text."


def _check_prompts(
    draft: Path,
    encoder: "Encoder",
    sources: Sequence[_Source],
    rows: Mapping[str, Sequence[Record]],
    anchors: Mapping[str, "ServedAnchor"],
) -> bool:
    """Compare a server's prompts with those of `predict`, and say how many are the same."""
    from transformers import AutoTokenizer

    from tell_lightning.export.prompt_check import check_prompts

    tokenizer = AutoTokenizer.from_pretrained(str(draft))
    alike = True
    for source, name in ((one, name) for one in sources for name in one.tasks):
        if not rows[name]:
            continue
        task = source.tasks[name]
        keywords = {"task": name} if len(anchors) > 1 else {}
        with Progress("rendering prompts"):
            found = check_prompts(
                encoder, tokenizer, rows[name], task, source.anchors.variant, keywords
            )
        print(
            f"Prompts: {found.alike:,} of {found.rows:,} rows of {name} have the tokens of "
            "`predict`, sent plain or with the anchor."
        )
        if found.spelt:
            print(
                f"  {found.spelt:,} spell a control token, which a server's tokenizer would not "
                "read as text: the template puts a space into it."
            )
        if found.first_other:
            alike = False
            print(f"  Others differ, such as {found.first_other}: answer them by `predict`.")
    return alike


def _write_merged(
    draft: Path, encoder: "Encoder", source: _Source, rows: Mapping[str, Sequence[Record]]
) -> None:
    """Write the merged model, and compare its answers with those of base and adapter."""
    from transformers import GenerationConfig

    from tell_lightning.export.merged import (
        compare_answers,
        merged_model,
        own_dtype,
        save_merged,
    )

    settings = source.config.model
    if settings.quantize:
        print(
            f"Merged: the adapter was trained on weights in {settings.quantize}, and is added to "
            "the base's own. It has not seen these, so that answers may differ."
        )
    dtype = own_dtype(settings)
    before = _answers(source, encoder, rows)
    with Progress("merging"):
        model = merged_model(replace(settings, quantize=None), source.run.adapter, dtype)
        model.generation_config = GenerationConfig.from_pretrained(str(draft))
        save_merged(model, draft)
        del model
    after = _answers(source, encoder, rows, merged=draft)
    if before:
        found = compare_answers(
            *([answer for some in each.values() for answer in some] for each in (before, after))
        )
        others = f", {found.near_ties} of the others at near ties" if found.near_ties else ""
        print(
            f"Merged: {found.alike} of {found.rows} answers are those of base and adapter{others}; "
            f"the weights are {dtype}, as the base's."
        )


def _converters(source: _Source, base: str) -> Path:
    """Bring llama.cpp's converters, and check that they know the base."""
    from tell_lightning.data.settings import DataSettings
    from tell_lightning.data.splits import cache_folder
    from tell_lightning.export import converters
    from tell_lightning.export.gguf import check_base

    cache = cache_folder(DataSettings(), "--format gguf", "Set XDG_CACHE_HOME to such a folder")
    folder = converters.converters_dir(cache)
    with Progress("asking llama.cpp's converter whether it knows the base"):
        check_base(folder, _base_folder(source, base))
    return folder


def _base_folder(source: _Source, base: str) -> Path:
    """Return the folder of the base; of a hub model it is in the cache."""
    if Path(base).is_dir():
        return Path(base)
    from transformers.utils.hub import cached_file

    revision = source.config.model.revision
    return Path(str(cached_file(base, "config.json", revision=revision))).parent


def _write_gguf(
    draft: Path,
    folder: Path,
    converters: Path,
    source: _Source,
    served: Served,
    kind: str | None,
) -> None:
    """Convert the merged model in a folder, or the adapter alone, and keep the templates."""
    from tell_lightning.data.tokenizer import base_path
    from tell_lightning.export.gguf import convert_adapter, convert_model
    from tell_lightning.export.merged import own_dtype

    model = source.config.model
    with Progress("converting to GGUF"):
        if served.gguf_base is None:
            kind = kind or TYPES[own_dtype(model)]
            convert_model(converters, folder, draft / MODEL_GGUF, kind)
        else:
            base = _base_folder(source, base_path(model.base))
            convert_adapter(converters, source.run.adapter, base, draft / ADAPTER_GGUF)
    for name in ("chat_template.jinja", "additional_chat_templates"):
        if (folder / name).exists():
            os.rename(folder / name, draft / name)


def _write_modelfiles(
    draft: Path,
    encoder: "Encoder",
    served: Served,
    anchors: Mapping[str, "ServedAnchor"],
    source: _Source,
) -> bool:
    """Write a Modelfile for each task, or say why Ollama cannot prompt as training did."""
    from tell_lightning.export.modelfile import ModelfileError, modelfile, turn_texts

    try:
        texts = turn_texts(encoder)
    except ModelfileError as error:
        print(error)
        return False
    for name, anchor in anchors.items():
        task = source.tasks.get(name)
        text = modelfile(
            texts,
            anchor,
            model=served.gguf_base or f"./{MODEL_GGUF}",
            adapter=f"./{ADAPTER_GGUF}" if served.gguf_base else None,
            stop=[*encoder.renderer.stop_texts, *(task.stop_tokens if task else ())],
            temperature=served.temperature,
            max_new_tokens=task.max_new_tokens if task else served.max_new_tokens,
        )
        file = MODELFILE if len(anchors) == 1 else f"{MODELFILE}-{name}"
        (draft / file).write_text(text, encoding="utf-8")
    return True


def _answers(
    source: _Source,
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


# An engine


def _check_engine(
    name: str,
    served: Served,
    encoder: "Encoder",
    sources: Sequence[_Source],
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
    source: _Source,
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
    predicted = _answers(source, encoder, rows, merged=merged)
    longest = {
        task: base_tokens(answers, source.tasks[task].max_new_tokens)
        for task, answers in predicted.items()
    }
    of_base = _answers(source, encoder, rows, adapter_off=True, longest=longest)
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
