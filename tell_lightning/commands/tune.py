"""`tune`: the best adapter that a budget allows, and whether TELL has helped.

This module reads the command line, measures what a trial costs, and runs the search, the final
adapter and the verdict, each piece of work in a warm process.
"""

import argparse
import json
import math
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from tell_lightning.callbacks.folder import write_json
from tell_lightning.commands.arguments import (
    KEYS,
    CommandParser,
    as_path,
    as_text,
    whole_number,
)
from tell_lightning.commands.check import Config, check, check_training
from tell_lightning.commands.general import with_written_rows
from tell_lightning.commands.price import measured, price
from tell_lightning.commands.reference import keys_help
from tell_lightning.commands.startup import quieten
from tell_lightning.commands.tables import print_rows
from tell_lightning.commands.trial import QUIET, THIRDS, failed, run_work, written
from tell_lightning.data.length import default_length
from tell_lightning.data.plan import Plan, PlanError, check_supply, resolve_plan
from tell_lightning.data.splits import Splits, read_splits
from tell_lightning.experiment.overlays import merged, nested
from tell_lightning.experiment.pool import Pool, environments
from tell_lightning.files import as_json, read_yaml, write_whole
from tell_lightning.metrics.predictions import MetricError
from tell_lightning.settings import ConfigError
from tell_lightning.tuning.budget import Budget, Price
from tell_lightning.tuning.fits import Common, FitWork, Request, TrialWork
from tell_lightning.tuning.folder import TuneFolder, about, digest_of, opened
from tell_lightning.tuning.folds import Folds, plan_folds, write_folds
from tell_lightning.tuning.ground import Ground, choose
from tell_lightning.tuning.records import Record, ranked, table
from tell_lightning.tuning.search import Clock, Progress, run_search
from tell_lightning.tuning.sentence import with_interval
from tell_lightning.tuning.settings import Arm
from tell_lightning.tuning.space import ARMS, SHARES, Defaults, Space, overlay, space_of
from tell_lightning.tuning.study import Asked, Search, other_studies
from tell_lightning.tuning.verdict import Means, verdict

DESCRIPTION = """
Find the best adapter that a budget allows for a task of one's own, and say whether TELL has helped.

The search tries the arms SFT, TELL and a mixture without anchor, task share, learning rate, steps
and a forced response prefix; `tune.search` in the configuration changes the ranges. Without a dev
set, or with fewer than a hundred rows, candidates are compared by cross-validation. Then the best
adapter is trained on all task rows, and tuned TELL is compared with tuned SFT on new seeds.

The same command line goes on after a stop, and with more minutes or trials it searches further.
"""
KEPT = ("adapter", "predictions", "config.yaml", "plan.json", "metrics.csv", "run.json")
"""What the folder of the search takes from that of the final run."""
FINAL = "final"
MEASURED = 60
"""Steps of the run whose price is asked for; only a few of them are taken."""


@dataclass(frozen=True)
class Options:
    """The options of the command line."""

    minutes: float | None
    trials: int | None
    folder: Path | None
    workers: int | None
    storage: str | None
    wandb: bool = False


@dataclass(frozen=True)
class Setting:
    """What is searched for, before anything is known of its price."""

    config: Config
    folds: Folds
    splits: Splits
    about: Mapping[str, Any]

    @property
    def prefixed(self) -> list[str]:
        """Names of the tasks that have a response prefix."""
        tasks = self.config.data.tasks.items()
        return [name for name, task in tasks if task.anchor.response_prefix]

    @property
    def has_test(self) -> bool:
        """Whether every task has test rows."""
        return all(task.has("test") for task in self.config.data.tasks.values())

    @property
    def ground(self) -> Ground:
        """What the arms are compared on."""
        tasks = self.config.data.tasks.items()
        return Ground({name: task.scoring for name, task in tasks}, self.folds, self.has_test)


def tune(arguments: list[str]) -> None:
    """Run the command.

    Args:
        arguments: What follows the command on the command line.
    """
    options, keys = read_options(arguments)
    run(options, keys)


def read_options(arguments: list[str]) -> tuple[Options, list[str]]:
    """Read the command line; return the rest, for the parser of the configuration.

    Raises:
        ConfigError: An option that does not exist, a wrong value, no budget.
    """
    asked, keys = _parser().parse_with_keys(arguments)
    return Options(**vars(asked)), keys


