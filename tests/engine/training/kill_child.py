"""A training run in a process of its own, to be killed at any moment: `train(folder)` in a fork of a warm server."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))


def train(folder: str, steps: int) -> None:
    import torch
    from toy_learner import ToyLearner

    from metashot.engine.training.checkpoint import CheckpointStore
    from metashot.engine.training.loop import LoopConfig, run_training

    torch.set_num_threads(1)
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    settings = LoopConfig(steps=steps, save_every=1, evaluate_every=7, progress=False)
    run_training(ToyLearner(steps), settings, CheckpointStore(Path(folder), {"lr": 0.01}))
