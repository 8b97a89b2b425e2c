"""Compare the speed and the memory of training with other trainers, on the same rows.

    python experiments/bench/train.py            7 million parameters, one thread, all contenders
    python experiments/bench/train.py --contenders ours,bare,trl           at most ten minutes
    python experiments/bench/train.py --base smollm2 --rounds 2            a real model
    python experiments/bench/train.py --base microworld --tokens 160 --contenders ours,ours_padded
    sh experiments/bench/train_gpu.sh            the GPU half, eight minutes
    python experiments/bench/train.py --readme   only the tables of train.md

On a CPU all contenders are started first and then take turns, one optimizer step each, so that a
busy machine slows all of them. On a GPU (`--gpu`) they run one after the other, and results are
written after each. Peers get environments below build/bench-venv, made on the first call.
`--tiny` tries every line, those of `--gpu` on a CPU, with a model of a few thousand parameters.
"""

import argparse
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from environments import HERE, ROOT, ContenderError, child_environment, interpreter, last_line
from train_contenders import CHECKPOINTED, CONTENDERS, GROUPS, ON_CPU, ON_GPU
from train_tables import blocks, told
from trainers.job import MARK, Job

RESULTS, PAGE = HERE / "results/train.json", HERE / "train.md"
ROWS = "general/natural_instructions/natural_instructions_sample.jsonl"
FIELDS = {"prompt": "instruction", "input": "input", "response": "output"}
LIMIT = 600
"""Seconds that a contender has for its start and for each step on a CPU."""
BASES = 30 * 2**30
"""Bytes of all bases of the GPU half, and some more."""
GPU_LIMIT = 150
"""Seconds that a contender has on a GPU."""
OWN_SITE = "/tmp/bench-site-{}"
"""The packages that `train_gpu.sh` installs for one module alone."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write results and tables."""
    given = parse(arguments)
    if not given.readme:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=fast_folder(given.gpu)) as folder:
            (measure_gpu if given.gpu else measure_cpu)(given, Path(folder))
    results = read(given.out)
    if given.out.resolve() == RESULTS:
        text = PAGE.read_text(encoding="utf-8")
        for name, block in blocks(results).items():
            text = put(text, name, block)
        PAGE.write_text(text, encoding="utf-8")
    else:
        print("\n\n".join(blocks(results).values()))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--base", default="7M", help="7M, or model.base: smollm2, a folder ...")
    parser.add_argument("--contenders", help=f"default: {','.join(ON_CPU)}; on a GPU all")
    parser.add_argument("--rounds", type=int, default=6, help="timed steps of each contender")
    parser.add_argument("--bins", type=int, default=4, help="bins of an optimizer step")
    parser.add_argument("--tokens", type=int, default=1024, help="of a bin")
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--minutes", type=float, default=8, help="of the GPU half")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--readme", action="store_true")
    given = parser.parse_args(arguments)
    everything = CONTENDERS if given.gpu else ON_CPU
    names = given.contenders.split(",") if given.contenders else list(everything)
    names = [each for name in names for each in GROUPS.get(name, (name,))]
    if unknown := [name for name in names if name not in CONTENDERS]:
        parser.error(f"--contenders: must be of {', '.join(CONTENDERS)}, got {unknown}.")
    given.contenders = names
    given.out = given.out or (ROOT / "build/bench-tiny.json" if given.tiny else RESULTS)
    return given


def fast_folder(gpu: bool) -> str | None:
    """Return a folder in memory for the bases of the GPU half if they fit into it, else None."""
    memory = Path("/dev/shm")
    fits = gpu and memory.is_dir() and shutil.disk_usage(memory).free > BASES
    return str(memory) if fits else None


