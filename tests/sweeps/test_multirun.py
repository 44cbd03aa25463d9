"""Multirun with a ledger: failures, resumption, run lists, launchers and search, in real processes."""

import json
from pathlib import Path

import pytest
from hydra.errors import MissingConfigException

from metashot.stages.composition_errors import explain

pytestmark = pytest.mark.slow

pytest.importorskip("hydra_plugins.hydra_joblib_launcher")


def values(folder):
    """(x, y) of every finished job's file, by job folder."""
    files = folder.glob("*/value.json")
    return {int(path.parent.name): tuple(json.loads(path.read_text())[:3]) for path in files}


def started(program):
    return (program.folder / "started").read_text().splitlines()


def test_a_failed_job_stops_no_other_and_is_retried_alone(program, sweep_of):
    arguments = ("x=1,2,3", "y=good,bad")
    first = program(*arguments)
    assert first.returncode == 1
    assert first.stderr.strip().splitlines()[-1].startswith("error: sweep: 6 jobs: 5 finished, 1 failed")
    folder, records = sweep_of()
    (failed,) = [record for record in records if record["state"] == "failed"]
    assert failed["overrides"] == ["x=2", "y=bad"]
    assert failed["error"] == "ValueError: x=2 does not go with y=bad"
    assert "x=2 does not go with y=bad" in (folder / str(failed["number"]) / "main.log").read_text()
    assert "ValueError: x=2 does not go with y=bad" in (folder / "summary.md").read_text()

    (program.folder / "mended").touch()
    second = program(*reversed(arguments))
    assert second.returncode == 0, second.stderr
    assert "5 of 6 jobs are finished already and are not run again" in second.stdout
    _, records = sweep_of()
    assert [record["state"] for record in records] == ["finished"] * 6
    assert [record["attempts"] for record in records] == [1, 1, 1, 2, 1, 1]
    assert len(started(program)) == 7
    assert len(values(folder)) == 6


@pytest.mark.parametrize("quotes", ["", "'"])
def test_an_interpolation_in_a_value_is_run_as_its_value_and_recorded_as_it_is_written(
    program, sweep_of, monkeypatch, quotes
):
    monkeypatch.setenv("MYV", "plain")
    done = program("x=1,2", f"y={quotes}${{oc.env:MYV}}{quotes}")
    assert done.returncode == 0, done.stderr
    folder, records = sweep_of()
    assert [record["state"] for record in records] == ["finished"] * 2
    assert set(values(folder).values()) == {(1, "plain", 10), (2, "plain", 10)}
    assert "MYV" in records[0]["overrides"][1]  # Hydra writes what is not quoted with its own escapes
    again = program("x=1,2", f"y={quotes}${{oc.env:MYV}}{quotes}")
    assert "2 of 2 jobs are finished already" in again.stdout


@pytest.mark.parametrize(
    ("written", "secret"),
    [
        ("'${oc.env:GH_PAT}'", "value-of-mine-1234"),
        ("hf_abcdefghijklmnopqrstuvwxyz0123", "hf_abcdefghijklmnopqrstuvwxyz0123"),
        ("'https://me:pw@host.example'", "me:pw@"),
    ],
)
def test_no_file_of_a_sweep_holds_a_secret(program, sweep_of, monkeypatch, written, secret):
    """The ledger, its summary, and what a job's error says; Hydra's own files are the command's to clean."""
    monkeypatch.setenv("GH_PAT", "value-of-mine-1234")
    done = program(f"y={written}", "x=1,3", "hydra.output_subdir=null")
    assert done.returncode == 0, done.stderr
    folder, records = sweep_of()
    assert [record["state"] for record in records] == ["finished"] * 2
    kept = [path for path in folder.rglob("*") if path.is_file() and path.name != "value.json"]
    assert [path.name for path in kept if secret in path.read_text(errors="replace")] == []
    assert program(f"y={written}", "x=1,3", "hydra.output_subdir=null").returncode == 0
    assert len(started(program)) == 2


