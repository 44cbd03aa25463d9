"""The command line: a run from start to table, and one line for every mistake."""

import json
import os
import re
import subprocess
import sys
import time

import pytest


@pytest.fixture
def run(repository, tmp_path):
    """`run(*overrides)` in a process of its own, with its results under tmp_path."""

    def call(*overrides, **environment):
        return subprocess.run(
            [sys.executable, str(repository / "run.py"), f"results_root={tmp_path / 'root'}", *overrides],
            cwd=tmp_path, capture_output=True, text=True, timeout=300,
            env={**os.environ, "METASHOT_CACHE": str(tmp_path / "cache"), **environment},
        )  # fmt: skip

    return call


TINY = ("model=tiny", "k=2", "seeds=[100,13]", "data.tasks=[demo-story_ending]")


@pytest.mark.slow
def test_a_run_leaves_the_promised_files(run, tmp_path):
    done = run(*TINY, "logger=jsonl", f"hydra.run.dir={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    assert "demo-story_ending" in done.stdout
    assert "mean of tasks" in done.stdout
    out = tmp_path / "out"
    expected = {
        ".hydra", "run.json", "results.jsonl", "predictions.jsonl", "summary.json", "summary.md", "metrics.jsonl",
    }  # fmt: skip
    assert expected <= {path.name for path in out.iterdir()}
    summary = json.loads((out / "summary.json").read_text())
    results = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    values = [100 * row["value"] for row in results]
    assert summary["mean"]["value"] == pytest.approx(sum(values) / 2)
    assert summary["worst"]["value"] == pytest.approx(min(values))
    assert summary["mean"]["low"] <= summary["mean"]["value"] <= summary["mean"]["high"]
    logged = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    (table,) = (row for row in logged if row.get("table") == "results")
    shown = [dict(zip(table["columns"], row, strict=True))["value_percent"] for row in table["rows"]]
    assert shown == pytest.approx(values)
    assert [row["eval/mean_percent"] for row in logged if "step" in row][-1] == pytest.approx(sum(values) / 2)
    record = json.loads((out / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["config"]["k"] == 2
    assert record["cost"]["tokens_naive"] > record["cost"]["tokens_computed"] > 0
    assert record["versions"]["torch"]

    again = run(*TINY)
    assert "nothing to compute: all 2 cells were stored already" in again.stdout


@pytest.mark.slow
def test_plan_shows_the_prompt_and_loads_no_weights(run, tmp_path):
    done = run(*TINY, "stage=plan", "plan.show=1", "method=channel")
    assert done.returncode == 0, done.stderr
    assert "[demonstration 1 label" in done.stdout
    assert "[target (input)" in done.stdout
    assert "tokens to compute with sharing" in done.stdout
    assert not (tmp_path / "root" / "cells").exists()


BAD = [
    (["method=chanel"], r"error: method: no choice 'chanel' (did you mean 'channel'?)"),
    (["model=gtp2"], r"error: model: no choice 'gtp2' (did you mean 'gpt2'?)"),
    (["setting=hr_to_l"], r"error: setting: no choice 'hr_to_l' (did you mean 'hr_to_lr'?)"),
    (["-cn", "nope"], r"error: --config-name: no config is called 'nope' (one of: config)"),
    (
        ["hydra.searchpath=[file:///nope]"],
        r"error: hydra.searchpath: no folder '/nope' (give file:///<folder>",
    ),
    (["logger=wandb", "tags=[a/b,'']"], r"error: tags: "),
    (["logger.trackers=true"], r"error: logger.trackers: takes no true or false, got True"),
    (["logger=[wandb,trakio]"], r"error: logger: no choice 'trakio' (did you mean 'trackio'?)"),
    (
        ["name=${oc.env:NOT_SET}"],
        r"error: name: the environment variable 'NOT_SET' is not set (set it",
    ),
    (["scoer.batch_size=1"], r"error: scoer: unknown key (did you mean 'scorer'?)"),
    (["model.dtyp=float32"], r"error: model.dtyp: unknown key (did you mean 'dtype'?)"),
    (["+scorer.foo=1"], r"error: scorer.foo: unknown key"),
    (["scorer.batch_size=x"], r"error: scorer.batch_size: input should be a valid integer"),
    (["tuning.prompt_lenght=3"], r"error: tuning.prompt_lenght: unknown key (did you mean 'prompt_length'?)"),
    (["scorer._target_=os.system"], r"error: scorer._target_: 'os.system' is in no trusted package"),
    (
        ["scorer._target_=metashot.engine.scoring.plain.PlainScorrer"],
        r"error: scorer._target_: cannot import",
    ),
    (["scorer._target_=metashot.engine.cells.store.ResultStore"], r"lacks score (a Scorer has these)"),
    (["k=abc"], r"error: k: input should be a valid integer"),
    (["k=-1"], r"error: k: must be 0 or more, got -1"),
    (["truncation=sharedd"], r"(did you mean 'shared'?)"),
    (["stage=evalute"], r"error: stage: unknown stage 'evalute' (did you mean 'evaluate'?)"),
    (["data=jsonl"], r"error: data.root: is not set (give data.root=<value>)"),
    (["data=jsonl", "data.root=nowhere"], r"error: data.root: no folder 'nowhere'"),
    (["data.tasks=[demo-spm]"], r"did you mean 'demo-spam'"),
    (["seeds=[]"], r"error: seeds: is empty"),
    (["k=1,2"], r"error: k: several values in 'k=1,2' (sweep with -m"),
    (["method.calibration=pmi"], r"error: method.null_inputs: calibration 'pmi' has no content-free input"),
    (["model=hf"], r"error: model.path: is not set"),
    (["stage=compare", "runs=[a]"], r"error: runs: no folder 'a'"),
    (["stage=rerun"], r"error: run: is not set"),
    (["k=1,2", "hydra.launcher._target_=os.system", "-m"], r"'os.system' is no plugin that is installed"),
]


@pytest.mark.slow
def test_a_learning_rate_is_found_kept_and_trained_with(run, tmp_path):
    smoke, out = ("debug=smoke", "method=metaicl"), tmp_path / "found"
    found = run(*smoke, "stage=find_lr", "find_lr.steps=12", "logger=jsonl", f"hydra.run.dir={out}")
    assert found.returncode == 0, found.stderr
    kept = json.loads((out / "lr_range.json").read_text())
    assert kept["rates"] == sorted(kept["rates"])
    assert len(kept["rates"]) == len(kept["losses"])
    assert kept["suggestion"] < max(kept["rates"])
    assert not (out / "checkpoints").exists()
    logged = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["find_lr/loss"] for row in logged if "find_lr/loss" in row] == kept["losses"]
    (said,) = re.findall(r"try optimizer.learning_rate=(\S+)", found.stdout)
    assert float(said) == pytest.approx(kept["suggestion"], rel=0.05)

    trained = run(
        *smoke, "stage=train", f"optimizer.learning_rate={said}", f"hydra.run.dir={tmp_path / 'trained'}"
    )
    assert trained.returncode == 0, trained.stderr
    refused = run(*smoke, "stage=find_lr", "find_lr.lowest=0.1", "find_lr.highest=0.01")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "find_lr.lowest: 0.1 to 0.01 is no range" in refused.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "message"), BAD, ids=lambda value: value[0] if isinstance(value, list) else ""
)
def test_a_mistake_is_one_line_and_status_2_and_leaves_nothing(run, tmp_path, overrides, message):
    done = run("model=tiny", *overrides) if not overrides[0].startswith("model=") else run(*overrides)
    assert done.returncode == 2, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1
    assert message in lines[0]
    assert not list(tmp_path.rglob("*.json*"))


