"""The report of experiments: verdicts, curves, contrasts and cost of many cells in one page."""