def measure_cpu(given: argparse.Namespace, folder: Path) -> None:
    """Measure one base on a CPU."""
    shape = "tiny" if given.tiny else given.base if given.base == "7M" else None
    job = Job(
        base=str(folder / "base") if shape else given.base,
        rows=rows_of(None if given.base == "microworld" else given.data, folder),
        folder=str(folder),
        capacity=256 if given.tiny else given.tokens,
        batch=2 if given.tiny else given.bins,
        micro=1,
        steps=1 + given.rounds,
        warm=1,
        lr=1e-3,
        rank=16,
        device="cpu",
        bfloat16=given.bfloat16,
        checkpointing=False,
        log_every=1,
        gate=True,
    )
    case = prepare(job, shape)
    name = shape or Path(given.base).name
    results = read(given.out)
    results["cpu"] = {**results.get("cpu", {}), name: case}
    in_turns(Job(**case["job"]), given.contenders, case["contenders"])
    write(given.out, results)


def measure_gpu(given: argparse.Namespace, folder: Path) -> None:
    """Measure all shapes on a GPU, or tiny ones on a CPU."""
    deadline = time.monotonic() + 60 * given.minutes
    rows = rows_of(given.data, folder)
    cases: dict[str, Any] = {}
    results = {**read(given.out), "gpu": cases}
    shapes = dict.fromkeys(shape for shape, _ in ON_GPU)
    jobs = {shape: gpu_job(shape, folder, rows, given.tiny) for shape in shapes}
    makers = {
        shape: Session("shapes", with_options(job, shape="tiny" if given.tiny else shape))
        for shape, job in jobs.items()
    }
    for shape, maker in makers.items():
        try:
            cases[shape] = as_case(jobs[shape], maker.report(deadline - time.monotonic()))
        except ContenderError as error:
            print(f"{shape}: {told({'failed': str(error)})}", flush=True)
        maker.stop()  # frees the memory of the GPU
    for shape, names in ON_GPU:
        for name in (name for name in names if name in given.contenders and shape in cases):
            limit = min(GPU_LIMIT, deadline - time.monotonic())
            job = Job(**cases[shape]["job"])
            cases[shape]["contenders"][name] = alone(job, name, limit)
            print(f"{shape} {name}: {told(cases[shape]['contenders'][name])}", flush=True)
            write(given.out, results)


def gpu_job(shape: str, folder: Path, rows: dict[str, Any], tiny: bool) -> Job:
    """Return the job of a shape on a GPU; a tiny one computes on the CPU."""
    (folder / shape).mkdir()
    return Job(
        base=str(folder / shape / "base"),
        rows=rows,
        folder=str(folder / shape),
        capacity=128 if tiny else 2048,
        batch=8,
        micro=8,
        steps=6 if tiny else 20,
        warm=2 if tiny else 5,
        lr=1e-4,
        rank=16,
        device="cpu" if tiny else "cuda",
        bfloat16=True,
        checkpointing=shape in CHECKPOINTED,
        log_every=2 if tiny else 5,
        gate=False,
        options={"prompts": 4, "new_tokens": 8} if tiny else {"prompts": 64, "new_tokens": 128},
    )


def rows_of(data: Path | None, folder: Path) -> dict[str, Any]:
    """Return where the rows are: Natural Instructions if they are there, else the microworld's."""
    path = data / ROWS if data else None
    if path is None or not path.is_file():
        from tell_lightning.microworld.world import data_root

        path = data_root(folder) / "general/train.jsonl"
    return {"train": str(path.resolve()), "fields": FIELDS}


def prepare(job: Job, shape: str | None) -> dict[str, Any]:
    """Make the base and the bins of a job; return its case, without results."""
    return as_case(job, Session("shapes", with_options(job, shape=shape)).report(LIMIT))


