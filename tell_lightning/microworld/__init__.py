"""The demo: a small generated world, and a base model that knows half of it."""
