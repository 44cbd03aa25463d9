"""One rank of a meta-training run: `ranks_child.py <folder> <stop step or 0>`, started by torchrun."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))

import training_helpers as kit

from metashot.engine.training.signals import Interrupted
from metashot.icl.held_out import HeldOutConfig
from metashot.icl.meta_training import MetaLearner, train


def main(folder: Path, stop_step: int) -> None:
    torch.set_num_threads(1)
    original = MetaLearner.train_step

    def train_step(self: MetaLearner, step: int) -> Any:
        report = original(self, step)
        # One rank alone gets the signal; all must stop at the same step.
        if step + 1 == stop_step and os.environ.get("RANK", "0") == "1":
            os.kill(os.getpid(), signal.SIGTERM)
        return report

    MetaLearner.train_step = train_step
    settings = kit.settings(
        loop={"steps": 10, "evaluate_every": 4},
        episodes={"micro_batch_size": 1},
        held_out=HeldOutConfig(k=2, test_examples=2),
    )
    tasks = kit.SOURCE.training_tasks(), kit.SOURCE.testing_tasks()
    try:
        outcome = train(settings, kit.tiny("llama"), kit.SOURCE, *tasks, folder)
    except Interrupted as stop:
        said = str(stop)
    else:
        said = f"{outcome.stopped_by} {outcome.step}"
    # A file for each rank: lines of two processes on one pipe interleave.
    (folder / f"said-{os.environ.get('RANK', '0')}.txt").write_text(said)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
