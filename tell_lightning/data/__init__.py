"""From files of text to batches of tokens; each stage is a file, and they depend one way."""
