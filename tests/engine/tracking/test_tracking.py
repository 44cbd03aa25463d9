"""Trackers: what was logged is read back from the files and from a loopback server."""

import json
import logging
import os
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from metashot.engine.errors import ConfigError
from metashot.engine.tracking.tracker import TrackerSpec, flatten, open_tracker

CONFIG = {"method": {"name": "direct", "k": 4}, "seeds": [100, 13], "lr": 1e-05}


def spec(folder, kind, **changes):
    values = {
        "kind": kind,
        "project": "metashot",
        "group": "sweep-1",
        "job_type": "evaluate",
        "name": "direct-k4",
        "tags": ("demo",),
        "mode": "auto",
        "folder": folder,
    }
    return TrackerSpec(**values | changes)


def record(tracker, folder):
    """What every run does."""
    prompt = folder / "prompt.txt"
    prompt.parent.mkdir(parents=True, exist_ok=True)
    prompt.write_text("a prompt")
    tracker.log({"macro_f1": 0.25}, step=1)
    tracker.log({"macro_f1": 0.5}, step=2)
    tracker.summary({"mean": 50.0, "worst": 25.0})
    tracker.table("predictions", ["task", "gold"], [["poem", "a"], ["poem", "b"]])
    tracker.artifact("prompt", "prompt", prompt)
    tracker.finish("ok")


def inspect(folder, *options):
    """Read an offline run back with W&B's own reader."""
    (path,) = Path(folder).glob("wandb/offline-run-*/run-*.wandb")
    wandb = Path(sys.executable).parent / "wandb"
    command = [str(wandb), "leet", "inspect", *options, "--json", str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_nested_configs_become_dotted_keys():
    flat = {"method.name": "direct", "method.k": 4, "seeds": [100, 13], "lr": 1e-05}
    assert flatten(CONFIG) == flat
    assert flatten({"a": {}, "b": None}) == {"a": {}, "b": None}


def test_none_records_nothing(tmp_path):
    record(open_tracker(spec(tmp_path / "run", "none"), CONFIG), tmp_path / "other")
    assert not (tmp_path / "run").exists()


def test_jsonl_rows_are_read_back(tmp_path):
    record(open_tracker(spec(tmp_path, "jsonl"), CONFIG), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["macro_f1"]) for row in rows[:2]] == [(1, 0.25), (2, 0.5)]
    assert rows[2] == {"summary": {"mean": 50.0, "worst": 25.0}}
    assert rows[3]["rows"] == [["poem", "a"], ["poem", "b"]]
    assert rows[-1] == {"status": "ok"}


@pytest.mark.parametrize(
    ("kind", "mode", "message"),
    [
        ("tensorboard", "auto", "logger.kind: no tracker is called 'tensorboard' .*jsonl"),
        ("jsonl", "later", "logger.mode: unknown mode 'later' .*offline"),
    ],
)
def test_unknown_choices_are_refused(tmp_path, kind, mode, message):
    with pytest.raises(ConfigError, match=message):
        open_tracker(spec(tmp_path, kind, mode=mode), CONFIG)


@pytest.mark.parametrize("package", ["wandb", "trackio"])
def test_a_missing_package_says_what_to_install(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=f"needs the package {package}.*pip install 'metashot"):
        open_tracker(spec(tmp_path, package), CONFIG)


