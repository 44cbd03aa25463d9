"""What both methods run on: models, scorer, optimizers, loop, checkpoints, tracking and results."""
