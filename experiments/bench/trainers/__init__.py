"""The contenders of `train.py`: each module trains on the same rows with one library.

A module has `run(job)`, which tells a `Meter` of each optimizer step. `__main__` runs it in the
contender's own environment, so only what is ours needs the package.
"""
