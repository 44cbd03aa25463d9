"""`experiments/metaicl_demo` runs end to end at a toy size: every method and k has its row, table and plot are written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_demo_writes_rows_table_and_plot(tmp_path):
    sizes = "--base-steps 2 --steps 2 --batch 8 --train-tasks 16 --target-tasks 2 --test-size 4"
    subprocess.run(
        [
            sys.executable, REPOSITORY / "experiments/metaicl_demo/run_demo.py", *sizes.split(),
            "--seeds", "1", "2", "--workers", "1", "--output", tmp_path,
        ],
        check=True,
        cwd=tmp_path,
        env={**os.environ},
    )  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    with_demonstrations = {"Raw, in context", "Raw, channel in context", "MetaICL", "Channel MetaICL"}
    zero_shot = {"Multi-task 0-shot", "Channel Multi-task 0-shot"}
    expected = {(name, k) for name in with_demonstrations for k in (0, 1, 2, 4)} | {(n, 0) for n in zero_shot}
    for seed in (1, 2):
        assert {(row["method"], row["k"]) for row in rows if row["seed"] == seed} == expected
    assert all(0 <= row["accuracy"] <= 1 for row in rows)
    table = (tmp_path / "table.md").read_text()
    assert all(f"| {name} |" in table for name in with_demonstrations | zero_shot)
    assert (tmp_path / "accuracy.svg").read_text().startswith("<?xml")