def _parser() -> CommandParser:
    parser = CommandParser("tune", DESCRIPTION, keys=KEYS, list_keys=keys_help)
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument(
        "--minutes",
        type=_minutes,
        metavar="M",
        help="the time for search, adapter and verdict together, in all sessions",
    )
    budget.add_argument(
        "--trials", type=whole_number(2), metavar="N", help="trials of the search instead"
    )
    parser.add_argument(
        "--folder",
        type=as_path,
        metavar="DIR",
        help="where everything goes, and is gone on with; default: tune-NAME in run.dir",
    )
    parser.add_argument(
        "--workers",
        type=whole_number(1),
        metavar="N",
        help="processes at a time; default: one for each GPU, or one for each core without any",
    )
    parser.add_argument(
        "--storage",
        type=as_text,
        metavar="URL",
        help="the storage of Optuna where several machines search together, such as "
        "postgresql://user@host/name; default: study.db in the folder",
    )
    parser.add_argument(
        "--wandb",
        action="store_true",
        help="send every trial and the verdict to W&B at the end, as one group",
    )
    return parser


def run(options: Options, keys: list[str]) -> Path:
    """Search, train the best adapter, and compare.

    Args:
        options: The options of the command.
        keys: Files and keys of the configuration.

    Returns:
        The folder with all that it has left.
    """
    setting = _setting(keys)
    config = setting.config
    place = options.folder or Path(config.run.dir) / f"tune-{config.run.name}"
    with opened(place, setting.about) as folder:
        url = options.storage or folder.url
        search = _open(url, setting, folder)
        clock = Clock(folder)
        print(f"Tune: {folder.path}")
        print(setting.folds.line)
        rows = write_folds(setting.folds, config.data, folder.path / "folds")
        processes = environments(options.workers, {"WANDB_MODE": "disabled"})
        seconds = None if options.minutes is None else 60 * options.minutes
        budget = Budget(seconds, options.trials, len(processes))
        common = Common(config.values, rows.overlays, rows.whole, config.seed, _dev_rows(setting))
        cost, space = _priced(setting, common, folder, search, budget, processes[0])
        budget = budget.divided(cost, space.usual_steps, len(space.arms), config.tune.seeds)
        if micro_batch := folder.read().get("micro_batch"):  # found once, for all trials
            values = merged(config.values, {"data": {"micro_batch": micro_batch}})
            common = replace(common, values=values)
        for line in space.lines():
            print(f"  {line}")
        print(budget.line(cost, space), flush=True)
        if again := search.recover():
            print(f"{again} trials were stopped midway and are run again.", flush=True)
        progress = Progress(search, space, cost, budget)
        try:
            with (
                closing(Pool(run_work, processes)) as pool,
                folder.work() as home,
            ):
                work = _Work(setting, common, search, folder, pool, home)
                records, facts = _all(work, progress, clock)
        except KeyboardInterrupt:
            clock.keep()
            print("\nStopped; ended trials are kept. The same command goes on.", file=sys.stderr)
            raise
        if options.wandb:
            for line in _logged(config, place, records, facts):
                print(line)
    return place


def _logged(
    config: Config, place: Path, records: Sequence[Record], facts: Mapping[str, Any]
) -> list[str]:
    """Send a search to W&B."""
    from tell_lightning.callbacks.wandb_search import log_search

    project, group = config.run.wandb_project, place.resolve().name
    return log_search(place, project=project, group=group, records=records, facts=facts)


