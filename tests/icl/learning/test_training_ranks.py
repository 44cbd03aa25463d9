"""Two gloo processes train what one does, stop together, resume bit-identical, and go on from each other's checkpoints."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from metashot.engine.training.checkpoint import checkpoint_folders, read_checkpoint, verify

CHILD = Path(__file__).with_name("ranks_child.py")


def launch(folder: Path, ranks: int, stop_step: int = 0, dies_at: int = 0, shard: bool = False) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "STOPS": str(ranks - 1),
        "DIES": str(dies_at),
        "SHARD": "1" if shard else "",
    }
    done = subprocess.run(
        [*command, str(CHILD), str(folder), str(stop_step)],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (done.returncode != 0) == bool(dies_at), done.stderr[-3000:]


def run_child_here(folder: Path) -> None:
    spec = importlib.util.spec_from_file_location("ranks_child", CHILD)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    original = module.MetaLearner.train_step
    try:
        module.main(folder, 0)
    finally:
        module.MetaLearner.train_step = original


def last(folder: Path) -> Path:
    return checkpoint_folders(folder / "checkpoints")[-1]


def said_by_each_rank(folder: Path) -> list[str]:
    return [(folder / f"said-{rank}.txt").read_text() for rank in range(2)]


@pytest.mark.slow
def test_two_ranks_equal_one_stop_together_resume_and_change_their_number(tmp_path: Path) -> None:
    run_child_here(tmp_path / "one")
    launch(tmp_path / "two", 2)
    one, two = read_checkpoint(last(tmp_path / "one")), read_checkpoint(last(tmp_path / "two"))
    for name, tensor in one.weights.items():
        torch.testing.assert_close(two.weights[name], tensor, atol=1e-5, rtol=1e-4)
    assert one.state["cursor"]["sequences"] == two.state["cursor"]["sequences"] == 40
    assert one.state["cursor"]["target_tokens"] == two.state["cursor"]["target_tokens"]
    drawn = [(tmp_path / "two" / f"drawn-{rank}.txt").read_text() for rank in range(2)]
    assert drawn[0] != drawn[1], "dropout would hit the same places on both ranks"
    assert drawn[0] == (tmp_path / "one" / "drawn-0.txt").read_text()

    launch(tmp_path / "resumed", 2, stop_step=5)
    assert said_by_each_rank(tmp_path / "resumed") == ["SIGTERM after step 5 of 10, which is saved"] * 2
    launch(tmp_path / "resumed", 2)
    assert said_by_each_rank(tmp_path / "resumed") == ["finished 10"] * 2
    whole: Any = verify(last(tmp_path / "two"))["files"]
    assert verify(last(tmp_path / "resumed"))["files"] == whole

    # The same checkpoint by one process, and one process' checkpoint by two.
    for name, ranks in (("two-then-one", (2, 1)), ("one-then-two", (1, 2))):
        folder = tmp_path / name
        for count, stop_step in zip(ranks, (5, 0), strict=True):
            launch(folder, count, stop_step)
        changed = read_checkpoint(last(folder))
        assert changed.state["cursor"]["target_tokens"] == one.state["cursor"]["target_tokens"]
        assert sequences_by_step(folder) == sequences_by_step(tmp_path / "one")
        for weight, tensor in one.weights.items():
            torch.testing.assert_close(changed.weights[weight], tensor, atol=1e-5, rtol=1e-4)


def sequences_by_step(folder: Path) -> dict[int, set[int]]:
    """Which sequences all ranks together trained on in each step, each once."""
    steps: dict[int, list[int]] = {}
    for path in folder.glob("seen-*.jsonl"):
        for step, numbers in map(json.loads, path.read_text().splitlines()):
            steps.setdefault(step, []).extend(numbers)
    assert {len(numbers) for numbers in steps.values()} == {4}
    return {step: set(numbers) for step, numbers in steps.items()}


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_launch_within_a_minute_and_its_checkpoint_goes_on(
    tmp_path: Path,
) -> None:
    launch(tmp_path / "whole", 2)
    launch(tmp_path / "died", 2, dies_at=5)
    assert time.time() - (tmp_path / "died" / "killed").stat().st_mtime < 60
    assert last(tmp_path / "died").name == "step-00000004"
    launch(tmp_path / "died", 2)
    assert verify(last(tmp_path / "died"))["files"] == verify(last(tmp_path / "whole"))["files"]


@pytest.mark.slow
def test_two_ranks_with_half_of_every_weight_train_and_save_as_one_with_all(tmp_path: Path) -> None:
    run_child_here(tmp_path / "one")
    launch(tmp_path / "sharded", 2, stop_step=5, shard=True)
    launch(tmp_path / "sharded", 2, shard=True)
    launch(tmp_path / "then-one", 2, stop_step=5, shard=True)
    launch(tmp_path / "then-one", 1)
    one = read_checkpoint(last(tmp_path / "one"))
    for name in ("sharded", "then-one"):
        found = read_checkpoint(last(tmp_path / name))
        assert found.weights.keys() == one.weights.keys()
        for weight, tensor in one.weights.items():
            torch.testing.assert_close(found.weights[weight], tensor, atol=1e-5, rtol=1e-4)
