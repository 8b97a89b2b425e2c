"""Callbacks and loggers of training: scores, checkpoints, logs and the run record."""
