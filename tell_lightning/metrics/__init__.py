"""Strings in, numbers out: what a task's predictions are worth. No torch, no Lightning."""
