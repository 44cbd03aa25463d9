"""The real `wandb sweep` and `wandb agent` run the shipped sweep files against a loopback server."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
SWEEPS = sorted((ROOT / "experiments" / "wandb_sweep").glob("*.yaml"))
KNOWN = {"program", "method", "project", "metric", "parameters", "command", "run_cap", "early_terminate"}


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_sweep_files_name_what_run_py_logs(path):
    sweep = yaml.safe_load(path.read_text())
    assert set(sweep) <= KNOWN
    assert sweep["method"] == path.stem
    assert sweep["metric"] == {"name": "mean", "goal": "maximize"}
    assert "${args_no_hyphens}" in sweep["command"]
    assert not any("parameters" in parameter for parameter in sweep["parameters"].values())


@pytest.mark.slow
@pytest.mark.usefixtures("_wandb_home")
def test_an_agent_runs_the_grid(tmp_path, wandb_server):
    """Two methods on one task with random weights; everything else as in grid.yaml."""
    sweep = yaml.safe_load((ROOT / "experiments" / "wandb_sweep" / "grid.yaml").read_text())
    first = {name: {"values": part["values"][:1]} for name, part in sweep["parameters"].items()}
    sweep["parameters"] = first | {"method": {"values": sweep["parameters"]["method"]["values"][:2]}}
    fixed = ["model=tiny", "data.tasks=[demo-spam]", f"results_root={tmp_path / 'results'}"]
    sweep["command"] = [*sweep["command"][:-1], *fixed, sweep["command"][-1]]
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    environment = (
        os.environ | wandb_server.environment | {"PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
    )
    environment["WANDB_DIR"] = str(tmp_path)

    def wandb(*arguments):
        command = [str(Path(sys.executable).parent / "wandb"), *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True, timeout=500
        )

    wandb("sweep", "--project", "metashot", str(tmp_path / "sweep.yaml"))
    wandb("agent", "lab/metashot/sw0")

    runs = {name: run for name, run in wandb_server.store.runs.items() if run.get("sweep")}
    assert len(runs) == 2
    methods = set()
    for name, run in runs.items():
        config = {key: part["value"] for key, part in json.loads(run["config"]).items() if "value" in part}
        methods.add(config["method.name"])
        assert config["k"] == 4
        assert config["model.name"] == "tiny"
        summary = json.loads(wandb_server.store.streams[name]["wandb-summary.json"][-1])
        assert 0 <= summary["worst"] <= summary["mean"] <= 100
        assert "demo-spam/macro_f1" in summary
    assert methods == {"direct", "channel"}
