"""`kill -9` at any moment, inside a save too, then the same command again: the run ends bit-identical."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from metashot.engine.training.checkpoint import checkpoint_folders, verify

HERE = Path(__file__).parent
STEPS = 40


@pytest.fixture(scope="module")
def server() -> Any:
    sys.path.insert(0, str(HERE))
    try:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(
            ["torch", "metashot.engine.training.loop", "toy_learner", "kill_child"]
        )
        spec = importlib.util.spec_from_file_location("kill_child", HERE / "kill_child.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["kill_child"] = module
        spec.loader.exec_module(module)
        yield context, module.train
    finally:
        sys.path.remove(str(HERE))


def final_files(folder: Path) -> dict[str, Any]:
    newest = checkpoint_folders(folder)[-1]
    assert newest.name == f"step-{STEPS:08d}"
    return verify(newest)["files"]


def run_with_kills(
    server: Any, folder: Path, kills: int, draw: random.Random, whole_seconds: float
) -> dict[str, int]:
    """Start again after every kill until the run ends; counts what the kills hit."""
    context, target = server
    seen = {"kills": 0, "in a save": 0, "restarts": 0}
    while True:
        child = start(context, target, folder)
        if seen["kills"] < kills:
            child.join(draw.uniform(0.0, 0.3) * whole_seconds)
            if child.is_alive():
                assert child.pid is not None
                os.kill(child.pid, signal.SIGKILL)
                seen["kills"] += 1
        child.join()
        seen["in a save"] += any(folder.glob(".step-*.tmp"))
        seen["restarts"] += 1
        if child.exitcode == 0:
            return seen


def newest(folder: Path) -> Path | None:
    return checkpoint_folders(folder)[-1] if checkpoint_folders(folder) else None


def start(context: Any, target: Any, folder: Path) -> Any:
    """A child that has trained at least one step further and saved it, or ended."""
    before = newest(folder)
    child = context.Process(target=target, args=(str(folder), STEPS))
    child.start()
    while child.is_alive() and newest(folder) == before:
        time.sleep(0.001)
    return child


def whole_run(server: Any, folder: Path) -> tuple[dict[str, Any], float]:
    context, target = server
    seconds = 0.0
    for attempt in range(2):  # the first start also warms the server
        where = folder / str(attempt)
        child = start(context, target, where)
        started = time.monotonic()
        child.join()
        assert child.exitcode == 0
        seconds = time.monotonic() - started
    return final_files(folder / "1"), seconds


def check_kills(server: Any, tmp_path: Path, kills: int, seed: int) -> dict[str, int]:
    expected, seconds = whole_run(server, tmp_path / "whole")
    draw = random.Random(seed)
    total = {"kills": 0, "in a save": 0, "restarts": 0}
    round_number = 0
    while total["kills"] < kills:
        folder = tmp_path / f"round{round_number}"
        seen = run_with_kills(server, folder, kills - total["kills"], draw, seconds)
        assert final_files(folder) == expected
        assert not list(folder.glob(".step-*"))
        total = {key: total[key] + seen[key] for key in total}
        round_number += 1
    return total


@pytest.mark.slow
def test_a_few_kills_at_random_moments_end_bit_identical(server: Any, tmp_path: Path) -> None:
    assert check_kills(server, tmp_path, kills=4, seed=1)["kills"] == 4


@pytest.mark.slow
def test_fifty_kills_at_random_moments_some_inside_a_save_end_bit_identical(
    server: Any, tmp_path: Path
) -> None:
    total = check_kills(server, tmp_path, kills=50, seed=2)
    print(total)
    assert total["kills"] == 50
    assert total["in a save"] > 0
