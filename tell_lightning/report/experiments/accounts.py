"""Sections beside the claims: forgetting, settings, hours of machine time, failed runs."""

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from tell_lightning.experiment.contrasts import DECLARED_N
from tell_lightning.experiment.results import COMPLETED, FAILED, Result, seconds_of
from tell_lightning.experiment.results import points as score_points
from tell_lightning.report.canvas import number
from tell_lightning.report.drawing import Intervals, Row
from tell_lightning.report.experiments.contents import Contents, Key
from tell_lightning.report.experiments.estimates import Estimates
from tell_lightning.report.experiments.sections import Cells, Section, Table, cell, points, row

SHOWN = 20
"""Failed runs that are listed for one reason."""
FORGETTING = (
    f"Loss on general rows that were never trained on, after training on {DECLARED_N} task "
    "examples. The upright line is training on general rows alone; what lies to its right has "
    "forgotten, or never learned, what those teach."
)
SETTINGS = (
    "The settings with the best mean dev score, chosen on seeds that are not used elsewhere, with "
    "the same budget for SFT and TELL. An arm takes those of the nearest tuned size."
)


def forgetting(estimates: Estimates) -> Section:
    """Return the section of the loss on held-out general rows."""
    contents = estimates.contents
    figures, tables = [], []
    for testbed, facts in contents.testbeds.items():
        reference = Key(testbed, "general_only", 0)
        rows: list[Row] = []
        lines: list[Cells] = []
        for key in contents.keys(testbed):
            found = estimates.of(key, "general")
            if found is None:
                continue
            label = contents.label(key.arm)
            if key.n in {0, DECLARED_N}:
                rows.append(row(label, key.arm, found, "general"))
            more = None if key == reference else estimates.contrast(key, reference, "general")
            place = f"{testbed}/{key.arm}/{key.n}"
            lines.append(
                [
                    label,
                    number(key.n) if key.n else "none",
                    cell(found, f"general/{place}", "general"),
                    cell(more, f"forgetting/{place}", "general"),
                ]
            )
        if not rows:
            continue
        known = estimates.of(reference, "general")
        levels = [known.estimate.value] if known else []
        figures.append([Intervals(facts.label, "nats per token", rows, levels, logarithmic=True)])
        columns = ["Arm", "Task examples", "General loss, nats", "More than general only"]
        tables.append(Table(f"{facts.label}: held-out general rows", columns, lines))
    return Section("forgetting", "Forgetting", [FORGETTING], figures, folded=tables)


def settings(contents: Contents) -> Section:
    """Return the section of what tuning chose."""
    rows = [
        [
            _label(contents, testbed),
            contents.label(arm),
            number(int(n)),
            str(best.get("variant") or ""),
            ", ".join(
                f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
                for key, value in best["set"].items()
            ),
            points(best["dev"]) if best.get("dev") is not None else "",
        ]
        for testbed, by_arm in contents.chosen.items()
        for arm, by_n in by_arm.items()
        for n, best in by_n.items()
    ]
    columns = ["Testbed", "Tuned arm", "Task examples", "Chosen", "Settings", "Dev, points"]
    return Section(
        "settings",
        "Settings",
        [SETTINGS if rows else "Nothing is tuned yet."],
        tables=[Table("Chosen", columns, rows)],
        folded=[_tried(contents), _used(contents)],
    )


def cost(contents: Contents) -> Section:
    """Return the section of runs, hours, machines and commits."""
    rows = [_cost(s.experiment.name, len(s.cells), [*s.results.values()]) for s in contents.studies]
    rows.append(_cost("All", contents.planned, contents.own_results))
    columns = ["Experiment", "Runs", "Completed", "Failed", "Missing", "Hours", "Million tokens"]
    tables = [Table("Runs and hours of machine", columns, rows)]
    for title, column, name in (
        ("Machines", "Machine", _machine),
        ("Commits", "Commit", _commit),
        ("Versions", "Versions", _versions),
        ("Bases", "SHA-256", lambda result: str(result.get("base_sha256") or "")),
    ):
        counts = Counter(found for result in contents.own_results if (found := name(result)))
        ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
        lines = [[found, number(count)] for found, count in ordered]
        tables.append(Table(title, [column, "Results"], lines))
    return Section("cost", "Cost", tables=tables)