def test_paired_keys_change_in_step_and_others_in_every_combination(program, sweep_of):
    done = program("x=1,3", "base=10,20", "y=good,fine", "hydra.sweeper.paired=[x,base]")
    assert done.returncode == 0, done.stderr
    folder, _ = sweep_of()
    assert sorted(values(folder).values()) == [
        (1, "fine", 10),
        (1, "good", 10),
        (3, "fine", 20),
        (3, "good", 20),
    ]
    told = [line for line in done.stdout.splitlines() if line.startswith("job ")]
    assert told == ["job 0: y=good x=1 base=10", "job 1: y=good x=3 base=20",
                    "job 2: y=fine x=1 base=10", "job 3: y=fine x=3 base=20"]  # fmt: skip


def test_nothing_runs_when_all_is_finished(program, sweep_of):
    program("x=1,2")
    again = program("x=1,2")
    assert again.returncode == 0
    assert len(started(program)) == 2
    assert [record["figure"] for record in sweep_of()[1]] == [10.0, 20.0]


def test_more_values_extend_a_sweep_and_what_decides_nothing_changes_nothing(program, sweep_of):
    assert program("x=1,2").returncode == 0
    again = program("x=1,2,3", "+logger.project=p", "hydra/launcher=joblib", "hydra.launcher.n_jobs=1")
    assert again.returncode == 0, again.stderr
    assert "2 of 3 jobs are finished already" in again.stdout
    folder, records = sweep_of()
    assert len(started(program)) == 3
    assert sorted(values(folder)) == [0, 1, 2]
    assert [record["number"] for record in records] == [0, 1, 2]


def test_the_subdir_is_the_users(program, sweep_of):
    done = program("x=1,2", "hydra.sweep.subdir=job_${hydra.job.num}_${hydra.job.override_dirname}")
    assert done.returncode == 0, done.stderr
    folder, records = sweep_of()
    assert {Path(record["folder"]).name for record in records} == {"job_0_x=1", "job_1_x=2"}
    assert {path.parent.name for path in folder.glob("*/value.json")} == {"job_0_x=1", "job_1_x=2"}


def test_a_mistake_that_every_job_would_make_stops_after_the_first(program, sweep_of):
    """`x` is swept, and the mistake lies in `base`, which no job changes; the same in a swept key stops after two."""
    done = program("x=1,2,3,4", "base=wrong")
    assert done.returncode == 1
    assert len(started(program)) == 1
    assert "3 jobs are not started: they would fail as job 0 did" in done.stdout
    _, records = sweep_of()
    assert [record["state"] for record in records] == ["failed", "waiting", "waiting", "waiting"]
    assert program("base=wrong,bad,worse,good").returncode == 1
    assert len(started(program)) == 3


@pytest.mark.parametrize("where", ["job", "ledger"])
def test_a_full_disk_stops_the_sweep_in_one_line(program, monkeypatch, where):
    """Whether the job met it, or its start could not even be recorded."""
    if where == "ledger":
        monkeypatch.setenv("LEDGER_IS_FULL", "1")
    done = program("x=1,2", f"y={'full' if where == 'job' else 'good'}")
    assert done.returncode != 0
    assert "the disk is full, the sweep stops" in done.stderr.splitlines()[-1], done.stderr
    assert (program.folder / "started").exists() == (where == "job")
    if where == "job":
        assert (program.folder / "started").read_text() == "1 full\n"


def test_a_list_key_that_is_swept_over_bare_values_is_refused(program):
    refused = program("items=100,13")
    assert "items: takes a list, got 100 in one job (write items=[100])" in refused.stderr
    assert not (program.folder / "started").exists()


def test_a_changed_config_is_refused(program):
    assert program("x=1,2").returncode == 0
    config = program.folder / "conf" / "config.yaml"
    config.write_text(config.read_text().replace("base: 10", "base: 11"))
    refused = program("x=1,2")
    assert refused.returncode != 0
    assert "its config has changed since this sweep began: base: 10 -> 11" in refused.stderr
    assert len(started(program)) == 2


