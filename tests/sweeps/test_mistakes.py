"""Mistakes in what a sweep is told: one line, exit status 2, no job started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MISTAKES = [
    (["method=direct,chanel"], "error: method: no choice 'chanel' (did you mean 'channel'?)"),
    (["methodd=direct,channel"], "error: methodd: unknown key (did you mean 'method'?)"),
    (["+hydra.sweeper.params={methodd:'a,b'}"], "error: methodd: unknown key (did you mean 'method'?)"),
    (["hydra.sweeper.params={k:'1,2'}"], "unknown key (to add it, write +hydra.sweeper.params.k=<value>)"),
    (['hydra.sweeper.rows=[["k=1"]]'], "error: hydra.sweeper.rows: unknown key (one of: _target_, paired, params, runs"),
    (["hydra.sweeper.runs=[[k=1]]"], "error: hydra.sweeper.runs=[[k=1]]: cannot be parsed as an override"),
    (["k=1,2", "hydra.sweeper.paired=[seeds]"], "error: hydra.sweeper.paired: 'seeds' is not swept over"),
    (
        ["k=1,2", "truncation=shared,per_option,shared", "hydra.sweeper.paired=[k,truncation]"],
        "error: hydra.sweeper.paired: k has 2, truncation has 3 values (give as many of each)",
    ),
    (
        ["experiment=demo,with_launcher", "--config-dir", "{folder}"],
        "error: hydra/launcher: one job asks for 'joblib', the sweep for 'basic' (write hydra/launcher=joblib)",
    ),
    (["hydra.sweeper.search.trials=2"], "unknown key (did you mean 'n_trials'?)"),
    (["hydra.sweeper.search.n_trials=2", "k=1,2", "hydra.sweeper.search.sampler=tpee"], "no sampler is called"),
    (["k=1,2", "hydra.sweep.dir={folder}"], "ledger.json: is not a ledger of metashot format 1"),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "message"), MISTAKES, ids=[row[0][0] for row in MISTAKES])
def test_a_mistake_is_one_line_and_starts_no_job(tmp_path, overrides, message):
    if "sampler" in overrides[-1]:
        pytest.importorskip("optuna")
    (tmp_path / "ledger").mkdir()
    (tmp_path / "experiment").mkdir()
    own = "# @package _global_\ndefaults: [{override /hydra/launcher: joblib}]\n"
    (tmp_path / "experiment" / "with_launcher.yaml").write_text(own)
    (tmp_path / "ledger" / "ledger.json").write_text('{"project": "other"}')
    words = [word.replace("{folder}", str(tmp_path)) for word in overrides]
    done = subprocess.run(
        [sys.executable, "run.py", "-m", "debug=smoke", f"results_root={tmp_path / 'results'}", *words],
        cwd=ROOT, env=os.environ , capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not list(tmp_path.rglob("run.json"))
