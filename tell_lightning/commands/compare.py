"""`compare`: is the difference between two predictions files more than chance? No torch."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from tell_lightning.callbacks.folder import run_of_predictions
from tell_lightning.commands.arguments import CommandParser, as_path
from tell_lightning.commands.check import check
from tell_lightning.commands.tables import print_rows
from tell_lightning.commands.trust import TRUST, TRUST_HELP, check_trust, scoring_code
from tell_lightning.data.formats import Meter, RawRow, cut, read_file
from tell_lightning.data.settings import DataSettings
from tell_lightning.errors import TellError
from tell_lightning.files import as_json
from tell_lightning.metrics.comparison import TRIALS, Comparison
from tell_lightning.metrics.comparison import compare as compare_predictions
from tell_lightning.metrics.intervals import RESAMPLES
from tell_lightning.metrics.kinds.base import ScoringKind
from tell_lightning.metrics.kinds.registry import BUILT_IN, check_kind, kind_of
from tell_lightning.metrics.predictions import Prediction
from tell_lightning.metrics.score_facts import facts_of
from tell_lightning.metrics.settings import Scoring
from tell_lightning.settings import as_settings

DESCRIPTION = """
Say whether the scores of two predictions files differ by more than chance.

Both files hold answers to the same rows, as `fit`, `test` and `predict` write them. They are scored
as the run says in whose predictions/ folder they lie (one of them is enough), or by --kind. The
interval is that of the paired bootstrap, the p-value that of approximate randomisation, both over
rows. About seven seconds for 1,000 lines.
"""


TYPED = ("label_key", "thought_key", "labels", "positive", "words_field", "tokenize", "primary")
"""The keys of scoring that --scoring takes."""


class CompareError(TellError):
    """Files that cannot be compared."""


def compare(arguments: list[str]) -> None:
    """Run the command.

    Args:
        arguments: What follows the command on the command line.
    """
    asked = _parser().parse(arguments)
    first, second = asked.first, asked.second
    ours, theirs = read_predictions(first), read_predictions(second)
    scoring = _scoring(asked.kind, asked.scoring, {first: ours, second: theirs})
    if asked.kind is None and not asked.trust:
        run = {"data": {"tasks": {"NAME": {"scoring": {"kind": scoring.kind}}}}}
        check_trust(first, scoring_code(run, "kind"))
    if not all(scoring.words_field in p.row for p in (*ours, *theirs)):
        scoring = replace(scoring, words_field=None)
    settled = _settled(scoring, [*ours, *theirs])
    found = compare_predictions(settled.scoring, ours, theirs)
    for note in settled.notes([p.reference or "" for p in ours]):
        print(note, file=sys.stderr)
    if asked.format == "jsonl":
        for line in _lines(found, len(ours)):
            print(as_json(line, ensure_ascii=True))
    else:
        _print_table(settled, found, first, second, len(ours))


def _parser() -> CommandParser:
    parser = CommandParser("compare", DESCRIPTION)
    parser.add_argument(TRUST, action="store_true", help=TRUST_HELP)
    parser.add_argument("first", metavar="A.jsonl", type=as_path, help="a predictions file")
    parser.add_argument("second", metavar="B.jsonl", type=as_path, help="one of the same rows")
    parser.add_argument(
        "--kind",
        help="how to score, where no run says it; labels are then those of the references, of "
        'judge no and yes, under "hallucination"',
    )
    parser.add_argument(
        "--scoring",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a key of a task's scoring, such as label_key=topic or labels=sport,politics",
    )
    parser.add_argument("--format", choices=("table", "jsonl"), help="how to print; default: table")
    return parser


def read_predictions(path: Path) -> list[Prediction]:
    """Read a file of predictions with references.

    Raises:
        TellError: It cannot be read, or a row lacks an id, an answer or a reference, or has an id
            that another one has.
    """
    rows = list(read_file(path).read(Meter()))  # to its end, so that no error leaves it open
    predictions = [_prediction(raw) for raw in rows]
    tasks = set(map(_task, predictions))
    if len(tasks) > 1:
        raise CompareError(
            f"{path}: the rows must be of one task, got {', '.join(sorted(tasks))}. "
            "Write them with `predict --task NAME`."
        )
    known: set[str] = set()
    for raw, prediction in zip(rows, predictions, strict=True):
        if prediction.id in known:
            raise CompareError(
                f"{raw.where}: an id must come once, got {cut(prediction.id)} again. "
                "Compare files of one evaluation set."
            )
        known.add(prediction.id)
    return predictions


def _task(prediction: Prediction) -> str:
    """Return the task that a line of `predict` names; none where a run's file name does."""
    return str(prediction.row.get("task", ""))


def _prediction(raw: RawRow) -> Prediction:
    row = raw.row
    if raw.fault:
        raise CompareError(f"{raw.where}: {raw.fault}")
    if not isinstance(row, dict):
        raise CompareError(
            f"{raw.where}: a row must be a JSON object, got {cut(row)}. Give a file that `fit`, "
            "`test` or `predict` wrote."
        )
    for name in ("id", "prediction", "reference"):
        if not isinstance(row.get(name), str):
            raise CompareError(
                f"{raw.where}: field '{name}' must be a string, got {cut(row.get(name))}. "
                "Give a file that `fit`, `test` or `predict` wrote for rows with responses."
            )
    return Prediction(
        id=row["id"],
        prediction=row["prediction"],
        reference=row["reference"],
        row=row,
        stopped=True,
        prefix_found=None,
        new_tokens=0,
    )