def test_a_mistake_in_one_job_is_found_before_any_starts(program):
    assert program("x=1,2", "nosuch=1").returncode != 0
    assert not (program.folder / "started").exists()


def test_explicit_runs_are_crossed_with_the_command_line(program, sweep_of):
    done = program('hydra.sweeper.runs=[["x=5","y=a"],["x=7"]]', "base=1,2")
    assert done.returncode == 0, done.stderr
    folder, _ = sweep_of()
    assert sorted(values(folder).values()) == [(5, "a", 1), (5, "a", 2), (7, "good", 1), (7, "good", 2)]


def test_an_experiment_file_sweeps_and_the_command_line_overrides_it(program, sweep_of):
    done = program('+hydra.sweeper.params={x:"5,6",y:"a,b"}', "y=c")
    assert done.returncode == 0, done.stderr
    folder, _ = sweep_of()
    assert sorted(values(folder).values()) == [(5, "c", 10), (6, "c", 10)]


def test_an_unknown_key_of_the_sweeper_is_refused(program):
    refused = program("x=1,2", 'hydra.sweeper.rows=[["x=5"]]')
    assert refused.returncode != 0
    assert "rows" in refused.stderr


def test_the_ledger_of_another_program_is_refused(program):
    program("x=1,2", "hydra.sweep.dir=here")
    (program.folder / "here" / "ledger" / "ledger.json").write_text('{"project": "other"}')
    refused = program("x=1,2", "hydra.sweep.dir=here")
    assert refused.returncode != 0
    assert "is not a ledger of metashot" in refused.stderr


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_other_launchers_keep_the_same_ledger(program, sweep_of, launcher):
    arguments = ("x=1,2,3", "y=good,bad", f"hydra/launcher={launcher}")
    if launcher == "joblib":
        arguments += ("hydra.launcher.n_jobs=2",)
    assert program(*arguments).returncode == 1
    folder, records = sweep_of()
    assert [record["state"] for record in records].count("failed") == 1
    (program.folder / "mended").touch()
    again = program(*arguments)
    assert again.returncode == 0, again.stderr
    assert len(started(program)) == 7
    assert len(values(folder)) == 6
    assert {record["folder"] for record in records} == {str(folder / str(number)) for number in range(6)}


def test_a_killed_worker_leaves_a_summary(program, sweep_of):
    done = program("x=1", "y=good,dies", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert done.returncode == 1
    assert "the launcher failed" in done.stdout
    assert "error: sweep: 2 jobs:" in done.stderr
    assert "(the same command runs what is left)" in done.stderr
    folder, records = sweep_of()
    assert records[1]["state"] == "running"
    assert (folder / "summary.md").is_file()


def test_a_launcher_that_is_not_installed_says_what_to_install():
    error = MissingConfigException("absent", "hydra/launcher/ray", ["basic", "ray_local"])
    expected = "hydra/launcher: 'ray' is not installed (pip install 'metashot[ray]')"
    assert explain(error) == expected


def test_a_search_asks_tells_and_resumes(program, sweep_of):
    pytest.importorskip("optuna")
    arguments = ("x=int(interval(1,50))", "y=good,fine", "hydra.sweep.dir=found")
    first = program(*arguments, "hydra.sweeper.search.n_trials=4")
    assert first.returncode == 0, first.stderr
    assert "best: x=" in first.stdout
    second = program(*arguments, "hydra.sweeper.search.n_trials=7", "hydra.sweeper.search.batch=2")
    assert second.returncode == 0, second.stderr
    _, records = sweep_of()
    assert len(records) <= 7
    assert len(started(program)) == len(records)
    assert all(record["state"] == "finished" for record in records)
    best = max(record["figure"] for record in records)
    assert f"-> {best:.4g}" in second.stdout


def test_an_interval_without_a_search_is_refused(program):
    done = program("x=interval(1,5)")
    assert done.returncode != 0
    assert "x: an interval is for a search" in done.stderr
