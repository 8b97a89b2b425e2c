"""Programs for another environment than ours: they import nothing of this package."""