def as_case(job: Job, made: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts about a case; `made` is the report of `shapes`."""
    base = made["base"]
    return {**made, "job": asdict(replace(job, base=base)), "contenders": {}}


def with_options(job: Job, **options: Any) -> Job:
    """Return the job with more options."""
    return replace(job, options={**job.options, **options})


# Contenders, each in a process of its own


class Session:
    """A contender's process: it reports, and waits where the job has a gate."""

    def __init__(self, module: str, job: Job, python: str = sys.executable) -> None:
        """Start the process.

        Args:
            module: Module of `trainers`.
            job: What it trains.
            python: The Python of its environment.
        """
        self.folder = Path(tempfile.mkdtemp(dir=job.folder, prefix=f"{module}-"))
        (self.folder / "job.json").write_text(json.dumps(asdict(job)), encoding="utf-8")
        paths = [OWN_SITE.format(module), str(HERE), str(ROOT)]
        paths += os.environ.get("PYTHONPATH", "").split(os.pathsep)
        environment = child_environment(
            PYTHONPATH=os.pathsep.join(filter(None, paths)), BENCH_STARTED=repr(time.time())
        )
        self.log = self.folder / "log.txt"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [python, "-m", "trainers", module, "job.json"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                cwd=self.folder,
                text=True,
            )
        self.reports: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(MARK):
                self.reports.put(json.loads(line.removeprefix(MARK)))
        self.reports.put(None)

    def report(self, limit: float) -> dict[str, Any]:
        """Wait for the next report.

        Raises:
            ContenderError: The process ends or takes too long. It does not run any more.
        """
        try:
            report = self.reports.get(timeout=max(1.0, limit))
        except queue.Empty:
            self.stop()
            raise ContenderError(f"took more than {max(1.0, limit):.0f} s") from None
        if report is None:
            code = self.process.wait()
            log = self.log.read_text(encoding="utf-8", errors="replace")
            raise ContenderError(last_line(log) or f"exit {code}")
        return report

    def go(self) -> None:
        """Open the gate."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # `report` says why the process has ended
            print(file=self.process.stdin, flush=True)

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


def start(job: Job, name: str) -> Session:
    """Start a contender.

    Raises:
        ContenderError: Its environment cannot be made.
    """
    contender = CONTENDERS[name]
    micro = {"case": job.micro, "one": 1, "all": job.batch}[contender.bins]
    # The machine with the GPU has no registry; it brings the packages of all peers along.
    needs = () if job.device == "cuda" else contender.needs
    python = interpreter(contender.module, needs, contender.without)
    options = {**job.options, **contender.options}
    return Session(contender.module, replace(job, micro=micro, options=options), python)


def alone(job: Job, name: str, limit: float) -> dict[str, Any]:
    """Run a contender to its end; return its figures, or why it failed."""
    ends = time.monotonic() + limit
    try:
        if limit < 1:
            raise ContenderError("no time was left")
        session = start(job, name)
        report = session.report(limit)
        while "seconds" not in report:
            report = session.report(ends - time.monotonic())
    except ContenderError as error:
        return {"failed": str(error)}
    session.stop()  # frees the memory of the GPU
    return report


def in_turns(job: Job, names: Sequence[str], results: dict[str, Any]) -> None:
    """Run contenders step by step, each step of all before the next one of any."""
    sessions: dict[str, Session] = {}

    def attempt(name: str, do: Any) -> Any:
        try:
            return do()
        except ContenderError as error:
            results[name] = {"failed": str(error)}
            sessions.pop(name, None)
            print(f"{name}: {told(results[name])}", flush=True)

    try:
        for name in names:
            if session := attempt(name, lambda name=name: start(job, name)):
                sessions[name] = session
                attempt(name, lambda session=session: session.report(LIMIT))
        for step in range(1, job.steps + 1):
            for name in turned(list(sessions), step):
                session = sessions[name]
                session.go()
                report = attempt(name, lambda session=session: session.report(LIMIT))
                if report and "seconds" in report:
                    results[name] = report
            print(f"step {step} of {job.steps}: {', '.join(sessions)}", flush=True)
    finally:
        for session in sessions.values():
            session.stop()


def turned(names: list[str], step: int) -> list[str]:
    """Return the names, beginning with another one at each step."""
    first = step % len(names) if names else 0
    return names[first:] + names[:first]


# Results


def put(text: str, name: str, block: str) -> str:
    """Replace the text between the two marks of a block."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, after = text.split(start)[0], text.split(end)[1]
    return f"{before}{start}\n\n{block}\n\n{end}{after}"


def read(path: Path) -> dict[str, Any]:
    """Read the results, if there are any."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write(path: Path, results: Mapping[str, Any]) -> None:
    """Write the results."""
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
