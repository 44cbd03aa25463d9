"""One run of two processes, as a user starts it: one folder, one table, every cell once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

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
