"""Prompts in, answers out: greedy, batched, the same as one by one."""
