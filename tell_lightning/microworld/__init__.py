"""The embedded default: a small generated world and the base model that half knows it."""