@pytest.mark.usefixtures("_wandb_home")
class TestWandb:
    def test_without_a_key_a_run_is_kept_offline_and_said_in_one_line(self, tmp_path, caplog):
        with caplog.at_level(logging.WARNING, "metashot.engine.tracking.tracker"):
            record(open_tracker(spec(tmp_path, "wandb"), CONFIG), tmp_path)
        (line,) = [r.getMessage() for r in caplog.records if r.name == "metashot.engine.tracking.tracker"]
        assert line.startswith(f"W&B: no API key is set, logging offline to {tmp_path / 'wandb'} (")
        summary = json.loads(inspect(tmp_path, "--summary"))
        assert summary["config"]["method.k"] == 4
        assert summary["config"]["seeds"] == [100, 13]
        assert (summary["summary"]["mean"], summary["summary"]["macro_f1"]) == (50.0, 0.5)
        assert summary["name"] == "direct-k4"
        assert summary["exit_code"] == 0
        everything = inspect(tmp_path)
        assert "sweep-1" in everything
        assert "predictions" in everything
        (config,) = tmp_path.glob("wandb/offline-run-*/files/resolved_config.yaml")
        assert yaml.safe_load(config.read_text()) == CONFIG

    def test_two_jobs_of_one_process_are_two_runs(self, tmp_path):
        for job in ("0", "1"):
            tracker = open_tracker(spec(tmp_path / job, "wandb", mode="offline", name=job), {"job": job})
            tracker.log({"value": float(job)})
            tracker.finish("failed" if job == "1" else "ok")
        read = [json.loads(inspect(tmp_path / job, "--summary")) for job in ("0", "1")]
        assert [r["summary"]["value"] for r in read] == [0.0, 1.0]
        assert [r["config"]["job"] for r in read] == ["0", "1"]
        assert [r["exit_code"] for r in read] == [0, 1]
        assert read[0]["run_id"] != read[1]["run_id"]

    def test_online_runs_reach_the_server(self, tmp_path, monkeypatch, wandb_server):
        for name, value in wandb_server.environment.items():
            monkeypatch.setenv(name, value)
        record(open_tracker(spec(tmp_path, "wandb"), CONFIG), tmp_path)
        ((run_id, run),) = wandb_server.store.runs.items()
        assert (run["displayName"], run["groupName"], run["jobType"]) == ("direct-k4", "sweep-1", "evaluate")
        assert json.loads(run["config"])["method.name"]["value"] == "direct"
        stream = wandb_server.store.streams[run_id]
        history = [json.loads(line) for line in stream["wandb-history.jsonl"]]
        assert [row["macro_f1"] for row in history if "macro_f1" in row] == [0.25, 0.5]
        assert json.loads(stream["wandb-summary.json"][-1])["worst"] == 25.0
        assert any(path.endswith("resolved_config.yaml") for path in wandb_server.store.uploads)
        assert any("table" in path for path in wandb_server.store.uploads)
        assert "prompt" in {a.get("artifactTypeName") for a in wandb_server.store.artifacts.values()}

    def test_a_server_that_is_gone_leaves_an_offline_run(self, tmp_path, monkeypatch, caplog):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        monkeypatch.setattr("metashot.engine.tracking.tracker._INIT_SECONDS", 2.0)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        with caplog.at_level(logging.WARNING, "metashot.engine.tracking.tracker"):
            record(open_tracker(spec(tmp_path, "wandb"), CONFIG), tmp_path)
        assert "does not answer" in caplog.text
        assert json.loads(inspect(tmp_path, "--summary"))["summary"]["macro_f1"] == 0.5

    def test_a_server_lost_during_the_run_does_not_stop_it(self, tmp_path, monkeypatch, wandb_server):
        for name, value in wandb_server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("metashot.engine.tracking.tracker._FINISH_SECONDS", 2.0)
        tracker = open_tracker(spec(tmp_path, "wandb"), CONFIG)
        wandb_server.shutdown()
        wandb_server.server_close()
        tracker.log({"macro_f1": 0.5}, step=1)
        tracker.summary({"mean": 50.0})
        tracker.finish("ok")
        assert list(tmp_path.glob("wandb/run-*/run-*.wandb"))


TRACKIO_SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_tracking import CONFIG, record, spec
from metashot.engine.errors import ConfigError
from metashot.engine.tracking.tracker import open_tracker
folder = Path(sys.argv[1])
record(open_tracker(spec(folder / "trackio", "trackio"), CONFIG), folder)
try:
    open_tracker(spec(folder / "elsewhere", "trackio"), CONFIG)
except ConfigError as error:
    print(error)
"""

DASHBOARD_SCRIPT = """
import json, urllib.request
import trackio
url = trackio.show(project="metashot", open_browser=False, block_thread=False)[1].rstrip("/")
assert url.startswith("http://127.0.0.1:"), url

def ask(name, **values):
    body = json.dumps(values).encode()
    request = urllib.request.Request(f"{url}/api/{name}", body, {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))["data"]

(run,) = ask("get_runs_for_project", project="metashot")
metrics = ask("get_metrics_for_run", project="metashot", run=run["name"])
print("served", json.dumps([run["name"], metrics]))
"""


def test_trackio_rows_are_read_back_from_its_file_and_its_dashboard(tmp_path):
    """In a process of its own: trackio fixes its folder when it is imported."""
    command = [sys.executable, "-c", TRACKIO_SCRIPT, str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
    assert "keep one results_root per process" in done.stdout
    with sqlite3.connect(tmp_path / "trackio" / "metashot.db") as database:
        rows = database.execute("select run_name, step, metrics from metrics order by id").fetchall()
        (config,) = database.execute("select config from configs").fetchone()
    metrics = [json.loads(row[2]) for row in rows]
    assert {row[0] for row in rows} == {"direct-k4"}
    assert [(row[1], m["macro_f1"]) for row, m in zip(rows, metrics, strict=True) if "macro_f1" in m] == [
        (1, 0.25),
        (2, 0.5),
    ]
    assert {"summary/mean": 50.0, "summary/worst": 25.0} in metrics
    assert metrics[-1] == {"status": "ok"}
    assert json.loads(config)["method.k"] == 4
    assert json.loads(config)["tags"] == ["demo"]
    assert "Uploading" not in done.stdout

    environment = os.environ | {"TRACKIO_DIR": str(tmp_path / "trackio")}
    shown = subprocess.run(
        [sys.executable, "-c", DASHBOARD_SCRIPT], capture_output=True, text=True, env=environment
    )
    assert shown.returncode == 0, shown.stderr
    (line,) = [line for line in shown.stdout.splitlines() if line.startswith("served ")]
    name, listed = json.loads(line.removeprefix("served "))
    assert name == "direct-k4"
    assert {"macro_f1", "summary/mean", "summary/worst"} <= set(listed)
