r"""General rows from the base itself: it writes instructions, and answers them.

A chat model that gets its template only up to the user's text goes on with what a user may say, as
Magpie (Xu et al., arXiv 2406.08464) found. What it answers to that is a row to keep it as it is:

    <|im_start|>user\n                       -> How do I peel an egg?<|im_end|>
    the whole template with that prompt      -> Put it into cold water, then ...<|im_end|>

Attempts are numbered. What is drawn for attempt 17 depends on the seed and on 17 alone, and whether
it becomes a row on the attempts before it. So more rows begin with the rows of fewer, and a process
that is killed goes on from its last complete block. In float32, batches change nothing. In bfloat16
their rounding may, so the rows are those of one kind of machine.

    instructions-<key>/000000.jsonl, 000032.jsonl, ...    every attempt, and what became of it
                       rows-600.jsonl                     the rows, also as train-600.jsonl and
                                                          held_out-600.jsonl
                       report-600.json                    counts
"""

import gc
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import torch

from tell_lightning.data.anchors import Example
from tell_lightning.data.base_files import base_digests
from tell_lightning.data.control import ControlTokens
from tell_lightning.data.permutation import derive_key
from tell_lightning.data.records import Turn
from tell_lightning.data.settings import DataSettings, General
from tell_lightning.data.splits import cache_folder
from tell_lightning.data.templates import Renderer
from tell_lightning.data.tokenizer import BaseModelError, load_tokenizer
from tell_lightning.data.tokens import Encoder
from tell_lightning.files import as_json, in_turn, write_whole
from tell_lightning.generation.batched import Budget, Generated, generate
from tell_lightning.generation.decoding import Decoding
from tell_lightning.generation.layout import GenerationError
from tell_lightning.generation.prefix import Prefix
from tell_lightning.generation.probe_prompts import prompts as probe_prompts
from tell_lightning.generation.row_filters import Prompts, answer_fault, prompt_fault, told
from tell_lightning.model.base import load_base
from tell_lightning.model.settings import ModelSettings
from tell_lightning.progress import Progress

RECIPE = 1
"""Version of the recipe: another one gives other rows."""
PROMPTS = Decoding(stop_ids=(), max_new_tokens=64, temperature=0.9, top_p=0.95)
"""How prompts are drawn: varied."""
ANSWERS = Decoding(stop_ids=(), max_new_tokens=256, temperature=0.6, top_p=0.95)
"""How answers are drawn: near the most probable ones, but greedy answers often loop. An answer also
has at most half of data.max_tokens."""
BLOCK = {"cpu": 32, "cuda": 256}
"""Attempts of a block, by device. A killed process loses at most one."""
BATCH_TOKENS = 2**15
"""Tokens of a batch, padding and answers included; halved if memory runs out."""
FIRST = 256
"""Attempts before it is judged whether enough of them become rows."""
LEAST_KEPT = 0.05
"""Share of the attempts that must become rows."""
HELD_OUT_SHARE, LEAST_HELD_OUT = 0.05, 20
"""Rows that are set apart: a share, but at least so many, and at most half of all."""

_MARKER = "Marker"


@dataclass(frozen=True)
class Written:
    """Rows that a base wrote.

    Attributes:
        rows: The file with all of them.
        train: Without those that are held out.
        held_out: The others; None if there are none.
        line: How many there are, and why others were left out.
    """

    rows: Path
    train: Path
    held_out: Path | None
    line: str


def generate_general(
    base: str,
    rows: int,
    *,
    seed: int = 42,
    closings: Sequence[str] = (),
    held_out: bool = True,
    max_tokens: int = 1024,
    thinking: Literal["strip", "keep"] = "strip",
    revision: str | None = None,
    trust_remote_code: bool = False,
    cache_dir: str | None = None,
) -> General:
    """Let a base write general rows, unless they are in the cache.

    Args:
        base: A chat model: hub id, folder, or a name such as 'microworld'.
        rows: How many rows.
        seed: Another seed gives other rows.
        closings: Texts that end the prompts in turn, as in `General`.
        held_out: Whether some rows are set apart, to see by their loss what is forgotten.
        max_tokens: As in `TellDataModule`; an answer has at most half of them.
        thinking: As in `TellDataModule`.
        revision: Commit, tag or branch of a hub model.
        trust_remote_code: Whether code from the model's repository may run on this machine.
        cache_dir: Where rows are kept; None: ~/.cache/tell_lightning.

    Returns:
        A source for `TellDataModule(general={...})`.

    Raises:
        BaseModelError: The base has no chat template, or one that opens no turn of a user.
        GenerationError: Too few of its rows are fit to train on.
    """
    model = ModelSettings(base=base, revision=revision, trust_remote_code=trust_remote_code)
    settings = DataSettings(cache_dir=cache_dir, max_tokens=max_tokens, thinking=thinking)
    wanted = General(generate=rows, closings=tuple(closings))
    written = write_rows(model, settings, wanted, seed=seed, key="rows")
    if not held_out or written.held_out is None:
        return General(train=str(written.rows))
    return General(train=str(written.train), held_out=str(written.held_out))


