"""One run of two processes, as a user starts it: one folder, one table, every cell once."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SMALL = (
    "data=synthetic", "data.train_tasks=4", "data.target_tasks=3", "data.test_size=4", "method=metaicl", "model=tiny", "k=2",
    "seeds=[100]", "trainer.steps=2", "trainer.save_every=0", "trainer.evaluate_every=0", "trainer.pool_size=8",
    "trainer.progress=false",
)  # fmt: skip


def launch(root: Path, *overrides: str, ranks: int = 2) -> subprocess.CompletedProcess[str]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    return subprocess.run(
        [*torchrun, "run.py", *SMALL, f"results_root={root}", *overrides],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_train_and_evaluate_share_one_folder_and_the_cells(tmp_path: Path) -> None:
    done = launch(tmp_path, "stage=[train,evaluate]")
    assert done.returncode == 0, done.stderr[-3000:]
    (folder,) = (path for path in (tmp_path / "runs").glob("*/*"))
    assert done.stdout.count("output folder:") == 1
    assert done.stdout.count("2 steps, finished") == 1
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert len({row["task"] for row in rows}) == len(rows) == 3
    cost = json.loads((folder / "run.json").read_text())["cost"]
    assert (cost["computed_cells"], cost["reused_cells"]) == (3, 0)


def alone(root: Path, *overrides: str) -> str:
    """The same command by one process; what it prints."""
    done = subprocess.run(
        [sys.executable, "run.py", *SMALL, f"results_root={root}", *overrides],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    return done.stdout


def answers(folder: Path) -> list[tuple[Any, ...]]:
    lines = (folder / "predictions.jsonl").read_text().splitlines()
    rows = sorted(map(json.loads, lines), key=lambda row: (row["task"], row["seed"], row["index"]))
    return [(row["task"], row["seed"], row["index"], row["prediction"], row["nll"]) for row in rows]


def assert_same_answers(one: Path, other: Path) -> None:
    first, second = answers(one), answers(other)
    assert [row[:4] for row in first] == [row[:4] for row in second]
    assert (
        max(abs(x - y) for a, b in zip(first, second, strict=True) for x, y in zip(a[4], b[4], strict=True))
        < 1e-4
    )


@pytest.mark.slow
def test_the_rows_of_one_cell_are_shared_and_equal_those_of_one_process(tmp_path: Path) -> None:
    one = ("data.target_tasks=1", "data.test_size=9", "method=direct")
    done = launch(tmp_path / "two", *one, f"hydra.run.dir={tmp_path}/both")
    assert done.returncode == 0, done.stderr[-3000:]
    alone(tmp_path / "one", *one, f"hydra.run.dir={tmp_path}/alone")
    assert_same_answers(tmp_path / "both", tmp_path / "alone")
    cost, less = (
        json.loads((tmp_path / name / "run.json").read_text())["cost"] for name in ("both", "alone")
    )
    # Both have computed the demonstrations, which one process computes once.
    assert cost["tokens_computed"] > less["tokens_computed"]
    assert (cost["computed_cells"], cost["tokens_naive"]) == (1, less["tokens_naive"])
    assert not list((tmp_path / "two" / "rows").iterdir())


@pytest.mark.slow
def test_sampled_answers_are_those_of_one_process(tmp_path: Path) -> None:
    """Seeds are those of prompts: neither the processes nor the pieces that they take change an answer."""
    sampled = (
        "data=demo", "data.tasks=[demo-word_problems]", "method=generate", "method.samples=3", "method.temperature=1",
        "method.max_new_tokens=8", "method.batch_size=4", "data.train_tasks=[]",
    )  # fmt: skip
    small = [one for one in SMALL if one.startswith(("model", "k=", "seeds"))]
    runs: dict[str, str] = {}
    for name, start in (
        ("both", ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]),
        ("alone", []),
    ):
        subprocess.run(
            [sys.executable, *start, "run.py", *small, *sampled, f"results_root={tmp_path}/{name}", f"hydra.run.dir={tmp_path}/{name}/run"],
            cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}, timeout=300, check=True,
        )  # fmt: skip
        runs[name] = (tmp_path / name / "run" / "predictions.jsonl").read_text()
        cost = json.loads((tmp_path / name / "run" / "run.json").read_text())["cost"]
        assert cost["tokens_generated"] > 90
    assert runs["both"] == runs["alone"]


@pytest.mark.slow
def test_a_launch_of_which_one_process_is_killed_ends_soon_and_the_next_run_does_what_is_left(
    tmp_path: Path,
) -> None:
    many = ("data.target_tasks=6", "data.test_size=40", "method=direct", "seeds=[100,13,21,42,87]")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    started = subprocess.Popen(
        [*torchrun, "run.py", *SMALL, *many, f"results_root={tmp_path}/root", f"hydra.run.dir={tmp_path}/killed"],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    deadline = time.monotonic() + 200
    while not list((tmp_path / "root" / "cells").glob("*/*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.01)
    ranks = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
    os.kill(int(ranks[-1]), signal.SIGKILL)
    since = time.monotonic()
    started.communicate(timeout=100)
    while any(Path(f"/proc/{process}").exists() for process in ranks) and time.monotonic() - since < 60:
        time.sleep(0.01)
    assert time.monotonic() - since < 60
    assert started.returncode != 0
    # Seeds that show the same rows share one file, so there are fewer files than cells.
    cells = tmp_path / "root" / "cells"
    stored = len(list(cells.glob("*/*.jsonl")))
    again = alone(tmp_path / "root", *many, f"hydra.run.dir={tmp_path}/killed")
    (reused,) = re.findall(r"(\d+) of 30 cells are stored already", again)
    assert 0 < stored <= int(reused) < 30
    cost = json.loads((tmp_path / "killed" / "run.json").read_text())["cost"]
    assert cost["computed_cells"] == len(list(cells.glob("*/*.jsonl"))) - stored
    alone(tmp_path / "fresh", *many, f"hydra.run.dir={tmp_path}/fresh-run")
    assert_same_answers(tmp_path / "killed", tmp_path / "fresh-run")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (("stage=train", "trainer.batch_size=7"), "7 sequences cannot be shared evenly by 2 processes"),
        (("stage=train", "trainer.batch_size=1"), "1 sequences cannot be shared evenly by 2 processes"),
        (("-m", "k=1,2"), "one launch of several processes runs one job"),
    ],
)
def test_what_two_processes_cannot_do_is_one_line(
    tmp_path: Path, overrides: tuple[str, ...], line: str
) -> None:
    done = launch(tmp_path, *overrides)
    assert done.returncode != 0
    assert done.stderr.count(line) == 1
    assert not list(tmp_path.rglob("run.json"))
