"""The contenders of `train.py`: each module trains on the same rows with one library.

A module has `train(job, meter)`, which calls `meter.stepped` after each optimizer step. It runs in
the contender's own environment (`__main__`), so only `ours` and `shapes` need the package. `run(job)` does it all.
"""