def write_rows(
    model: ModelSettings, data: DataSettings, source: General, *, seed: int, key: str
) -> Written:
    """Let a base write rows, unless they are in the cache. One process writes, others wait.

    Args:
        model: The model section.
        data: The data section, for the cache, `max_tokens` and `thinking`.
        source: The source, with `generate`.
        seed: The run's seed.
        key: What an error names, such as data.general.self.generate.

    Raises:
        BaseModelError: As `generate_general`.
        GenerationError: As `generate_general`.
    """
    rows = source.generate or 0
    tokenizer = load_tokenizer(model.base, **model.hub_options)
    author = _Author(model, data, source.closings, tokenizer, seed, key)
    folder = cache_folder(data) / f"instructions-{author.digest}"
    report = folder / f"report-{rows}.json"
    rate = ""
    if not report.is_file():
        lock = folder.with_name(f".{folder.name}.lock")
        with in_turn(lock, "waiting for another process that writes the same general rows"):
            if not report.is_file():
                folder.mkdir(exist_ok=True)
                rate = _write(author, folder, rows)
    facts = json.loads(report.read_text(encoding="utf-8"))
    return Written(
        rows=folder / f"rows-{rows}.jsonl",
        train=folder / f"train-{rows}.jsonl",
        held_out=folder / f"held_out-{rows}.jsonl" if facts["held_out"] else None,
        line=_line(rows, facts, rate),
    )


@dataclass(frozen=True)
class Attempt:
    """A prompt that the base wrote, and its answer to it.

    Attributes:
        prompt: With any control token in it.
        ended: Whether the turn ended.
        closing: The text after the prompt; it is not the base's.
        answer: None if the prompt was not answered, because it has a fault.
        answer_ended: Whether the turn of the answer ended.
    """

    prompt: str
    ended: bool
    closing: str = ""
    answer: str | None = None
    answer_ended: bool = False

    @property
    def whole(self) -> str:
        """The prompt as it was answered."""
        return f"{self.prompt}\n\n{self.closing}" if self.closing else self.prompt


class Sieve:
    """Decides, attempt by attempt, what becomes a row.

    Attributes:
        kept: The rows.
        attempts: Number of attempts.
        faults: How many attempts had which fault.
    """

    def __init__(self, rows: int, control: ControlTokens) -> None:
        """Start without an attempt.

        Args:
            rows: How many rows are wanted; attempts after the last of them are not counted.
            control: The tokens that only the template may write.
        """
        self.rows, self._control = rows, control
        self._prompts = Prompts(probe_prompts())
        self.kept: list[dict[str, str]] = []
        self.attempts = 0
        self.faults: Counter[str] = Counter()

    def prompt_faults(self, attempts: Sequence[Attempt]) -> list[str]:
        """Say what is wrong with the prompts of the next attempts; '' if nothing is."""
        return [self._prompt_fault(attempt) for attempt in attempts]

    def take(self, attempts: Sequence[Attempt], faults: Sequence[str]) -> None:
        """Keep what has no fault.

        Args:
            attempts: The next attempts, answered where their prompts have no fault.
            faults: What `prompt_faults` said of them.
        """
        for attempt, fault in zip(attempts, faults, strict=True):
            if len(self.kept) == self.rows:
                return
            answer = attempt.answer or ""
            fault = fault or answer_fault(
                attempt.prompt, answer, ended=attempt.answer_ended, control=self._control
            )
            self.attempts += 1
            if fault:
                self.faults[fault] += 1
            else:
                self.kept.append({"prompt": attempt.whole, "response": answer})

    def _prompt_fault(self, attempt: Attempt) -> str:
        fault = prompt_fault(attempt.prompt, ended=attempt.ended, control=self._control)
        fault = fault or self._prompts.repeat_of(attempt.prompt)
        if not fault:
            self._prompts.add(attempt.prompt)
        return fault


