"""One rank of a meta-training run: `ranks_child.py <folder> <stop step or 0>`, started by torchrun."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

sys.path.insert(0, str(Path(__file__).parent))

import training_helpers as kit

from metashot.engine.training.ranks import rank, world_size
from metashot.engine.training.signals import Interrupted
from metashot.icl.learning.held_out import HeldOutConfig
from metashot.icl.learning.meta_learner import MetaLearner
from metashot.icl.learning.meta_training import train


def main(folder: Path, stop_step: int) -> None:
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    original = MetaLearner.train_step

    def train_step(self: MetaLearner, step: int) -> Any:
        report = original(self, step)
        sequences = self._stream.micro_batches(step, world_size(), rank(), 1)
        numbers = [one.index for part in sequences for one in part]
        with (folder / f"seen-{rank()}.jsonl").open("a") as seen:
            seen.write(json.dumps([step, numbers]) + "\n")
        if step + 1 == int(os.environ.get("DIES", "0")) and rank() == world_size() - 1:
            (folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        # One rank alone gets the signal; all must stop at the same step.
        if step + 1 == stop_step and os.environ.get("RANK", "0") == os.environ.get("STOPS", "1"):
            os.kill(os.getpid(), signal.SIGTERM)
        return report

    MetaLearner.train_step = train_step
    settings = kit.settings(
        loop={"steps": 10, "evaluate_every": 4, "save_every": 2},
        episodes={"micro_batch_size": 1},
        held_out=HeldOutConfig(k=2, test_examples=2),
    )
    tasks = kit.SOURCE.training_tasks(), kit.SOURCE.testing_tasks()
    if os.environ.get("SHARD"):
        Accelerator.prepare = kit.sharding
    try:
        outcome = train(settings, kit.tiny("llama"), kit.SOURCE, *tasks, folder)
    except Interrupted as stop:
        said = str(stop)
    else:
        said = f"{outcome.stopped_by} {outcome.step}"
    # A file for each rank: lines of two processes on one pipe interleave.
    (folder / f"said-{os.environ.get('RANK', '0')}.txt").write_text(said)
    # The model draws nothing, so the stream still stands where training seeded it.
    (folder / f"drawn-{os.environ.get('RANK', '0')}.txt").write_text(str(torch.rand(4).tolist()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
