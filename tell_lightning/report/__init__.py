"""The report of one run: its folder in, one HTML page out. No torch, no network, no script."""
