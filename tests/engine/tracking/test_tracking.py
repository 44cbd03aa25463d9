"""Trackers: what was logged is read back from the files and from a loopback server."""

import json
import logging
import os
import socket
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from metashot.base.errors import ConfigError
from metashot.engine.tracking import wandb_tracker
from metashot.engine.tracking.accelerate_trackers import MlflowTracker, TensorBoardTracker
from metashot.engine.tracking.many import ManyTrackers, together
from metashot.engine.tracking.tracker import JsonlTracker, NoTracker, RunLabel, flatten
from metashot.engine.tracking.trackio_tracker import TrackioTracker
from metashot.engine.tracking.wandb_tracker import WandbTracker

CONFIG = {"method": {"name": "direct", "k": 4}, "seeds": [100, 13], "lr": 1e-05}


LABEL = RunLabel("metashot", "sweep-1", "evaluate", "direct-k4", ("demo",))


def record(tracker, folder):
    """What every run does."""
    prompt = folder / "prompt.txt"
    prompt.parent.mkdir(parents=True, exist_ok=True)
    prompt.write_text("a prompt")
    for step in (7, 12):
        tracker.log({"train/loss": 1 / step}, step=step)
    tracker.log({"eval/mean_percent": 25.0}, step=1)
    tracker.log({"eval/mean_percent": 50.0}, step=2)
    tracker.summary({"eval/mean_percent": 50.0, "eval/worst_percent": 25.0})
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
    record(NoTracker(), tmp_path / "other")
    assert not (tmp_path / "run").exists()


def test_jsonl_rows_are_read_back(tmp_path):
    record(JsonlTracker(LABEL, CONFIG, folder=tmp_path), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["eval/mean_percent"]) for row in rows[2:4]] == [(1, 25.0), (2, 50.0)]
    assert rows[4] == {"summary": {"eval/mean_percent": 50.0, "eval/worst_percent": 25.0}}
    assert rows[5]["rows"] == [["poem", "a"], ["poem", "b"]]
    assert rows[-1] == {"status": "ok"}


def test_a_run_that_ends_before_any_record_leaves_no_rows(tmp_path):
    JsonlTracker(LABEL, CONFIG, folder=tmp_path).finish("failed")
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("package", "kind"),
    [
        ("wandb", WandbTracker),
        ("trackio", TrackioTracker),
        ("tensorboard", TensorBoardTracker),
        ("mlflow", MlflowTracker),
    ],
)
def test_a_missing_package_says_what_to_install(tmp_path, monkeypatch, package, kind):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=f"needs the package {package}.*pip install 'metashot"):
        kind(LABEL, CONFIG, folder=tmp_path)


def test_several_trackers_get_everything_and_artifacts_of_wanted_kinds_and_sizes(tmp_path, caplog):
    trackers = [JsonlTracker(LABEL, {}, folder=tmp_path / name) for name in "ab"]
    many = ManyTrackers(trackers, ("predictions", "checkpoint"), limit_mb=0.001)
    (tmp_path / "small").write_text("x" * 10)
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "weights").write_text("x" * 2000)
    many.log({"eval/mean_percent": 1.0}, step=1)
    many.artifact("predictions", "predictions", tmp_path / "small")
    many.artifact("report", "report", tmp_path / "small")
    many.artifact("checkpoint", "checkpoint", tmp_path / "large")
    many.finish("ok")
    for name in "ab":
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        assert [row.get("artifact") for row in rows] == [None, "predictions", None]
    assert "above logger.artifact_limit_mb" in caplog.text
    assert isinstance(together([], (), 1.0), NoTracker)


