"""A signal in any stage ends the run as interrupted: no result, an exit status that says so, and a way to go on."""

import json
import os
import signal
import subprocess
import sys

import pytest

TRAIN = (
    "stage=[train,evaluate]", "model=tiny", "method=metaicl", "data=synthetic", "data.train_tasks=4", "data.target_tasks=1",
    "data.test_size=4", "k=2", "seeds=[100]", "trainer.steps=400", "trainer.evaluate_every=0", "trainer.log_every=1",
    "logger=jsonl",
)  # fmt: skip


def status(folder):
    return json.loads((folder / "run.json").read_text())["status"]


@pytest.mark.slow
def test_a_sigterm_in_training_is_no_success_and_the_same_command_goes_on(start, tmp_path, wait_for):
    out = tmp_path / "out"
    process = start(*TRAIN, f"hydra.run.dir={out}")
    wait_for(process, out / "metrics.jsonl", '"step": 3,')
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 143, stderr
    assert "interrupted: SIGTERM after step" in stderr
    assert status(out) == "interrupted"
    assert not (out / "results.jsonl").exists()
    assert not (out / "summary.json").exists()
    (checkpoint,) = (out / "checkpoints").glob("step-*")
    assert int(checkpoint.name.removeprefix("step-")) < 400

    process = start(*TRAIN, f"hydra.run.dir={out}")
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert status(out) == "finished"
    assert (out / "checkpoints" / "step-00000400").is_dir()
    assert (out / "summary.json").is_file()


@pytest.mark.slow
def test_ctrl_c_stops_a_sweep_and_leaves_the_job_to_run(start, tmp_path, wait_for):
    sweep = ("-m", *TRAIN, "trainer.seed=1,2", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    process = start(*sweep)
    wait_for(process, tmp_path / "sweep" / "0" / "metrics.jsonl", '"step": 3,')
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    states = {
        record["number"]: record["state"]
        for path in (tmp_path / "sweep" / "ledger").glob("*.json")
        if "number" in (record := json.loads(path.read_text()))
    }
    assert states == {0: "interrupted", 1: "waiting"}
    assert status(tmp_path / "sweep" / "0") == "interrupted"
    assert not (tmp_path / "sweep" / "1").exists()


STOPPED = """
import signal
from metashot.engine.training.signals import Interrupted
from metashot.stages.endings import one_line_errors
with one_line_errors():
    raise Interrupted(signal.SIGTERM, "after step 3")
"""


@pytest.mark.parametrize(("sweep", "code"), [(None, 143), ("sw0", -signal.SIGTERM)])
def test_a_job_of_a_wandb_agent_dies_of_the_signal_since_a_status_above_0_is_a_failure_there(sweep, code):
    environment = {key: value for key, value in os.environ.items() if key != "WANDB_SWEEP_ID"}
    environment |= {"WANDB_SWEEP_ID": sweep} if sweep else {}
    done = subprocess.run(
        [sys.executable, "-c", STOPPED], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == code
    assert done.stderr.startswith("interrupted: SIGTERM after step 3 (")
