"""A 24-job multirun killed at 20 random moments ends as if it had never been killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SWEEP = (
    "model=tiny",
    "method=direct,channel,zero,pmi",
    "k=1,2",
    "seeds=[100],[13],[21]",
    "data.tasks=[demo-spam]",
)
KILLS = 20


def start(results_root, output=subprocess.DEVNULL):
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    command = [
        sys.executable,
        "run.py",
        "-m",
        *SWEEP,
        f"results_root={results_root}",
        "hydra.sweep.dir=${results_root}/sweep",
    ]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def outcome(results_root):
    """(overrides less the root -> state, figure, results rows) of every job."""
    jobs = {}
    for path in (results_root / "sweep" / "ledger").glob("*.json"):
        record = json.loads(path.read_text())
        if "overrides" not in record:
            continue
        rows = (results_root / "sweep" / str(record["number"]) / "results.jsonl").read_text().splitlines()
        key = tuple(sorted(word for word in record["overrides"] if "results_root" not in word))
        assert key not in jobs
        jobs[key] = (record["state"], record["figure"], [json.loads(row) for row in rows])
    return jobs


def predictions(results_root):
    """Every prediction in order, and every score."""
    files = sorted(results_root.glob("sweep/*/predictions.jsonl"), key=lambda path: int(path.parent.name))
    rows = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    scores = [score for row in rows for score in row["nll"]]
    return [(row["fingerprint"], row["seed"], row["index"], row["prediction"]) for row in rows], scores


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_random_moments_it_ends_as_if_never_killed(tmp_path):
    whole = start(tmp_path / "whole", subprocess.PIPE)
    text, _ = whole.communicate(timeout=600)
    assert whole.returncode == 0, text

    generator = random.Random(0)
    finished = []
    for _ in range(KILLS):
        process = start(tmp_path / "killed", subprocess.PIPE)
        jobs_to_see = generator.choice([0, 0, 1, 1, 2, 3])
        for line in process.stdout:
            if jobs_to_see == 0:
                break
            jobs_to_see -= "output folder:" in line
        time.sleep(generator.uniform(0, 1.0))
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        ledger = tmp_path / "killed" / "sweep" / "ledger"
        finished.append(sum('"state": "finished"' in path.read_text() for path in ledger.glob("*.json")))
    assert finished == sorted(finished)
    last = start(tmp_path / "killed", subprocess.PIPE)
    text, _ = last.communicate(timeout=600)
    print("finished after each kill:", finished)
    assert last.returncode == 0, text

    expected, found = outcome(tmp_path / "whole"), outcome(tmp_path / "killed")
    assert len(expected) == len(found) == 24
    assert found == expected
    assert all(state == "finished" for state, _, _ in found.values())
    assert all(len(rows) == 1 for _, _, rows in found.values())
    (answers, scores), (expected_answers, expected_scores) = map(
        predictions, (tmp_path / "killed", tmp_path / "whole")
    )
    assert answers == expected_answers
    # Two processes may round a matrix product differently in the last bit.
    assert scores == pytest.approx(expected_scores, abs=1e-5)
