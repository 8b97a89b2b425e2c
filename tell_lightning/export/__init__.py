"""Adapters and answers in a form that other tools read."""
