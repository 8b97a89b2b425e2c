"""What was paid and what was lost: forgetting, settings, cells, hours, failures.

The results enter; sections of tables leave.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from tell_lightning.experiment.contrasts import DECLARED_N
from tell_lightning.experiment.results import COMPLETED, FAILED, Result
from tell_lightning.experiment.results import points as score_points
from tell_lightning.report.experiments.contents import Contents, Key, Study
from tell_lightning.report.experiments.estimates import Estimates
from tell_lightning.report.experiments.figures import Intervals, Row, intervals_svg, number
from tell_lightning.report.experiments.sections import (
    FEW_SIGN,
    Cell,
    Figure,
    Section,
    Table,
    contrast_cell,
    estimate_cell,
    plain,
    points,
    style_of,
    with_interval,
)

SHOWN = 20
"""Failed cells that are listed for one reason."""


def forgetting(contents: Contents, estimates: Estimates) -> Section:
    """Return the section of the loss on held-out general rows."""
    figures, tables = [], []
    for testbed, facts in contents.testbeds.items():
        reference = Key(testbed, "general_only", 0)
        rows, lines = [], []
        for key in contents.keys(testbed):
            found = estimates.of(key, "general")
            if found is None:
                continue
            few = estimates.few(key)
            label = contents.label(key.arm)
            style, mark = style_of(key.arm)
            at = found.estimate
            text = with_interval(at, "general") + (f" {FEW_SIGN}" if few else "")
            if key.n in {0, DECLARED_N}:
                rows.append(
                    Row(
                        label,
                        text,
                        style,
                        at.value,
                        at.low,
                        at.high,
                        found.seeds,
                        mark,
                        exploratory=few,
                    )
                )
            more = (
                estimates.contrast(key, reference, "general")
                if key != reference and reference in contents.groups
                else None
            )
            place = f"{testbed}/{key.arm}/{key.n}"
            lines.append(
                [
                    Cell(label),
                    Cell(number(key.n) if key.n else "none"),
                    estimate_cell(at, f"general/{place}", "general", few=few),
                    contrast_cell(more, f"forgetting/{place}", "general", few=few),
                ]
            )
        if not rows:
            continue
        known = estimates.of(reference, "general")
        levels = [known.estimate.value] if known else []
        logarithmic = max(row.high for row in rows) > 4 * min(row.low for row in rows) > 0
        axis = f"nats per token{', log scale' if logarithmic else ''}"
        figure = Intervals(
            f"{facts.label}: loss of held-out general rows after training",
            axis,
            rows,
            levels,
            logarithmic=logarithmic,
        )
        figures.append([Figure(facts.label, "", intervals_svg(figure))])
        columns = ["Arm", "Task examples", "General loss, nats", "More than general only"]
        tables.append(Table(f"{facts.label}: held-out general rows", columns, lines))
    text = (
        f"Loss on general rows that were never trained on, after training on {DECLARED_N} task "
        "examples. The upright line is training on general rows alone; what lies to its right "
        "has forgotten, or never learned, what those teach."
    )
    return Section("forgetting", "Forgetting", [text], figures, [], tables)


def settings(contents: Contents) -> Section:
    """Return the section of what tuning chose."""
    rows = []
    for testbed, by_arm in contents.chosen.items():
        for arm, by_n in by_arm.items():
            for n, best in by_n.items():
                values = ", ".join(
                    f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
                    for key, value in best["set"].items()
                )
                rows.append(
                    [
                        Cell(_label(contents, testbed)),
                        Cell(contents.label(arm)),
                        Cell(number(int(n))),
                        Cell(str(best.get("variant") or "")),
                        Cell(values),
                        Cell(points(best["dev"]) if best.get("dev") is not None else ""),
                    ]
                )
    columns = ["Testbed", "Tuned arm", "Task examples", "Chosen", "Settings", "Dev, points"]
    text = (
        "The settings with the best mean dev score, chosen on seeds that are not used elsewhere, "
        "with the same budget for SFT and TELL. An arm takes those of the nearest tuned size."
    )
    tried = Table("Every setting that was tried", *_tried(contents))
    used = Table("Used by the cells, means over seeds", *_used(contents))
    return Section(
        "settings",
        "Settings",
        [text] if rows else ["Nothing is tuned yet."],
        tables=[Table("Chosen", columns, rows)] if rows else [],
        folded=[table for table in (tried, used) if table.rows],
    )


def cost(contents: Contents) -> Section:
    """Return the section of cells, hours, machines and commits."""
    rows = [_cost_row(study) for study in contents.studies]
    results = [result for study in contents.studies for result in study.results.values()]
    planned = sum(len(study.cells) for study in contents.studies)
    rows.append(_row_of("All", planned, results))
    columns = ["Experiment", "Cells", "Completed", "Failed", "Missing", "Hours", "Million tokens"]
    tables = [Table("Cells and hours of machine", columns, rows)]
    for title, column, found in (
        ("Machines", "Machine", _counted(machine(r) for r in results)),
        ("Commits", "Commit", _counted(commit(r) for r in results)),
        ("Versions", "Versions", _counted(versions(r) for r in results)),
        ("Bases", "SHA-256", _counted(str(r.get("base_sha256") or "") for r in results)),
    ):
        if found:
            lines = [(Cell(name), Cell(number(count))) for name, count in found]
            tables.append(Table(title, [column, "Results"], lines))
    return Section("cost", "Cost", [], [], tables)


def failures(contents: Contents) -> Section:
    """Return the section of the cells that are not there."""
    rows = []
    for study in contents.studies:
        by_reason: dict[str, list[str]] = {}
        for result in study.with_status(FAILED):
            by_reason.setdefault(str(result.get("reason") or "no reason"), []).append(
                str(result["name"])
            )
        for reason, names in by_reason.items():
            rows.append(plain([study.experiment.name, reason.strip(), _some(names)]))
    missing = [
        plain([study.experiment.name, number(len(study.missing)), _by_arm(study)])
        for study in contents.studies
        if study.missing
    ]
    otherwise = [
        plain([study.experiment.name, number(len(study.otherwise)), _some(study.otherwise)])
        for study in contents.studies
        if study.otherwise
    ]
    tables = []
    if rows:
        tables.append(Table("Failed", ["Experiment", "Reason", "Cells"], rows, words=True))
    if missing:
        columns = ["Experiment", "Cells", "Of"]
        tables.append(Table("Not run yet", columns, missing, words=True))
    if otherwise:
        title = "Made with another configuration: left out"
        tables.append(Table(title, ["Experiment", "Cells", "Such as"], otherwise, words=True))
    texts = [] if tables else ["Every cell is there, and none failed."]
    texts += [
        f"Two folders hold {name}, made with different configurations; the first counts."
        for name in contents.conflicts
    ]
    for study in contents.studies:
        if study.strangers:
            texts.append(
                f"{study.experiment.name}/results holds {study.strangers} results of cells that "
                "its experiment.yaml does not have; they are left out."
            )
    return Section("failed", "Failed and missing cells", texts, tables=tables)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def hours(results: Iterable[Result]) -> float:
    """Add up the hours of machine time, those of failed cells too."""
    return sum(float(result.get("seconds") or 0.0) for result in results) / 3600


def commit(result: Result) -> str:
    """Name the commit of a result."""
    git = result.get("git") or {}
    name = str(git.get("commit") or git.get("sha") or "")[:12] if isinstance(git, dict) else ""
    return f"{name}, with changes" if name and git.get("dirty") else name


def machine(result: Result) -> str:
    """Name the machine of a result."""
    found = result.get("machine") or {}
    gpus = found.get("gpus") or []
    parts = [found.get("processor"), found.get("platform"), ", ".join(map(str, gpus))]
    return "; ".join(str(part) for part in parts if part)


def versions(result: Result) -> str:
    """Name the versions of a result."""
    return ", ".join(f"{name} {found}" for name, found in (result.get("versions") or {}).items())


def _label(contents: Contents, testbed: str) -> str:
    found = contents.studies[0].experiment.testbeds.get(testbed)
    return found.label if found else testbed


def _tried(contents: Contents) -> tuple[list[str], list[list[Cell]]]:
    """List the dev score of each setting of the tuning, the mean over seeds."""
    found: dict[Key, list[float]] = {}
    for study in contents.studies:
        for cell in study.cells if study.tuning else ():
            result = study.results.get(cell.name)
            if result and result["status"] == COMPLETED and result.get("dev"):
                score = study.experiment.testbeds[cell.testbed].score
                value = score_points(result["dev"]["values"][score], score)
                key = Key(cell.testbed, cell.arm, cell.n, cell.variant)
                found.setdefault(key, []).append(value)
    rows = [
        [
            Cell(_label(contents, key.testbed)),
            Cell(contents.label(key.arm)),
            Cell(number(key.n)),
            Cell(str(key.variant or "").replace("_", " ")),
            Cell(points(fmean(values))),
            Cell(str(len(values))),
        ]
        for key, values in found.items()
    ]
    return ["Testbed", "Arm", "Task examples", "Setting", "Dev, points", "Seeds"], rows


def _used(contents: Contents) -> tuple[list[str], list[list[Cell]]]:
    """List what each arm was trained with: settings, steps, passes, tokens."""
    rows = []
    for testbed in contents.testbeds:
        for key in contents.keys(testbed):
            found = list(contents.groups[key].values())
            chosen = Counter(
                (
                    (r.get("settings") or {}).get("lr"),
                    (r.get("settings") or {}).get("task_share"),
                    r.get("steps"),
                )
                for r in found
            ).most_common()
            (rate, share, steps), _ = chosen[0]
            tokens = [r.get("tokens") or {} for r in found]
            rows.append(
                list(
                    plain(
                        [
                            _label(contents, testbed),
                            contents.label(key.arm),
                            number(key.n) if key.n else "none",
                            str(len(found)),
                            _plain_number(rate),
                            _plain_number(share),
                            _plain_number(steps),
                            _mean(r.get("passes") for r in found),
                            _mean(t.get("task") for t in tokens),
                            _mean(t.get("general") for t in tokens),
                        ]
                    )
                )
            )
    columns = [
        "Testbed",
        "Arm",
        "Task examples",
        "Seeds",
        "Learning rate",
        "Task share",
        "Steps",
        "Passes",
        "Task tokens",
        "General tokens",
    ]
    return columns, rows


def _plain_number(value: Any) -> str:
    return "" if value is None else number(value) if isinstance(value, int | float) else str(value)


def _mean(values: Iterable[Any]) -> str:
    known = [float(value) for value in values if value is not None]
    return number(round(sum(known) / len(known), 1)) if known else ""


def _cost_row(study: Study) -> tuple[Cell, ...]:
    return _row_of(study.experiment.name, len(study.cells), list(study.results.values()))


def _row_of(name: str, planned: int, results: Sequence[Result]) -> tuple[Cell, ...]:
    counts = Counter(str(result["status"]) for result in results)
    tokens = sum(sum((r.get("tokens") or {}).values()) for r in results)
    return plain(
        [
            name,
            number(planned),
            number(counts[COMPLETED]),
            number(counts[FAILED]),
            number(planned - len(results)),
            f"{hours(results):.2f}",
            f"{tokens / 1e6:,.1f}",
        ]
    )


def _counted(names: Iterable[str]) -> list[tuple[str, int]]:
    counts = Counter(name for name in names if name)
    return sorted(counts.items(), key=lambda each: (-each[1], each[0]))


def _by_arm(study: Study) -> str:
    counts = Counter(f"{cell.testbed} {cell.arm}" for cell in study.missing)
    return ", ".join(f"{name} ({count})" for name, count in counts.items())