@pytest.mark.usefixtures("_wandb_home")
class TestWandb:
    def test_without_a_key_a_run_is_kept_offline_and_said_in_one_line(self, tmp_path, caplog):
        with caplog.at_level(logging.WARNING, "metashot.engine.tracking.wandb_tracker"):
            record(WandbTracker(LABEL, CONFIG, folder=tmp_path), tmp_path)
        (line,) = [
            r.getMessage() for r in caplog.records if r.name == "metashot.engine.tracking.wandb_tracker"
        ]
        assert line.startswith(f"W&B: no API key is set, logging offline to {tmp_path / 'wandb'} (")
        summary = json.loads(inspect(tmp_path, "--summary"))
        assert summary["config"]["method.k"] == 4
        assert summary["config"]["seeds"] == [100, 13]
        assert summary["summary"]["eval/mean_percent"] == 50.0
        assert summary["name"] == "direct-k4"
        assert summary["exit_code"] == 0
        everything = inspect(tmp_path)
        assert "sweep-1" in everything
        assert "predictions" in everything
        (config,) = tmp_path.glob("wandb/offline-run-*/files/resolved_config.yaml")
        assert yaml.safe_load(config.read_text()) == CONFIG

    def test_two_jobs_of_one_process_are_two_runs(self, tmp_path):
        for job in ("0", "1"):
            tracker = WandbTracker(LABEL, {"job": job}, folder=tmp_path / job, mode="offline")
            tracker.log({"value": float(job)})
            tracker.finish("failed" if job == "1" else "ok")
        read = [json.loads(inspect(tmp_path / job, "--summary")) for job in ("0", "1")]
        assert [r["summary"]["value"] for r in read] == [0.0, 1.0]
        assert [r["config"]["job"] for r in read] == ["0", "1"]
        assert [r["exit_code"] for r in read] == [0, 1]
        assert read[0]["run_id"] != read[1]["run_id"]

    def test_a_resumed_job_goes_on_in_its_run_and_another_kind_of_job_in_its_own(
        self, tmp_path, monkeypatch, wandb_server
    ):
        for name, value in wandb_server.environment.items():
            monkeypatch.setenv(name, value)
        training, told = replace(LABEL, job_type="train"), []
        for step, status in ((1, "interrupted"), (2, "ok")):
            tracker = WandbTracker(training, CONFIG, folder=tmp_path)
            tracker.log({"train/loss": 1 / step}, step=step)
            tracker.finish(status)
            ((run_id, run),) = wandb_server.store.runs.items()
            summary = json.loads(wandb_server.store.streams[run_id]["wandb-summary.json"][-1])
            told.append((wandb_server.store.exit_codes[run_id], summary["interrupted"], run["tags"]))
        assert told == [(255, True, ["demo", "interrupted"]), (0, False, ["demo"])]
        streamed = wandb_server.store.streams[run_id]["wandb-history.jsonl"]
        assert {json.loads(line)["train/step"] for line in streamed} == {1, 2}
        tracker = WandbTracker(LABEL, CONFIG, folder=tmp_path)
        tracker.log({"eval/mean_percent": 50.0}, step=1)
        tracker.finish("ok")
        assert len(wandb_server.store.runs) == 2

    def test_offline_a_resumed_job_keeps_its_id_unless_one_is_given(self, tmp_path):
        ids = []
        for given in (None, None, "own"):
            tracker = WandbTracker(LABEL, CONFIG, folder=tmp_path, mode="offline", id=given)
            tracker.log({"train/loss": 0.5}, step=1)
            tracker.finish("ok")
            ids.append(json.loads((tmp_path / "wandb.json").read_text())["id"])
        assert ids[0] == ids[1] != ids[2] == "own"

    def test_online_runs_reach_the_server(self, tmp_path, monkeypatch, wandb_server):
        for name, value in wandb_server.environment.items():
            monkeypatch.setenv(name, value)
        record(WandbTracker(LABEL, CONFIG, folder=tmp_path), tmp_path)
        ((run_id, run),) = wandb_server.store.runs.items()
        assert (run["displayName"], run["groupName"], run["jobType"]) == ("direct-k4", "sweep-1", "evaluate")
        assert json.loads(run["config"])["method.name"]["value"] == "direct"
        stream = wandb_server.store.streams[run_id]
        history = [json.loads(line) for line in stream["wandb-history.jsonl"]]
        steps = {"train/loss": "train/step", "eval/mean_percent": "eval/cell"}
        read = {
            name: [(row[step], row[name]) for row in history if name in row] for name, step in steps.items()
        }
        assert read == {
            "train/loss": [(7, 1 / 7), (12, 1 / 12)],
            "eval/mean_percent": [(1, 25.0), (2, 50.0)],  # its steps begin anew after those of training
        }
        assert json.loads(stream["wandb-summary.json"][-1])["eval/worst_percent"] == 25.0
        assert any(path.endswith("resolved_config.yaml") for path in wandb_server.store.uploads)
        assert any("table" in path for path in wandb_server.store.uploads)
        assert "prompt" in {a.get("artifactTypeName") for a in wandb_server.store.artifacts.values()}

    @pytest.mark.slow
    def test_a_server_that_is_gone_leaves_an_offline_run(self, tmp_path, monkeypatch, caplog):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        monkeypatch.setattr("metashot.engine.tracking.wandb_tracker._INIT_SECONDS", 2.0)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        with caplog.at_level(logging.WARNING, "metashot.engine.tracking.wandb_tracker"):
            record(WandbTracker(LABEL, CONFIG, folder=tmp_path), tmp_path)
        assert "does not answer" in caplog.text
        assert json.loads(inspect(tmp_path, "--summary"))["summary"]["eval/mean_percent"] == 50.0

    def test_a_server_lost_during_the_run_does_not_stop_it(self, tmp_path, monkeypatch, wandb_server):
        for name, value in wandb_server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("metashot.engine.tracking.wandb_tracker._FINISH_SECONDS", 2.0)
        tracker = WandbTracker(LABEL, CONFIG, folder=tmp_path)
        tracker.log({"train/loss": 0.5}, step=1)
        wandb_server.shutdown()
        wandb_server.server_close()
        tracker.log({"macro_f1": 0.5}, step=1)
        tracker.summary({"mean": 50.0})
        tracker.finish("ok")
        assert list(tmp_path.glob("wandb/run-*/run-*.wandb"))

    def test_the_users_own_settings_win(self, tmp_path, monkeypatch):
        given = {
            "PROJECT": "mine", "ENTITY": "team", "NAME": "run a", "TAGS": "x,y", "RUN_ID": "id7", "NOTES": "why",
            "RUN_GROUP": "g", "JOB_TYPE": "j",
        }  # fmt: skip
        for name, value in given.items():
            monkeypatch.setenv(f"WANDB_{name}", value)
        tracker = WandbTracker(LABEL, {}, folder=tmp_path, mode="offline", entity="other", id="other")
        tracker.log({"eval/mean_percent": 1.0}, step=1)
        run = tracker._open
        found = (run.project, run.entity, run.name, set(run.tags), run.id, run.notes, run.group, run.job_type)
        assert found == ("mine", "team", "run a", {"x", "y"}, "id7", "why", "g", "j")
        tracker.finish("ok")

    @pytest.mark.parametrize(("name", "value"), [("WANDB_MODE", "disabled"), ("WANDB_DISABLED", "true")])
    def test_disabled_by_the_user_leaves_no_run(self, tmp_path, monkeypatch, name, value):
        monkeypatch.setenv(name, value)
        record(WandbTracker(LABEL, CONFIG, folder=tmp_path), tmp_path)
        assert not list(tmp_path.glob("wandb/*run-*"))

    def test_a_run_that_fails_before_any_record_is_not_opened(self, tmp_path):
        WandbTracker(LABEL, CONFIG, folder=tmp_path, mode="offline").finish("failed")
        assert not list(tmp_path.glob("wandb/*"))

    @pytest.mark.parametrize(
        ("label", "keys", "message"),
        [
            (RunLabel("a/b", None, None, "n"), {}, "logger.project: 'a/b' has a character that W&B refuses"),
            (RunLabel("p", None, None, "n", ("",)), {}, "tags: W&B takes 1 to 64 characters, got 0"),
            (RunLabel("p", None, None, "n", ("x" * 65,)), {}, "tags: W&B takes 1 to 64 characters, got 65"),
            (RunLabel("p", None, None, "n" * 129), {}, "name: W&B takes 1 to 128 characters, got 129"),
            (RunLabel("p", None, None, "n"), {"id": "a:b"}, "logger.id: 'a:b' has a character"),
        ],
    )
    def test_what_wandb_refuses_is_one_line_before_anything_starts(self, tmp_path, label, keys, message):
        with pytest.raises(ConfigError, match=message):
            WandbTracker(label, {}, folder=tmp_path, mode="offline", **keys)

    @pytest.mark.parametrize("place", ["trained/checkpoints/step-1", "shared/supmer/step-1"])
    def test_an_evaluation_names_the_run_that_made_its_checkpoint(
        self, tmp_path, monkeypatch, wandb_server, place
    ):
        for name, value in wandb_server.environment.items():
            monkeypatch.setenv(name, value)
        checkpoint = tmp_path / place
        tracker = WandbTracker(LABEL, {}, folder=tmp_path / "trained", id="first")
        checkpoint.mkdir(parents=True)
        (checkpoint / "weights").write_text("w")
        tracker.artifact("checkpoint", "checkpoint", checkpoint)
        tracker.finish("ok")
        address = wandb_tracker.address_of(checkpoint)
        assert (address["id"], address["artifacts"]) == ("first", {"checkpoint": "checkpoint-first"})
        tracker = WandbTracker(LABEL, {}, folder=tmp_path / "evaluated", id="second")
        tracker.uses(checkpoint)
        tracker.finish("ok")
        config = json.loads(wandb_server.store.runs["second"]["config"])
        assert config["built_on"]["value"] == "lab/metashot/first"


