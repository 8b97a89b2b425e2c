"""Generation: prompts in, answers out, in batches."""
