"""The study of Optuna behind `tune`: opened, checked, gone on with, asked and told.

A study is named by the digest of what it is about, so one storage may hold many, and two machines
with the same configuration and data work on the same one. A trial belongs to the folder that asked
for it. Whoever holds the lock of a folder knows that the folder's running trials are dead: their
process was killed. They are marked as failed and asked again, with the same settings. A trial whose
result was written just before the kill counts.
"""

import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from typing import Any

import optuna
import sqlalchemy.exc
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, StorageInternalError
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from tell_lightning.errors import TellError
from tell_lightning.tuning.pruner import LOSSES, BothBehind
from tell_lightning.tuning.records import COMPLETE, FAILED, PRUNED, Record, value
from tell_lightning.tuning.settings import Arm
from tell_lightning.tuning.space import Space, suggest

RANDOM = 8
"""Trials before the sampler learns from them: the first points and a few random ones."""
SQLITE = "sqlite:///"
BUSY_SECONDS = 60
"""How long a process waits for another one that writes to the same SQLite file, or begins."""
ATTEMPTS = 6
"""How often the tables of a new database are tried."""
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
KILLED = "killed"
"""User attribute of a trial whose process was killed: it is asked again, and does not count."""


class StudyError(TellError):
    """A storage that cannot be used, or a study of something else."""


@dataclass(frozen=True)
class Asked:
    """A trial that is to be run."""

    trial: Trial
    arm: Arm
    point: Mapping[str, Any]

    @property
    def number(self) -> int:
        """Its number in the study."""
        return self.trial.number


class Search:
    """One study, as one folder sees it."""

    def __init__(self, url: str, digest: str, *, owner: str, seed: int) -> None:
        """Open the study, or make it.

        Args:
            url: The storage.
            digest: Of all that the trials have in common.
            owner: Id of the folder that works on it.
            seed: Seed of the sampler.

        Raises:
            StudyError: The storage cannot be reached.
        """
        self.url, self.digest, self.owner = url, digest, owner
        self.name = study_name(digest)
        with _reached(url):
            storage = storage_of(url)
            self._made = True
            try:
                self.study = optuna.create_study(
                    study_name=self.name, storage=storage, direction="maximize"
                )
            except DuplicatedStudyError:
                self._made = False
                self.study = optuna.load_study(study_name=self.name, storage=storage)
            # A sampler that begins again, or on another machine, must not repeat its first draws.
            before = len(self.study.get_trials(deepcopy=False))
            self.study.sampler = _sampler(_seed(seed, before, "" if is_local(url) else owner))

    # What all machines share

    def shared(self, name: str) -> Any:
        """Return a user attribute of the study; None if it is not set."""
        return self.study.user_attrs.get(name)

    def share(self, name: str, value: Any) -> None:
        """Set a user attribute of the study."""
        self.study.set_user_attr(name, value)

    def begin(self, space: Space) -> Space:
        """Return the ranges; the machine that made the study gives them, and the first points.

        Others wait a moment for them. A machine that was killed before it gave them is replaced.
        """
        if not self._made and not is_local(self.url):
            self._wait_for_space()
        if (known := self.shared("space")) is not None:
            return Space.from_plain(known)
        self.share("digest", self.digest)
        for arm, point in space.first_points():
            params = {f"{arm}.{key}": value for key, value in point.items()}
            self.study.enqueue_trial(params, {"arm": arm}, skip_if_exists=True)
        self.share("space", space.plain())
        return space

    def _wait_for_space(self) -> None:
        until = time.monotonic() + BUSY_SECONDS
        while self.shared("space") is None and time.monotonic() < until:
            time.sleep(0.2)

    # Trials

    def recover(self) -> int:
        """Count what had ended, and ask again for what a kill has ended; this folder's alone.

        Returns:
            How many trials are asked again.
        """
        again = 0
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.user_attrs.get("owner") not in {self.owner, None}:
                continue
            if (record := trial.user_attrs.get("record")) is not None:
                self._tell(trial.number, record)
            elif trial.user_attrs.get("owner") is not None or is_local(self.url):
                self._again(trial)
                again += 1
        return again

    def _again(self, trial: FrozenTrial) -> None:
        storage_of(self.url).set_trial_user_attr(trial._trial_id, KILLED, True)
        self.study.tell(trial.number, state=TrialState.FAIL)
        attrs = {key: trial.user_attrs[key] for key in ("arm",) if key in trial.user_attrs}
        if trial.params:
            self.study.enqueue_trial(trial.params, attrs)

    def ask(self, space: Space) -> Asked:
        """Take the next trial, with the settings that the sampler chooses."""
        trial = self.study.ask()
        trial.set_user_attr("owner", self.owner)
        arm: Arm = trial.user_attrs.get("arm") or space.turn(trial.number)
        trial.set_user_attr("arm", arm)
        return Asked(trial, arm, suggest(space, arm, trial))

    def tell(self, asked: Asked, record: Record) -> None:
        """Keep what came of a trial; its record first, so that a kill in between loses nothing."""
        keep_record(self.url, asked.trial._trial_id, record)
        self._tell(asked.number, record)

    def _tell(self, number: int, record: Record) -> None:
        state = STATES[record["state"]]
        scored = state == TrialState.COMPLETE
        result = value(record["score"], record["loss"]) if scored else None
        self.study.tell(number, result, state, skip_if_finished=True)

    def records(self) -> list[Record]:
        """Return what came of the trials of all machines, in the order of their numbers."""
        trials = self.study.get_trials(deepcopy=False, states=ENDED)
        return [trial.user_attrs["record"] for trial in trials if "record" in trial.user_attrs]

    def count(self) -> int:
        """Count the trials that have ended or are running, without those that were killed."""
        states = (*ENDED, TrialState.RUNNING)
        trials = self.study.get_trials(deepcopy=False, states=states)
        return sum("owner" in each.user_attrs and KILLED not in each.user_attrs for each in trials)


