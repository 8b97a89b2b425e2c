"""From data files to batches of tokens. Each stage is a file; later stages import earlier ones."""
