"""Adapters in a form that other tools read."""
