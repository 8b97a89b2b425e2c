"""What TELL adds to SFT of the same task examples, and its price: a row for each testbed and n."""

from statistics import fmean

from tell_lightning.experiment.cells import Cell as Run
from tell_lightning.experiment.contrasts import DECLARED_N
from tell_lightning.experiment.results import seconds_of
from tell_lightning.experiment.specification import Testbed
from tell_lightning.report.canvas import number
from tell_lightning.report.experiments.contents import Contents, Key
from tell_lightning.report.experiments.estimates import Estimates
from tell_lightning.report.experiments.sections import Cell, Cells, Section, Table, cell, with_seeds

ARMS = ("tell", "sft")
COLUMNS = (
    "Testbed",
    "Task examples",
    "Score, points",
    "Task loss, nats",
    "General loss, nats",
    "Data-equivalence ratio, examples",
    "Data-equivalence ratio, tokens",
    "Tokens, TELL",
    "Tokens, SFT",
    "Minutes, TELL",
    "Minutes, SFT",
)
TEXT = (
    "TELL less SFT of the same task examples, paired on seeds. Above 0 TELL has the better score; "
    "below 0 it has the lower loss. The task loss is that of the test rows. The general loss is "
    "that of held-out general rows: above 0 TELL forgets more. The data-equivalence ratio is how "
    "many task examples SFT needs, for one of TELL's, to score as TELL does, or how many tokens it "
    "trains on, for one of TELL's. Tokens and minutes are those of one run, means over seeds: all "
    "tokens trained on, task and general, and the whole time, with set-up and scoring (processor "
    "time, where it was kept and no GPU was used)."
)


def leverage(estimates: Estimates) -> Section:
    """Return the section of the leverage and its price: at the declared n, and at the others."""
    contents = estimates.contents
    declared: list[Cells] = []
    others: list[Cells] = []
    for testbed, facts in contents.testbeds.items():
        for n in _sizes(contents, testbed):
            (declared if n == DECLARED_N else others).append(_row(estimates, facts, n))
    return Section(
        "leverage",
        "Leverage and its price",
        [TEXT],
        tables=[Table(f"At {DECLARED_N} task examples", COLUMNS, declared)],
        folded=[Table("At other numbers of task examples", COLUMNS, others)],
    )


def _sizes(contents: Contents, testbed: str) -> list[int]:
    """List the numbers of examples at which both arms have runs, or are to have them."""
    keys = {*contents.groups, *map(_key, _planned(contents))}
    sizes = [{key.n for key in keys if key == Key(testbed, arm, key.n)} for arm in ARMS]
    return sorted(set.intersection(*sizes))


def _planned(contents: Contents) -> list[Run]:
    return [run for study in contents.studies if not study.tuning for run in study.cells]


def _key(run: Run) -> Key:
    return Key(run.testbed, run.arm, run.n, run.variant)


def _row(estimates: Estimates, facts: Testbed, n: int) -> Cells:
    contents, testbed = estimates.contents, facts.name
    tell, sft = (Key(testbed, arm, n) for arm in ARMS)
    score = estimates.contrast(tell, sft)
    if score is None:
        return [facts.label, number(n), _missing(contents, [tell, sft]), *[""] * (len(COLUMNS) - 3)]
    place = f"{testbed}/tell/{n}"
    found = [
        cell(score, f"leverage/{place}", change=True),
        cell(estimates.contrast(tell, sft, "loss"), f"leverage-loss/{place}", "loss"),
        cell(estimates.contrast(tell, sft, "general"), f"leverage-general/{place}", "general"),
    ]
    ratio = estimates.ratio(testbed, "sft", n)
    for what, known in (
        ("der", ratio and ratio.examples),
        ("der-tokens", ratio and ratio.tokens),
    ):
        few = ratio is not None and estimates.few(ratio.seeds)
        text = with_seeds(str(known), few=few) if known else ""
        found.append(Cell(text, f"{what}/{testbed}/sft/{n}"))
    runs = [[*contents.groups[key].values()] for key in (tell, sft)]
    tokens = [number(round(fmean(sum(r["tokens"].values()) for r in of))) for of in runs]
    minutes = [f"{fmean(map(seconds_of, of)) / 60:.1f}" for of in runs]
    return [facts.label, number(n), *found, *tokens, *minutes]


def _missing(contents: Contents, keys: list[Key]) -> str:
    """Say why two arms have no difference."""
    planned = len({run.name for run in _planned(contents) if _key(run) in keys})
    done = sum(len(contents.groups.get(key, {})) for key in keys)
    return f"{done} of {planned} runs completed" if done < planned else "no seed in common"