def _scoring(
    kind: str | None, keys: Sequence[str], files: Mapping[Path, Sequence[Prediction]]
) -> Scoring:
    """Take the scoring of the kind that was typed, or else of the runs; typed keys win.

    Raises:
        TellError: A key that does not exist, a value that does not fit, or no kind at all.
    """
    if kind is not None:
        check_kind(kind, "--kind")
    scoring = Scoring(kind=kind) if kind is not None else _runs_scoring(files)
    return as_settings(Scoring, {**vars(scoring), **dict(map(_key, keys))}, "--scoring")


def _key(text: str) -> tuple[str, Any]:
    """Read a key and its value; labels are separated by commas.

    >>> _key("labels=sport,politics"), _key("label_key=topic")
    (('labels', ['sport', 'politics']), ('label_key', 'topic'))
    """
    key, found, value = text.partition("=")
    if not found or key not in TYPED:
        raise CompareError(
            f"--scoring: must be KEY=VALUE with one of {', '.join(TYPED)}, got '{text}'. "
            "Write --scoring label_key=topic, for example."
        )
    return key, value.split(",") if key == "labels" else value


def _runs_scoring(files: Mapping[Path, Sequence[Prediction]]) -> Scoring:
    """Take the scoring of the runs that the files lie in."""
    found = {
        path: _run_scoring(path, predictions)
        for path, predictions in files.items()
        if run_of_predictions(path) is not None
    }
    if not found:
        raise CompareError(
            f"--kind: must say how {next(iter(files))} is scored, which lies in no run's "
            f"predictions/, got none. Write --kind with one of {', '.join(BUILT_IN)}."
        )
    (first, ours), *rest = found.items()
    for second, theirs in rest:
        if ours != theirs:
            raise CompareError(
                f"compare: both runs must score alike, got {cut(ours)} of {first} and "
                f"{cut(theirs)} of {second}. Say how by --kind."
            )
    return ours


def _run_scoring(path: Path, predictions: Sequence[Prediction]) -> Scoring:
    """Take the scoring from the run in whose folder a predictions file lies.

    Raises:
        CompareError: It is of no task of the run.
    """
    folder = run_of_predictions(path)
    assert folder is not None
    tasks = run_data(folder.latest_config).tasks
    named = re.fullmatch(r"(?:dev|test\w*)-(.+)-(?:base|step-\d+)\.jsonl", path.name)
    name = next(iter(map(_task, predictions)), "") or (named[1] if named else "")
    if name not in tasks:
        raise CompareError(
            f"{path}: must name one of the tasks {', '.join(tasks)} in its rows or, as a run does, "
            f"SPLIT-TASK-MOMENT.jsonl, got '{name or path.name}'. Say how it is scored by --kind."
        )
    return replace(tasks[name].scoring, baselines={}, function=None)


def _settled(scoring: Scoring, predictions: Sequence[Prediction]) -> ScoringKind:
    """Build the kind; labels that are not configured are those of the references and answers."""
    kind = kind_of(scoring)
    labels = [label for p in predictions if isinstance(label := p.row.get("label"), str)]
    return kind_of(kind.settled([p.reference or "" for p in predictions], labels))


@cache
def run_data(config: Path) -> DataSettings:
    """Read what the configuration of a run says of its tasks, once where both files are of it."""
    return check(["-c", str(config)]).data


def _lines(found: Mapping[str, Comparison], rows: int) -> Iterator[dict[str, object]]:
    for name, one in found.items():
        low, high = one.interval
        yield {
            "score": name,
            "rows": rows,
            "a": one.first,
            "b": one.second,
            "difference": one.difference,
            "low": low,
            "high": high,
            "p_value": one.p_value,
            **({"signature": one.signature} if one.signature else {}),
        }


def _print_table(
    kind: ScoringKind, found: Mapping[str, Comparison], first: Path, second: Path, rows: int
) -> None:
    print(f"A: {first}\nB: {second}\n{rows} rows\n")
    heading = ("", "A", "B", "B - A", "[low, high]", "p")
    print_rows([heading, *(_cells(name, one) for name, one in found.items())])
    times = f"{TRIALS:,} trials" if 2**rows > TRIALS else f"all {2**rows:,} exchanges"
    print(f"\n[low, high]: 95% interval of B - A, from {RESAMPLES:,} draws of the rows.")
    print(f"p: approximate randomisation, two-sided, {times}; of each score by itself.")
    for signature in dict.fromkeys(one.signature for one in found.values() if one.signature):
        names = [name for name, one in found.items() if one.signature == signature]
        print(f"{', '.join(names)}: {signature}")
    for name in sorted(name for name in found if facts_of(name, kind.facts).better == "lower"):
        print(f"{name}: lower is better.")
    if kind.primary not in found:
        print(f"{kind.primary}: not compared, for it is no sum or mean over rows.")


def _cells(name: str, one: Comparison) -> Sequence[str]:
    form = "{:.2f}" if one.signature else "{:.3f}"
    values = (one.first, one.second, one.difference, *one.interval)
    first, second, difference, low, high = (form.format(value) for value in values)
    return name, first, second, difference, f"[{low}, {high}]", f"{one.p_value:.4f}"