def held_out_rows(rows: Sequence[dict[str, str]]) -> set[int]:
    """Choose the rows that are set apart, by a digest of their prompts."""
    most = max(round(HELD_OUT_SHARE * len(rows)), LEAST_HELD_OUT)
    digests = [blake2b(row["prompt"].encode()).digest() for row in rows]
    in_order = sorted(range(len(rows)), key=digests.__getitem__)
    return set(in_order[: min(most, len(rows) // 2)])


def users_turn(tokenizer: Any, renderer: Renderer, base: str) -> tuple[list[int], tuple[int, ...]]:
    """Return the tokens up to the text of a user's first turn, and those that end the turn.

    Raises:
        BaseModelError: There is no template, or none in which tokens say where a user's turn begins
            and ends.
    """
    cure = "Give data.general.NAME.train instead of generate, or take a chat model."
    if renderer.is_plain:
        raise BaseModelError(
            f"model.base: must have a chat template to write rows by itself, got none in '{base}'. "
            f"{cure}"
        )
    asked = Example("", "chat template", (Turn("user", _MARKER),), {})
    before, _, behind = renderer.prompt_text(asked).partition(_MARKER)
    starts = [token for token in renderer.control.texts if behind.lstrip().startswith(token)]
    if not before.replace(tokenizer.bos_token or "", "").strip() or not starts:
        got = renderer.prompt_text(asked).replace(_MARKER, "TEXT")
        raise BaseModelError(
            "model.base: must have a chat template that opens a user's turn, and ends it with a "
            f"token of its own, to write rows by itself, got {got[-60:]!r} in '{base}'. {cure}"
        )
    end = int(tokenizer.convert_tokens_to_ids(max(starts, key=len)))
    opening = tokenizer(before.rstrip(" "), add_special_tokens=False).input_ids
    return list(opening), tuple(dict.fromkeys((end, *renderer.stop_ids)))


class _Author:
    """The base; its weights are loaded when it first writes."""

    def __init__(
        self,
        model: ModelSettings,
        data: DataSettings,
        closings: Sequence[str],
        tokenizer: Any,
        seed: int,
        key: str,
    ) -> None:
        self.settings, self.tokenizer, self.seed, self.key = model, tokenizer, seed, key
        self.renderer = renderer = Renderer(tokenizer, data.thinking)
        self._closings = closings or ("",)
        self._encoder = Encoder(tokenizer, renderer)
        self._opening, ends = users_turn(tokenizer, renderer, model.base)
        longest = max(1, min(ANSWERS.max_new_tokens, data.max_tokens // 2))
        self._prompts = replace(PROMPTS, stop_ids=ends)
        self._answers = replace(ANSWERS, stop_ids=renderer.stop_ids, max_new_tokens=longest)
        self._budget = Budget(BATCH_TOKENS)
        self._model: Any = None

    @property
    def device(self) -> str:
        """Where it computes."""
        return "cuda" if torch.cuda.is_available() else "cpu"

    def write(self, start: int, sieve: Sieve) -> tuple[list[Attempt], list[str]]:
        """Write the attempts of a block, and say what is wrong with their prompts."""
        numbers = range(start, start + BLOCK[self.device])
        drawn = self._generate("prompt", numbers, [self._opening] * len(numbers), self._prompts)
        closings = [self._closings[number % len(self._closings)] for number in numbers]
        attempts = [
            Attempt(self._text(each), each.stopped, closing)
            for each, closing in zip(drawn, closings, strict=True)
        ]
        faults = sieve.prompt_faults(attempts)
        good = [place for place, fault in enumerate(faults) if not fault]
        asked = [
            Example("", self.key, (Turn("user", attempts[place].whole),), {}) for place in good
        ]
        tokens = self._encoder.prompt_ids(asked)
        asking = [numbers[place] for place in good]
        answers = self._generate("answer", asking, tokens, self._answers)
        for place, each in zip(good, answers, strict=True):
            attempts[place] = replace(
                attempts[place], answer=self._text(each), answer_ended=each.stopped
            )
        return attempts, faults

    def _generate(
        self, what: str, numbers: Sequence[int], prompts: list[list[int]], decoding: Decoding
    ) -> list[Generated]:
        """Go on from prompts, each by draws that depend on the number of its attempt alone."""
        if not prompts:
            return []
        prefix = Prefix()
        prefix.add(prompts)
        return generate(
            self._loaded(),
            self.tokenizer,
            prompts,
            decoding,
            budget=self._budget,
            prefix=prefix,
            seeds=[derive_key(self.seed, "general", what, number) for number in numbers],
        )

    def _text(self, generated: Generated) -> str:
        """Decode with control tokens, which make a row unfit."""
        text: str = self.tokenizer.decode(
            generated.token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text.strip()

    def _loaded(self) -> Any:
        if self._model is None:
            device = torch.device(self.device)
            if device.type == "cuda":
                device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            self._model = load_base(self.settings, device.type).to(device)
        return self._model

    @property
    def digest(self) -> str:
        """Of what rows depend on, besides their number and the kind of machine."""
        parts = {
            "recipe": RECIPE,
            "drawing": [
                (how.max_new_tokens, how.temperature, how.top_p)
                for how in (self._prompts, self._answers)
            ],
            "closings": self._closings,
            "base": base_digests(self.settings.base, self.settings.revision),
            "template": self.renderer.template_digest,
            "probe": probe_prompts(),
            "seed": self.seed,
        }
        return blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()

    def close(self) -> None:
        """Free the memory of the weights for the training."""
        self._model = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _write(author: _Author, folder: Path, rows: int) -> str:
    """Write blocks until there are enough rows, then the files of the rows; say how fast it was."""
    sieve = Sieve(rows, author.renderer.control)
    start = 0
    for attempts in _stored(folder):
        sieve.take(attempts, sieve.prompt_faults(attempts))
        start += len(attempts)
    began, before = time.perf_counter(), len(sieve.kept)
    with Progress("writing general rows", rows, done=before) as progress:
        while len(sieve.kept) < rows:
            _check_supply(author.key, sieve)
            attempts, faults = author.write(start, sieve)
            lines = [as_json(asdict(attempt)) for attempt in attempts]
            _write_lines(folder / f"{start:06}.jsonl", lines)
            known = len(sieve.kept)
            sieve.take(attempts, faults)
            start += len(attempts)
            progress.advance(len(sieve.kept) - known)
    author.close()
    apart = held_out_rows(sieve.kept)
    lines = [as_json(row) for row in sieve.kept]
    _write_lines(folder / f"rows-{rows}.jsonl", lines)
    for name, held in (("train", False), ("held_out", True)):
        chosen = [line for place, line in enumerate(lines) if (place in apart) == held]
        _write_lines(folder / f"{name}-{rows}.jsonl", chosen)
    facts = {"attempts": sieve.attempts, "faults": dict(sieve.faults), "held_out": len(apart)}
    write_whole(folder / f"report-{rows}.json", as_json(facts, indent=2).encode())
    minutes = (time.perf_counter() - began) / 60
    return f", {(rows - before) / minutes:.3g} rows a minute" if rows > before else ""


def _stored(folder: Path) -> Iterator[list[Attempt]]:
    """Read the blocks that earlier processes have completed."""
    start = 0
    while (path := folder / f"{start:06}.jsonl").is_file():
        attempts = [
            Attempt(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()
        ]
        yield attempts
        start += len(attempts)


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    write_whole(path, "".join(f"{line}\n" for line in lines).encode())


def _check_supply(key: str, sieve: Sieve) -> None:
    """Refuse to go on where hardly any attempt becomes a row.

    Raises:
        GenerationError: Too few of them do.
    """
    kept = len(sieve.kept)
    if sieve.attempts >= FIRST and kept < LEAST_KEPT * sieve.attempts:
        cure = f"Lower it to {kept}, or give train" if kept else "Give train"
        raise GenerationError(
            f"{key}: at least one in {1 / LEAST_KEPT:.0f} attempts of the base must be fit to "
            f"train on, got {kept} rows from {sieve.attempts:,} attempts (left out: "
            f"{told(sieve.faults)}). {cure} instead of generate, or take a chat model."
        )


def _line(rows: int, facts: dict[str, Any], rate: str) -> str:
    """Say what was written, and why not all of it was kept."""
    left_out = told(Counter(facts["faults"])) or "nothing"
    return (
        f"{rows:,} rows that the base wrote itself, in {facts['attempts']:,} attempts{rate}; "
        f"left out: {left_out}"
    )