def _all(
    work: "_Work", progress: Progress, clock: Clock
) -> tuple[Sequence[Record], Mapping[str, Any]]:
    """Do all that takes long.

    Returns:
        The trials, and what run.json says of the search.
    """
    folder = work.folder.path
    records = run_search(
        progress,
        clock,
        work.pool,
        folder,
        make=work.trial,
        failed=failed,
        say=partial(print, flush=True),
    )
    write_whole(folder / "trials.csv", table(records).encode())
    best = _best(work.setting.ground, records)
    print(f"Best: {_why(best, records)} Training its adapter on all task rows.", flush=True)
    work.final(best)
    clock.keep()
    facts = {
        "best": best["number"],
        "trials": dict(Counter(record["state"] for record in records)),
        "space": progress.space.plain(),
        "folds": work.setting.folds.line,
        "budget": asdict(progress.budget) | {"seeds": work.setting.config.tune.seeds},
    }
    facts = json.loads(as_json(facts))  # as the file holds them
    known = (_read(folder / "run.json") or {}).get("tune", {})
    if {**facts, "verdict": 0, "minutes": 0} == {**known, "verdict": 0, "minutes": 0}:
        facts = known  # the same command after its end
    else:
        found = _verdict(work, records, progress, clock)
        facts |= {"verdict": found, "minutes": round(clock.seconds / 60, 2)}
    work.finish(facts)
    if facts["verdict"]["arms"]:
        print_rows(arm_rows(facts["verdict"]))
    print(facts["verdict"]["sentence"])
    print(f"Adapter: {folder / 'adapter'}")
    print(f"Configuration: fit -c {folder / 'best.yaml'}")
    return records, facts


def _why(best: Record, records: Sequence[Record]) -> str:
    """Say which trial is taken, and why where another one has a higher score."""
    if best["score"] == ranked(records)[0]["score"]:
        return f"trial {best['number']}."
    if best["number"] == min(record["number"] for record in ranked(records)):
        return f"trial {best['number']}, the first one: no lead over it is larger than its error."
    return f"trial {best['number']}: its lead over the first one is larger than its error."


def arm_rows(verdict: Mapping[str, Any]) -> list[list[str]]:
    """Return what the verdict knows of each arm and rival, a row each below the heading."""
    rows = [["", verdict["measure"], "over SFT", "loss", "general loss", "minutes"]]
    for each in (*verdict["arms"], *verdict["rivals"]):
        after = (each.get("general_loss") or {}).get("after")
        rows.append(
            [
                each["label"],
                with_interval(each["score"]),
                with_interval(each.get("over_sft"), "+.1f"),
                "" if each["loss"] is None else f"{each['loss']:.3f}",
                "" if after is None else f"{after:.3f}",
                "" if each["minutes"] is None else f"{each['minutes']:.2g}",
            ]
        )
    return rows


def _best(ground: Ground, records: Sequence[Record]) -> Record:
    """Return the trial whose adapter is left to the user."""
    complete = ranked(records)
    try:
        return choose(ground, complete, None)
    except MetricError:  # a class of the user's that needs more of a row than is kept
        return complete[0]


def _verdict(
    work: "_Work", records: Sequence[Record], progress: Progress, clock: Clock
) -> dict[str, Any]:
    """Compare the arms in the time that is left."""
    config, folder, budget = work.setting.config, work.folder, progress.budget
    if folder.read().get("verdict_of") != len(records):
        folder.write(verdict_of=len(records))
    else:
        work.credit()

    def seconds_left() -> float:
        clock.keep()
        if budget.seconds is None:
            return math.inf
        return budget.seconds - clock.seconds + sum(work.credits.values()) / budget.workers

    means = Means(
        run_fits=work.fits,
        seconds_left=seconds_left,
        seeds=config.tune.seeds,
        seed=config.seed,
        test_scoring=progress.price.test_scoring,
        workers=budget.workers,
        say=partial(print, flush=True),
    )
    found = verdict(work.setting.ground, records, means)
    clock.keep()
    return found


