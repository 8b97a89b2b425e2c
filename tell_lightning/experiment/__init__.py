"""Experiments: what is run, what comes of it, and what may be said of it."""
