"""Run one contender in its own process: `python -m trainers MODULE JOB.json`."""

import json
import sys
from importlib import import_module
from pathlib import Path

import torch

from trainers.job import Job

if __name__ == "__main__":
    module, path = sys.argv[1:]
    job = Job(**json.loads(Path(path).read_text(encoding="utf-8")))
    if job.device == "cpu":
        torch.set_num_threads(1)
    import_module(f"trainers.{module}").run(job)
