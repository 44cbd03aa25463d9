"""The command asks Hydra for a run or a multirun, whoever says which it is."""

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_a_multirun_that_a_file_asks_for_is_one(tmp_path):
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "mine.yaml").write_text(
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      k: 1,2\n"
    )
    arguments = ["--config-dir", str(tmp_path), "debug=smoke", f"results_root={tmp_path}", "experiment=mine"]
    done = subprocess.run([sys.executable, "run.py", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 jobs: 2 finished" in done.stdout
