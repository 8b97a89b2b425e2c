"""The report of experiments: verdicts, curves, contrasts and cost of many runs in one page."""