STATES = {COMPLETE: TrialState.COMPLETE, PRUNED: TrialState.PRUNED, FAILED: TrialState.FAIL}


def keep_record(url: str, trial_id: int, record: Record) -> None:
    """Write the record of a trial into the study, unless the process that ran it has done so."""
    storage = storage_of(url)
    if "record" not in storage.get_trial(trial_id).user_attrs:
        storage.set_trial_user_attr(trial_id, "record", dict(record))


class Reports:
    """Tells the study of a running trial how it does; used in the process that runs it."""

    def __init__(self, url: str, name: str, trial_id: int) -> None:
        """Open the study of a trial."""
        self._storage = storage_of(url)
        self._study = optuna.load_study(study_name=name, storage=self._storage)
        self._trial_id = trial_id
        self._losses: list[float] = []

    def report(self, score: float, loss: float) -> bool:
        """Report a score and a loss.

        Returns:
            Whether the trial is behind, and should stop.
        """
        step = len(self._losses)
        self._losses.append(loss)
        self._storage.set_trial_user_attr(self._trial_id, LOSSES, self._losses)
        self._storage.set_trial_intermediate_value(self._trial_id, step, score)
        return BothBehind().prune(self._study, self._storage.get_trial(self._trial_id))


def study_name(digest: str) -> str:
    """Return the name of the study of a digest."""
    return f"tune-{digest[:16]}"


def other_studies(url: str, digest: str) -> list[str]:
    """List the studies of a storage that are about something else.

    Raises:
        StudyError: The storage cannot be reached.
    """
    with _reached(url):
        names = optuna.get_all_study_names(storage_of(url))
    return [name for name in names if name != study_name(digest)]


def is_local(url: str) -> bool:
    """Return whether a storage is the file in the folder of one machine."""
    return url.startswith(SQLITE) and url.endswith("/study.db")


@cache
def storage_of(url: str) -> RDBStorage:
    """Connect to a storage; an empty database gets its tables."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.startswith("sqlite:"):
        options["connect_args"] = {"timeout": BUSY_SECONDS}
    for attempt in range(ATTEMPTS):
        try:
            return RDBStorage(url, engine_kwargs=options)
        except sqlalchemy.exc.DatabaseError as error:
            # Another machine makes the same tables at this moment.
            meets = isinstance(error, sqlalchemy.exc.IntegrityError) or "exist" in str(error)
            if not meets or attempt == ATTEMPTS - 1:
                raise
            time.sleep(0.5 * (attempt + 1))
    raise AssertionError


@contextmanager
def _reached(url: str) -> Iterator[None]:
    """Turn what a database says into one line."""
    try:
        yield
    except (
        ImportError,
        sqlalchemy.exc.SQLAlchemyError,
        StorageInternalError,
        RuntimeError,
        ValueError,
        OSError,
    ) as error:
        if isinstance(error, TellError):
            raise
        cause = error.__cause__ or error.__context__ or error
        reason = " ".join(str(getattr(cause, "orig", None) or cause).split())
        cure = "Start the database, or correct the address"
        if isinstance(error, ImportError):
            cure = "Install its driver, such as `pip install psycopg2-binary` for PostgreSQL"
        raise StudyError(
            f"--storage: must be a storage of Optuna that can be reached, got '{_hidden(url)}': "
            f"{reason:.200}. {cure}, or leave --storage out."
        ) from error


def _hidden(url: str) -> str:
    """Return an address without its password.

    >>> _hidden("postgresql://me:secret@host/db")
    'postgresql://me:...@host/db'
    """
    scheme, found, rest = url.partition("://")
    account, at, place = rest.rpartition("@")
    user, colon, _ = account.partition(":")
    return f"{scheme}{found}{user}{':...' if colon else ''}{at}{place}"


def _sampler(seed: int) -> TPESampler:
    with warnings.catch_warnings():
        # Settings are named by arm: each arm is a group, learnt of by itself.
        warnings.simplefilter("ignore", ExperimentalWarning)
        return TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=RANDOM)


def _seed(*parts: Any) -> int:
    digest = blake2b(repr(parts).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")
