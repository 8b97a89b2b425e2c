"""`export`: write a run's adapter, or the merged model, so that servers prompt as training did."""

import argparse
import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from tell_lightning.callbacks.folder import read_record
from tell_lightning.commands.arguments import CommandParser, as_path
from tell_lightning.commands.export_check import ENGINES, check_engine
from tell_lightning.commands.export_files import (
    compare_prompts,
    converters_for,
    draft_folder,
    served_anchors_of,
    write_gguf,
    write_merged,
    write_modelfiles,
    write_prompting,
)
from tell_lightning.commands.export_request import (
    data_sources,
    example_prompt,
    read_beside,
    read_source,
    test_rows,
)
from tell_lightning.commands.startup import quieten
from tell_lightning.commands.tables import print_rows
from tell_lightning.commands.trust import TRUST, TRUST_HELP
from tell_lightning.data.base_files import ACCEPT, ACCEPT_HELP, check_base
from tell_lightning.export.anchor_file import (
    WEIGHTS,
    check_template,
)
from tell_lightning.export.card import card
from tell_lightning.export.gguf import TYPES
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
from tell_lightning.export.serving import Served, instructions
from tell_lightning.progress import Progress
from tell_lightning.settings import ConfigError

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


def export(arguments: list[str]) -> None:
    """Run the command.

    Args:
        arguments: What follows the command on the command line.
    """
    asked, overrides = _parser().parse_with_keys(arguments)
    _check_push(asked)
    source = read_source(asked, overrides)
    beside = [read_beside(asked, source)] if asked.beside else []
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
    served_anchors = served_anchors_of(encoder, sources)
    rows = {name: list(test_rows(one, name)) for one in sources for name in one.tasks}
    base = base_path(model.base)
    served = Served(
        folder=str(target.absolute()),
        form=asked.format,
        base=os.path.abspath(base) if Path(base).is_dir() else base,
        revision=model.revision,
        rank=max(one.config.model.lora.rank for one in sources),
        tasks=list(served_anchors),
        prompt=example_prompt(source, rows),
        temperature=source.config.eval.temperature,
        others={one.run.path.absolute().name: str(one.run.adapter.absolute()) for one in beside},
        max_new_tokens=max((t.max_new_tokens for t in source.tasks.values()), default=256),
        gguf_base=str(asked.gguf_base.absolute()) if asked.gguf_base else None,
    )
    converters = converters_for(source, base) if asked.format == "gguf" else None
    with draft_folder(target) as draft:
        # GGUF is made of a Hugging Face folder, which is removed then.
        folder = Path(tempfile.mkdtemp(dir=draft)) if converters else draft
        write_prompting(folder, encoder, sources, served_anchors)
        alike = compare_prompts(folder, encoder, sources, rows, served_anchors)
        if asked.format == "adapter":
            for name in ("adapter_config.json", WEIGHTS, "anchor.json"):
                shutil.copyfile(source.run.adapter / name, draft / name)
        elif served.gguf_base is None:
            write_merged(folder, encoder, source, rows)
        if converters:
            write_gguf(draft, folder, converters, source, served, asked.gguf_type)
            written = write_modelfiles(draft, encoder, served, served_anchors, source)
            served = replace(served, modelfiles=written)
            shutil.rmtree(folder)
        base_file = Path(served.gguf_base).name if served.gguf_base else None
        on_page = replace(served, folder=target.name, gguf_base=base_file, others={})
        shown = replace(anchors, tasks=dict(source.tasks))
        record = read_record(source.run)
        text = card(on_page, shown, record, data_sources(source.config), asked.push)
        (draft / "README.md").write_text(text, encoding="utf-8")
        size = sum(path.stat().st_size for path in draft.rglob("*") if path.is_file())
    print(f"Written: {target} ({asked.format}, {size / 2**20:,.1f} MiB).\n")
    if asked.format != "gguf":
        print(f"To measure its general ability (experiments/lm_eval):\n{lm_eval_line(served)}\n")
    print(instructions(served))
    if asked.check:
        alike &= check_engine(asked.check, served, encoder, sources, rows)
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