@dataclass
class _Work:
    """The pieces of work, and what is done with them."""

    setting: Setting
    common: Common
    search: Search
    folder: TuneFolder
    pool: Pool
    home: Path
    credits: dict[str, float] = field(default_factory=dict)
    """Seconds of the fits of a verdict that was stopped, which cost nothing now."""

    def credit(self) -> None:
        """Count the fits that a verdict on the same trials has left."""
        for path in (self.folder.path / "fits").glob("*.json"):
            self.credits[path.stem] = float((_read(path) or {}).get("seconds", 0.0))

    def trial(self, asked: Asked) -> TrialWork:
        """Make the work of a trial."""
        return TrialWork(
            common=self.common,
            number=asked.number,
            trial_id=asked.trial._trial_id,
            arm=asked.arm,
            params=asked.point,
            settings=overlay(asked.arm, asked.point, self.setting.prefixed),
            url=self.search.url,
            study=self.search.name,
            folder=self._place(f"trial-{asked.number}"),
        )

    def fits(self, requests: Sequence[Request]) -> list[dict[str, Any]]:
        """Do the fits that the verdict asks for; what has been done before is read.

        Returns:
            The results, in the order of the requests.
        """
        kept = self.folder.path / "fits"
        kept.mkdir(exist_ok=True)

        def kept_in(request: Request) -> Path:
            return kept / f"{request.name}.json"

        known = {request.name: _read(kept_in(request)) for request in requests}
        for name in known:
            self.credits.pop(name, None)
        todo = [
            FitWork(self.common, request, self._place(request.name), kept_in(request))
            for request in requests
            if (of := known[request.name]) is None or not _is_of(of, request)
        ]
        for ended in self.pool.run(iter(todo)):
            work: FitWork = ended.work
            known[work.request.name] = ended.value or failed(
                work, ended.reason or "", ended.seconds
            )
        return [found for request in requests if (found := known[request.name]) is not None]

    def final(self, best: Mapping[str, Any]) -> None:
        """Train the best configuration on all task rows, unless that is done."""
        folder, place = self.folder.path, self.folder.path / FINAL
        if self.folder.read().get(FINAL) == best["number"] and not place.exists():
            return
        if self.folder.read().get(FINAL) != best["number"]:
            shutil.rmtree(place, ignore_errors=True)  # the beginning of another one
        place.mkdir(exist_ok=True)  # it is there until the adapter is
        self.folder.write(**{FINAL: best["number"]})
        request = Request(FINAL, best["settings"], None, self.common.seed, before=True)
        work = FitWork(self.common, request, self._place(FINAL), kept=place)
        (ended,) = self.pool.run(iter([work]))
        result = ended.value or failed(work, ended.reason or "", ended.seconds)
        if result["reason"] is not None:
            raise ConfigError(
                f"tune: the best configuration must train on all task rows, too, got: "
                f"{result['reason']} The same command tries again."
            )
        for name in KEPT:
            source, target = place / name, folder / name
            if source.is_dir():
                shutil.rmtree(target, ignore_errors=True)
                shutil.copytree(source, target)
            elif source.is_file():
                shutil.copy2(source, target)
        config = read_yaml(place / "config.yaml", ConfigError)
        config.pop("tune", None)
        config["run"] = self.setting.config.values["run"]
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        write_whole(folder / "best.yaml", f"{HEADER}{text}".encode())
        shutil.rmtree(place)

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Write what is known of the search into run.json."""
        record = _read(self.folder.path / "run.json") or {}
        own = {"name": self.folder.path.resolve().name, "tune": dict(facts)}
        write_json(self.folder.path / "run.json", {**record, **own})

    def _place(self, name: str) -> Path:
        place = self.home / name
        place.mkdir(exist_ok=True)
        return place


HEADER = "# What `tune` has found best. Run: python -m tell_lightning fit -c best.yaml\n"


# What is searched for


def _setting(keys: list[str]) -> Setting:
    """Read configuration and data, and refuse what cannot be searched for."""
    config = check(keys)
    check_training(config)
    devices = config.trainer.get("devices")
    if isinstance(devices, int) and devices > 1:
        raise ConfigError(
            f"trainer.devices: must be 1, for tune trains a candidate on each device, got "
            f"{devices}. Leave it out."
        )
    mixing = [arm for arm in config.tune.search.arm if arm != "sft"]
    if mixing and not config.data.general:
        raise ConfigError(
            f"tune.search.arm: needs general rows for {' and '.join(mixing)}, got no data.general. "
            "Add a general source, or set tune.search.arm: [sft]."
        )
    if not config.data.tasks:
        raise ConfigError("data.tasks: tune needs a task, got none. Add one.")
    config, lines = with_written_rows(config)
    for line in lines:
        print(line)
    folds = plan_folds(config.data, config.seed, config.tune.folds)
    splits = read_splits(config.data)
    return Setting(config, folds, splits, about(config.values, _digests(config, splits)))


def _digests(config: Config, splits: Splits) -> dict[str, str]:
    """Digest each set of rows, and the base."""
    from tell_lightning.data.base_files import base_digests

    found = {}
    for split in ("train", "dev", "test"):
        for name, rows in getattr(splits, split).items():
            found[f"data.tasks.{name}.{split}"] = rows.sha256
    found |= {f"data.general.{name}.train": of.sha256 for name, of in splits.general.items()}
    found |= {f"data.general.{name}.held_out": of.sha256 for name, of in splits.held_out.items()}
    base = base_digests(config.model.base, config.model.revision)
    return found | {"model.base": "".join(str(base[name]) for name in sorted(base))}


def _open(url: str, setting: Setting, folder: TuneFolder) -> Search:
    """Open the study.

    Raises:
        ConfigError: The file in the folder holds a study of something else.
        StudyError: The storage cannot be reached.
    """
    digest = digest_of(setting.about)
    if url == folder.url and (others := other_studies(url, digest)):
        raise ConfigError(
            f"--folder: must hold a study of this configuration and data, got {others[0]} in "
            f"'{folder.path / 'study.db'}'. Give another one."
        )
    owner = str(folder.read()["owner"])
    return Search(url, digest, owner=owner, seed=setting.config.seed)


def _dev_rows(setting: Setting) -> int | None:
    """Return how many dev rows of a task a trial answers: all, however many a fold has."""
    if setting.folds.kind == "dev":
        return None
    sizes = [Counter(fold for _, fold in rows) for rows in setting.folds.divided.values()]
    return max(max(each.values()) for each in sizes)


# Prices and ranges


def _priced(
    setting: Setting,
    common: Common,
    folder: TuneFolder,
    search: Search,
    budget: Budget,
    environment: Mapping[str, str],
) -> tuple[Price, Space]:
    """Find out what trials cost and over what is searched.

    Raises:
        ConfigError: The budget is too small, or the data do not allow the ranges.
    """
    known = folder.read()
    shared = search.shared("space")
    if known.get("price") is not None and shared is not None:
        cost, space = Price(**known["price"]), Space.from_plain(shared)
        budget.check(cost, space)
        return cost, space
    with folder.work() as place:
        cost, defaults, micro_batch = _measured(setting, common, environment, place)
    arms = len(setting.config.tune.search.arm)
    budget = budget.divided(cost, min(defaults.steps.values()), arms, setting.config.tune.seeds)

    def afford(steps: int, trials: int) -> bool:
        return budget.affords(cost, {"steps": steps, "task_share": SHARES[0]}, trials, arms)

    space = space_of(setting.config.tune.search, defaults, afford)
    budget.check(cost, space)
    space = search.begin(space)
    folder.write(price=cost.plain(), micro_batch=micro_batch)
    return cost, space


def _measured(
    setting: Setting, common: Common, environment: Mapping[str, str], place: Path
) -> tuple[Price, Defaults, int]:
    """Measure a trial of the first arm that mixes, in a process like those of the trials.

    Returns:
        Prices, defaults, and the micro-batch.
    """
    from tell_lightning.data.prepared import PreparedData
    from tell_lightning.data.tokenizer import load_tokenizer
    from tell_lightning.model.base import load_skeleton
    from tell_lightning.model.lora import check_lora
    from tell_lightning.model.rate import rate_of

    quieten()
    arms = setting.config.tune.search.arm
    arm: Arm = next((each for each in arms if each != "sft"), "sft")
    share = _share(setting)
    point = {"lr": 1e-4, "steps": MEASURED, **({} if arm == "sft" else {"task_share": share})}
    scorings = THIRDS if setting.folds.kind == "dev" else 1
    own = {
        "eval.every_steps": -(-MEASURED // scorings),
        "eval.dev_rows": common.dev_rows,
        "eval.test": setting.has_test,
        "data.mixture.general_repeat": True,  # a few steps are measured, however many rows last
    }
    laid = merged(overlay(arm, point, ()), common.folds[0], QUIET, nested(own))
    config, _ = with_written_rows(check(written(common.values, laid, place)))
    check_lora(load_skeleton(config.model), config.model.lora)
    tokenizer = load_tokenizer(config.model.base, **config.model.hub_options)
    data = PreparedData(config.data, tokenizer, seed=config.seed)
    data.prepare()
    data.open()
    found = price(measured(config, environment), data, config)
    means = {"task": 0.0, "general": 0.0}
    for kind in means:
        lengths = [
            of.tokens
            for source, of in zip(data.plan.sources, data.lengths, strict=True)
            if source.kind == kind
        ]
        if lengths:
            means[kind] = float(sum(of.sum() for of in lengths) / sum(map(len, lengths)))
    if config.data.packing:
        means = dict.fromkeys(means, float(config.data.max_tokens))
    test = found["scoring"]["parts"].get("after", 0.0)
    cost = Price(
        tokens_per_second=found["tokens_per_second"],
        rows=config.data.optimizer_batch,
        task_tokens=means["task"],
        general_tokens=means["general"],
        scoring=(found["scoring"]["seconds"] - test) / max(1, found["scoring"]["dev"]),
        folds=len(common.folds),
        scorings=scorings,
        test_scoring=test,
    )
    lasting = _Lasting(setting, {s.name: s.rows for s in data.plan.sources if s.kind != "task"})
    tasks = setting.config.data.tasks.values()
    defaults = Defaults(
        lr=rate_of(setting.config.model).value,
        task_share=share,
        steps={each: lasting.default_steps(each, share) for each in arms},
        has_prefix=bool(setting.prefixed),
        force=any(task.force_response_prefix for task in tasks),
        lasts=lasting,
    )
    return cost, defaults, int(found["micro_batch"])


def _share(setting: Setting) -> float:
    """Return the share that `fit` would take, where it is one."""
    given = setting.config.data.mixture.task_share
    return given if given is not None and 0 < given < 1 else 0.2


class _Lasting:
    """Says how long the general rows last, and how long runs are by default."""

    def __init__(self, setting: Setting, general: Mapping[str, int]) -> None:
        self.setting = setting
        data = setting.config.data
        self.data = data
        self.general = {name: (rows, data.general[name].weight) for name, rows in general.items()}
        self.per_step = data.optimizer_batch
        self.train = list(_train_rows(setting))

    def __call__(self, share: float, steps: int) -> bool:
        """Say whether the general rows last in every fold, and with all rows."""
        repeat = self.data.mixture.general_repeat
        try:
            for rows in self.train:
                plan = self._plan("tell", share, rows)
                check_supply(plan, steps * self.per_step, general_repeat=repeat)
        except PlanError:
            return False
        return True

    def default_steps(self, arm: Arm, share: float) -> int:
        """Return the steps of a run of `fit` on a fold."""
        if (asked := self.setting.config.trainer["max_steps"]) > 0:
            return int(asked)
        plan = self._plan(arm, share, self.train[0])
        repeat = self.data.mixture.general_repeat
        return default_length(plan, self.per_step, general_repeat=repeat).steps

    def _plan(self, arm: Arm, share: float, rows: Mapping[str, int]) -> Plan:
        changes: dict[str, Any] = {**ARMS[arm], "task_share": share, "task_passes": None}
        mixture = replace(self.data.mixture, **changes, cycles=None, task_share_in="examples")
        return resolve_plan(mixture, rows, self.general, seed=0)


def _train_rows(setting: Setting) -> Sequence[dict[str, int]]:
    """List the numbers of training rows, by task, of each fold and of all rows."""
    folds = setting.folds
    if folds.kind == "dev":
        drawn = setting.config.data.mixture.task_examples
        return [{n: drawn or len(r.records) for n, r in setting.splits.train.items()}]
    sizes = {name: Counter(fold for _, fold in rows) for name, rows in folds.divided.items()}
    whole = {name: sum(of.values()) for name, of in sizes.items()}
    parts = [{n: whole[n] - sizes[n][fold] for n in whole} for fold in range(folds.count)]
    return [*parts, whole]


def _minutes(value: str) -> float:
    try:
        minutes = float(value)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < 1e6:
        raise argparse.ArgumentTypeError(
            f"must be a number of minutes above 0, got '{value}'. Write --minutes 30."
        )
    return minutes


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _is_of(result: Mapping[str, Any], request: Request) -> bool:
    """Say whether a kept result is that of a request, and not of one that failed."""
    same = all(
        result.get(key) == getattr(request, key) for key in ("kind", "fold", "seed")
    ) and result.get("settings") == dict(request.settings)
    return same and result["reason"] is None and (not request.before or "base" in result)