TRACKIO_SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_tracking import CONFIG, LABEL, record
from metashot.base.errors import ConfigError
from metashot.engine.tracking.trackio_tracker import TrackioTracker
folder = Path(sys.argv[1])
record(TrackioTracker(LABEL, CONFIG, folder=folder / "trackio"), folder)
try:
    TrackioTracker(LABEL, CONFIG, folder=folder / "elsewhere")
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
    means = [
        (row[1], m["eval/mean_percent"])
        for row, m in zip(rows, metrics, strict=True)
        if "eval/mean_percent" in m
    ]
    assert means == [(1, 25.0), (2, 50.0)]
    assert {"summary/eval/mean_percent": 50.0, "summary/eval/worst_percent": 25.0} in metrics
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
    assert {"eval/mean_percent", "summary/eval/worst_percent"} <= set(listed)


def test_tensorboard_files_are_read_back(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    label = replace(LABEL, name="direct k=4 data.root=/x")
    record(TensorBoardTracker(label, CONFIG, folder=tmp_path / "tensorboard"), tmp_path)
    folder = tmp_path / "tensorboard" / "direct k=4 data.root=_x"
    read = EventAccumulator(str(folder)).Reload()
    assert [(e.step, e.value) for e in read.Scalars("eval/mean_percent")] == [(1, 25.0), (2, 50.0)]
    assert [e.step for e in read.Scalars("train/loss")] == [7, 12]
    assert [e.value for e in read.Scalars("summary/eval/worst_percent")] == [25.0]
    (status,) = read.Tensors("status/text_summary")
    assert status.tensor_proto.string_val == [b"ok"]
    (shown,) = folder.glob("*/hparams.yml")
    config = yaml.safe_load(shown.read_text())
    assert (config["method.k"], config["seeds"], config["lr"]) == (4, "[100, 13]", 1e-05)


@pytest.fixture
def mlflow_runs(tmp_path, monkeypatch):
    """Reads the runs below a folder back with MLflow's own client."""
    for name in ("TRACKING_URI", "EXPERIMENT_NAME", "RUN_ID", "TAGS"):
        monkeypatch.delenv(f"MLFLOW_{name}", raising=False)
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")

    def read(folder):
        client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("metashot")
        return client, client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])

    yield read
    mlflow.end_run()