def test_hydra_full_error_shows_everything(run):
    done = run("k=-1", "model=tiny", HYDRA_FULL_ERROR="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_a_read_only_results_root_is_one_line(run, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    done = run(*TINY, f"results_root={tmp_path / 'file'}", f"hydra.run.dir={tmp_path / 'out'}")
    assert done.returncode == 2
    assert "error:" in done.stderr
    assert "cannot write" in done.stderr


@pytest.mark.slow
def test_rerun_replays_a_run_and_shows_what_differs(run, tmp_path):
    run(*TINY, f"hydra.run.dir={tmp_path / 'first'}")
    done = run("stage=rerun", f"run={tmp_path / 'first'}", "k=1")
    assert done.returncode == 0, done.stderr
    assert "k: 2 -> 1" in done.stdout


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_like_an_uninterrupted_one(repository, tmp_path, run):
    command = (
        "model=tiny",
        "k=2",
        "seeds=[100,13]",
        "data.tasks=[demo-spam,demo-story_ending,demo-news_topic]",
    )
    out = tmp_path / "killed"
    environment = {**os.environ, "METASHOT_CACHE": str(tmp_path / "cache")}
    arguments = [
        sys.executable, str(repository / "run.py"), f"results_root={tmp_path / 'root'}", f"hydra.run.dir={out}", *command
    ]  # fmt: skip
    process = subprocess.Popen(arguments, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not (out / "results.jsonl").is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    finished = len((out / "results.jsonl").read_text().splitlines())
    assert 1 <= finished < 6, "the kill came too late to show anything"

    again = run(*command, f"hydra.run.dir={out}")
    assert again.returncode == 0, again.stderr
    assert "cells are stored already and are not computed again" in again.stdout
    whole = run(*command, f"results_root={tmp_path / 'other'}", f"hydra.run.dir={tmp_path / 'whole'}")
    assert whole.returncode == 0, whole.stderr
    for name in ("results.jsonl", "predictions.jsonl"):
        assert (out / name).read_text() == (tmp_path / "whole" / name).read_text()
