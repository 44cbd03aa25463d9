"""The real `wandb sweep` and `wandb agent` run the shipped sweep files against a loopback server."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
SWEEPS = sorted((ROOT / "experiments" / "wandb_sweep").glob("*.yaml"))
CELLS = 1200
"""Cells of a run that is stopped: half a minute on an idle core; an agent asks its server every few seconds, and 400 cells were over before it did."""
KNOWN = {"program", "method", "project", "metric", "parameters", "command", "run_cap", "early_terminate"}


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_sweep_files_name_what_run_py_logs(path):
    sweep = yaml.safe_load(path.read_text())
    assert set(sweep) <= KNOWN
    assert sweep["method"] == path.stem
    assert sweep["metric"] == {"name": "eval/mean_percent", "goal": "maximize"}
    assert "${args_no_hyphens}" in sweep["command"]
    assert not any("parameters" in parameter for parameter in sweep["parameters"].values())


@pytest.fixture
def agent(tmp_path, wandb_server, _wandb_home):
    """`agent(sweep, fixed)` creates the sweep with the real client and runs a real agent; returns its output."""
    environment = os.environ | wandb_server.environment
    environment |= {"HF_HUB_OFFLINE": "1", "WANDB_DIR": str(tmp_path)}
    environment["WANDB_AGENT_MAX_INITIAL_FAILURES"] = (
        "1"  # one job that counts as failed, and no other is begun
    )
    environment["WANDB__FILE_STREAM_TRANSMIT_INTERVAL"] = "0.2"

    def wandb(*arguments):
        command = [str(Path(sys.executable).parent / "wandb"), *arguments]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
        return done.stdout + done.stderr

    def run(sweep, *fixed):
        fixed = [*fixed, f"results_root={tmp_path / 'results'}"]
        command = [*sweep["command"][:-1], *fixed, sweep["command"][-1]]
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep | {"command": command}))
        assert "lab/metashot/sweeps/sw0" in wandb(
            "sweep", "--project", "metashot", str(tmp_path / "sweep.yaml")
        )
        return wandb("agent", "lab/metashot/sw0")

    return run


def swept_runs(store):
    """(config, summary) of every run of the sweep, as the server has them."""
    for name, run in store.runs.items():
        if run.get("sweep"):
            config = {
                key: part["value"] for key, part in json.loads(run["config"]).items() if "value" in part
            }
            yield config, last_summary(store, name)


def last_summary(store, name):
    return json.loads(store.streams.get(name, {}).get("wandb-summary.json", ["{}"])[-1])


def shipped(name):
    return yaml.safe_load((ROOT / "experiments" / "wandb_sweep" / f"{name}.yaml").read_text())


@pytest.mark.slow
def test_an_agent_runs_the_grid(agent, wandb_server):
    """Two methods on one task with random weights; everything else as in grid.yaml."""
    sweep = shipped("grid")
    first = {name: {"values": part["values"][:1]} for name, part in sweep["parameters"].items()}
    sweep["parameters"] = first | {"method": {"values": sweep["parameters"]["method"]["values"][:2]}}
    output = agent(sweep, "model=tiny", "data.tasks=[demo-spam]")
    runs = list(swept_runs(wandb_server.store))
    assert len(runs) == 2, output
    for config, summary in runs:
        assert (config["k"], config["model.name"]) == (4, "tiny")
        assert 0 <= summary["eval/worst_percent"] <= summary["eval/mean_percent"] <= 100
        assert "eval/demo-spam/macro_f1_percent" in summary
    assert {config["method.name"] for config, _ in runs} == {"direct", "channel"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["random", "bayes"])
def test_an_agent_trains_at_the_point_that_the_server_proposes(agent, wandb_server, name):
    """One run of two steps on random weights; everything else as in the file."""
    output = agent(shipped(name) | {"run_cap": 1}, "debug=smoke")
    sent = yaml.safe_load(wandb_server.store.sweeps["sw0"]["config"])
    assert sent["method"] == name
    assert sent["parameters"]["optimizer.learning_rate"]["distribution"] == "log_uniform_values"
    runs = list(swept_runs(wandb_server.store))
    assert len(runs) == 1, output
    ((config, summary),) = runs
    assert config["optimizer.learning_rate"] == pytest.approx(math.sqrt(1e-5 * 1e-2))
    assert (config["k"], config["method.name"]) == (4, "metaicl")
    assert 0 <= summary["eval/worst_percent"] <= summary["eval/mean_percent"] <= 100
    assert "train/loss" in summary


@pytest.mark.slow
def test_a_run_that_the_server_stops_early_is_interrupted_and_the_next_goes_on(agent, wandb_server, tmp_path):
    """bayes.yaml as it is; the server gives the first run `min_iter` values of the metric, the second as many as it likes."""
    sweep = shipped("bayes") | {"run_cap": 2}
    wandb_server.store.stop_after["r1"] = sweep["early_terminate"]["min_iter"]
    seeds = f"seeds=[{','.join(map(str, range(CELLS)))}]"
    output = agent(sweep, "debug=smoke", "logger=many", "data.target_tasks=1", seeds)
    seen = {name: wandb_server.store.judged(name, sweep["metric"]["name"]) for name in ("r1", "r2")}
    assert 3 <= len(seen["r1"]) < CELLS == len(seen["r2"]), output
    summaries = {name: last_summary(wandb_server.store, name) for name in ("r1", "r2")}
    assert summaries["r1"]["interrupted"] is True
    assert "eval/worst_percent" not in summaries["r1"]
    assert summaries["r2"]["eval/mean_percent"] == pytest.approx(seen["r2"][-1])
    assert wandb_server.store.exit_codes == {"r1": 255, "r2": 0}

    assert "interrupted: SIGTERM" in output
    assert "failed" not in output.lower()
    statuses, endings = {}, {}
    for record in (tmp_path / "results" / "runs").rglob("run.json"):
        name = json.loads((record.parent / "wandb.json").read_text())["id"]
        statuses[name] = json.loads(record.read_text())["status"]
        endings[name] = json.loads((record.parent / "metrics.jsonl").read_text().splitlines()[-1])["status"]
        assert (record.parent / "summary.json").exists() == (name == "r2")
    assert statuses == {"r1": "interrupted", "r2": "finished"}
    assert endings == {"r1": "interrupted", "r2": "ok"}


@pytest.mark.slow
def test_an_unknown_key_among_the_parameters_is_said_by_the_run(agent, wandb_server):
    sweep = shipped("grid") | {"parameters": {"methodd": {"value": "direct"}}}
    output = agent(sweep, "debug=smoke")
    assert "error: methodd: unknown key (did you mean 'method'?)" in output
    assert not list(swept_runs(wandb_server.store))