def test_mlflow_runs_are_read_back(tmp_path, mlflow_runs):
    folder = tmp_path / "mlflow"
    record(MlflowTracker(LABEL, CONFIG, folder=folder), tmp_path)
    stopped = MlflowTracker(replace(LABEL, name="second"), CONFIG, folder=folder)
    stopped.log({"eval/rte->mnli/accuracy_percent": 40.0}, step=1)
    stopped.uses(tmp_path / "trained")
    stopped.finish("interrupted")
    MlflowTracker(LABEL, CONFIG, folder=folder).finish("failed")  # before any record: no run
    client, (first, second) = mlflow_runs(folder)
    assert (first.info.run_name, first.info.status) == ("direct-k4", "FINISHED")
    assert first.data.params == {
        "method.name": "direct",
        "method.k": "4",
        "seeds": "[100, 13]",
        "lr": "1e-05",
    }
    history = client.get_metric_history(first.info.run_id, "eval/mean_percent")
    assert [(point.step, point.value) for point in history] == [(1, 25.0), (2, 50.0)]
    assert first.data.metrics["summary/eval/worst_percent"] == 25.0
    assert {"tags": "demo", "group": "sweep-1", "job_type": "evaluate", "status": "ok"}.items() <= (
        first.data.tags.items()
    )
    (artifact,) = client.list_artifacts(first.info.run_id, "prompt")
    assert artifact.path == "prompt/prompt.txt"
    assert (second.info.run_name, second.info.status) == ("second", "KILLED")
    assert second.data.metrics == {"eval/rte-_mnli/accuracy_percent": 40.0}
    assert second.data.tags["uses"] == str(tmp_path / "trained")
