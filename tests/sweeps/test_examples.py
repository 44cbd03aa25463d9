"""The launcher commands of experiments/sweeps/README.md, on random weights; SLURM's own programs are small scripts."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECTION = (ROOT / "experiments" / "sweeps" / "README.md").read_text().split("### One sweep, any launcher")[1]
COMMANDS = [shlex.split(text) for text in re.findall(r"`python run\.py (-m [^`]*)`", SECTION.split("\n#")[0])]
SMALL = {
    "lab_order": ("selection.order=0,1",),
    "search_demo": ("hydra.sweeper.search.n_trials=2", "method=direct,channel"),
}

SLURM = {
    "sbatch": """#!/bin/bash
        cp "$1" {folder}/submitted
        export SLURM_ARRAY_JOB_ID=7 SLURM_NTASKS=1 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0
        for task in 0 1; do
            SLURM_JOB_ID=$((8 + task)) SLURM_ARRAY_TASK_ID=$task bash "$1" > {folder}/task$task 2>&1 &
        done
        echo Submitted batch job 7""",
    "srun": """#!/bin/bash
        while [ "$1" != {python} ]; do shift; done
        exec "$@" """,
    "sacct": """#!/bin/bash
        echo 'JobID|State|NodeList'""",
}
ASKED_OF_SLURM = {
    "#SBATCH --array=0-1%2",
    "#SBATCH --partition=gpu",
    "#SBATCH --time=720",
    "#SBATCH --gpus-per-node=1",
    "#SBATCH --cpus-per-task=8",
    "#SBATCH --mem=64GB",
    "#SBATCH --signal=USR2@120",
}


def launcher_of(command):
    chosen = [word.partition("=")[2] for word in command if word.startswith("hydra/launcher=")]
    return chosen[0] if chosen else "basic"


def name_of(command):
    return f"{command[1].partition('=')[2]}-{launcher_of(command)}"


@pytest.fixture
def run_example(tmp_path):
    """`run_example(command)` runs it on the tiny model; returns the sweep's folder and its records."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in SLURM.items():
        (programs / name).write_text(text.format(folder=tmp_path, python=sys.executable))
        (programs / name).chmod(0o755)

    def run(command):
        small = SMALL[command[1].partition("=")[2]]
        arguments = [*command, *small, "debug=smoke", f"results_root={tmp_path / 'results'}"]
        environment = os.environ | {
            "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
            "HOME": str(tmp_path), "PATH": f"{programs}:{os.environ['PATH']}",
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "run.py", *arguments],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        (header,) = tmp_path.rglob("ledger/ledger.json")
        paths = [path for path in header.parent.glob("*.json") if path != header]
        return header.parent.parent, [json.loads(path.read_text()) for path in paths]

    return run


def test_every_launcher_and_the_search_have_an_example():
    assert [name_of(command) for command in COMMANDS] == [
        "lab_order-basic",
        "lab_order-joblib",
        "lab_order-submitit_local",
        "lab_order-slurm",
        "lab_order-ray_local",
        "search_demo-basic",
        "search_demo-joblib",
    ]


def examples():
    """Those that the sweeps of `test_multirun.py` also cover, or that take long, are left to `make test-slow`."""
    slow = ("lab_order-joblib", "lab_order-submitit_local", "search_demo-joblib")
    for command in COMMANDS:
        marks = [pytest.mark.slow] if name_of(command) in slow else []
        yield pytest.param(command, id=name_of(command), marks=marks)


@pytest.mark.slow
@pytest.mark.parametrize("command", examples())
def test_an_example_runs(command, run_example, tmp_path):
    plugin = {"joblib": "joblib", "submitit_local": "submitit", "slurm": "submitit", "ray_local": "ray"}
    if launcher_of(command) in plugin:
        pytest.importorskip(f"hydra_plugins.hydra_{plugin[launcher_of(command)]}_launcher")
    if "search_demo" in command[1]:
        pytest.importorskip("optuna")
    folder, records = run_example(command)
    assert len(records) == 2
    for record in records:
        assert record["state"] == "finished"
        assert record["attempts"] == 1
        job = Path(record["folder"])
        assert job.parent == folder
        assert len((job / "results.jsonl").read_text().splitlines()) == 2  # tasks
    assert (tmp_path / "submitted").exists() == (launcher_of(command) == "slurm")
    if launcher_of(command) == "slurm":
        assert set((tmp_path / "submitted").read_text().splitlines()) >= ASKED_OF_SLURM
