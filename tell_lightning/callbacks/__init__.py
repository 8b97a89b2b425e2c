"""What happens around the training loop: scores, checkpoints, logs and the run record."""
