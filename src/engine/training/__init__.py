"""The training loop and what it stands on: optimizers, checkpoints, ranks, random state."""
