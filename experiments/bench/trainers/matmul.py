"""The rate of a large matrix product, which nothing that trains can exceed."""

import time

import torch

from trainers.job import Job
from trainers.meter import peak_bytes, say, versions


def run(job: Job) -> None:
    """Report the floating-point operations of the best of three rounds, as tokens."""
    size, products = (8192, 50) if job.device == "cuda" else (256, 5)
    dtype = torch.bfloat16 if job.bfloat16 else torch.float32
    one, other = (torch.randn(size, size, device=job.device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(4):
        since = time.perf_counter()
        for _ in range(products):
            one @ other
        if job.device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - since)
    say(
        seconds=[best],
        tokens=[2 * size**3 * products],
        peak_bytes=peak_bytes(job.device),
        versions=versions(),
    )