def failures(contents: Contents) -> Section:
    """Return the section of failed and missing runs."""
    failed, missing, otherwise = [], [], []
    texts = [
        f"Two folders hold {name}, made with different configurations; the first counts."
        for name in contents.conflicts
    ]
    for study in contents.studies:
        name = study.experiment.name
        by_reason: dict[str, list[str]] = {}
        for result in study.with_status(FAILED):
            reason = str(result.get("reason") or "no reason").strip()
            by_reason.setdefault(reason, []).append(str(result["name"]))
        failed += [[name, reason, _some(cells)] for reason, cells in by_reason.items()]
        if study.missing:
            arms = Counter(f"{each.testbed} {each.arm}" for each in study.missing)
            told = ", ".join(f"{arm} ({count})" for arm, count in arms.items())
            missing.append([name, number(len(study.missing)), told])
        if study.otherwise:
            otherwise.append([name, number(len(study.otherwise)), _some(study.otherwise)])
        if study.strangers:
            texts.append(
                f"{name}/results holds {study.strangers} results of runs that its "
                "experiment.yaml does not have; they are left out."
            )
    tables = [
        Table("Failed", ["Experiment", "Reason", "Runs"], failed, words=True),
        Table("Not run yet", ["Experiment", "Runs", "Of"], missing, words=True),
        Table(
            "Made with another configuration: left out",
            ["Experiment", "Runs", "Such as"],
            otherwise,
            words=True,
        ),
    ]
    if not failed and not missing and not otherwise:
        texts.insert(0, "Every run is there, and none failed.")
    return Section("failed", "Failed and missing runs", texts, tables=tables)


def progress(cells: int, results: Sequence[Result], what: str) -> str:
    """Write how many runs are completed, and how many failed."""
    counts = Counter(str(result["status"]) for result in results)
    text = f"{number(counts[COMPLETED])} of {number(cells)} {what}"
    return text + (f", {number(counts[FAILED])} failed" if counts[FAILED] else "")


def hours(results: Iterable[Result]) -> float:
    """Add up the hours of machine time, those of failed runs too."""
    return sum(map(seconds_of, results)) / 3600


def commits(results: Iterable[Result]) -> list[str]:
    """Name the commits of some results."""
    return sorted({name for result in results if (name := _commit(result))})


def _commit(result: Result) -> str:
    """Name the commit of a result."""
    git = result.get("git") or {}
    name = str(git.get("commit") or git.get("sha") or "")[:12] if isinstance(git, dict) else ""
    return f"{name}, with changes" if name and git.get("dirty") else name


def _machine(result: Result) -> str:
    found = result.get("machine") or {}
    gpus = found.get("gpus") or []
    parts = [found.get("processor"), found.get("platform"), ", ".join(map(str, gpus))]
    return "; ".join(str(part) for part in parts if part)


def _versions(result: Result) -> str:
    return ", ".join(f"{name} {found}" for name, found in (result.get("versions") or {}).items())


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _label(contents: Contents, testbed: str) -> str:
    found = contents.studies[0].experiment.testbeds.get(testbed)
    return found.label if found else testbed


def _tried(contents: Contents) -> Table:
    """List the dev score of each setting of the tuning, the mean over seeds."""
    found: dict[Key, list[float]] = {}
    for study in contents.studies:
        for each in study.cells if study.tuning else ():
            result = study.results.get(each.name)
            if result and result["status"] == COMPLETED and result.get("dev"):
                score = study.experiment.testbeds[each.testbed].score
                key = Key(each.testbed, each.arm, each.n, each.variant)
                value = score_points(result["dev"]["values"][score], score)
                found.setdefault(key, []).append(value)
    rows = [
        [
            _label(contents, key.testbed),
            contents.label(key.arm),
            number(key.n),
            str(key.variant or "").replace("_", " "),
            points(fmean(values)),
            str(len(values)),
        ]
        for key, values in found.items()
    ]
    columns = ["Testbed", "Arm", "Task examples", "Setting", "Dev, points", "Seeds"]
    return Table("Every setting that was tried", columns, rows)


def _used(contents: Contents) -> Table:
    """List settings, steps, passes and tokens of each arm."""
    rows = []
    for key in [key for testbed in contents.testbeds for key in contents.keys(testbed)]:
        found = list(contents.groups[key].values())
        chosen = [(r.get("settings") or {}, r.get("steps")) for r in found]
        used = [(own.get("lr"), own.get("task_share"), steps) for own, steps in chosen]
        tokens = [r.get("tokens") or {} for r in found]
        rows.append(
            [
                _label(contents, key.testbed),
                contents.label(key.arm),
                number(key.n) if key.n else "none",
                str(len(found)),
                *map(_plain, Counter(used).most_common(1)[0][0]),
                _mean(r.get("passes") for r in found),
                _mean(t.get("task") for t in tokens),
                _mean(t.get("general") for t in tokens),
            ]
        )
    columns = ["Testbed", "Arm", "Task examples", "Seeds", "Learning rate", "Task share", "Steps"]
    columns += ["Passes", "Task tokens", "General tokens"]
    return Table("Used by the runs, means over seeds", columns, rows)


def _plain(value: Any) -> str:
    return "" if value is None else number(value) if isinstance(value, int | float) else str(value)


def _mean(values: Iterable[Any]) -> str:
    known = [float(value) for value in values if value is not None]
    return number(round(fmean(known), 1)) if known else ""


def _cost(name: str, planned: int, results: Sequence[Result]) -> list[str]:
    counts = Counter(str(result["status"]) for result in results)
    tokens = sum(sum((r.get("tokens") or {}).values()) for r in results)
    return [
        name,
        number(planned),
        number(counts[COMPLETED]),
        number(counts[FAILED]),
        number(planned - len(results)),
        f"{hours(results):.2f}",
        f"{tokens / 1e6:,.1f}",
    ]
