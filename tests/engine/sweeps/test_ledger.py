"""The ledger: each job once, whatever happens in between; a changed config is refused."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from metashot.base.errors import ConfigError, OutputError
from metashot.engine.sweeps.ledger import Job, JobState, Ledger
from metashot.engine.sweeps.summary import counts, sweep_markdown, sweep_table


def jobs(*ks, **changes):
    return [Job(("method=direct", f"k={k}"), {"k": k, "method": {"name": "direct"}} | changes) for k in ks]


def test_only_unfinished_jobs_are_left(tmp_path):
    ledger = Ledger(tmp_path)
    first, second, third = ledger.plan(jobs(1, 2, 3))
    ledger.start(first.key, tmp_path / "0")
    ledger.finish(first.key, 50.0)
    ledger.start(second.key, tmp_path / "1")
    ledger.start(third.key, tmp_path / "2")
    ledger.fail(third.key, ValueError("no\nluck"))
    again = Ledger(tmp_path)
    left = again.plan(jobs(1, 2, 3))
    assert [(record.number, record.state) for record in left] == [(1, JobState.RUNNING), (2, JobState.FAILED)]
    assert left[1].error == "ValueError: no luck"
    assert again.read(first.key).figure == 50.0
    assert counts(again.records()) == "3 jobs: 1 running, 1 finished, 1 failed"


def test_the_order_of_overrides_and_repeated_jobs_do_not_matter(tmp_path):
    ledger = Ledger(tmp_path)
    config = {"k": 1}
    left = ledger.plan([Job(("a=1", "k=1"), config), Job(("k=1", "a=1"), config)])
    assert len(left) == len(ledger.records()) == 1


def test_new_jobs_get_new_numbers(tmp_path):
    Ledger(tmp_path).plan(jobs(1, 2))
    assert [record.number for record in Ledger(tmp_path).plan(jobs(2, 3))] == [1, 2]


def test_a_changed_config_is_refused_with_the_difference(tmp_path):
    Ledger(tmp_path).plan(jobs(1))
    with pytest.raises(ConfigError, match=r"job 0 \(method=direct k=1\): .*changed.*split: .*-> \"dev\""):
        Ledger(tmp_path).plan(jobs(1, split="dev"))


def test_what_decides_no_result_may_change(tmp_path):
    Ledger(tmp_path).plan(jobs(1, logger={"kind": "none"}, results_root="a"))
    assert len(Ledger(tmp_path).plan(jobs(1, logger={"kind": "wandb"}, results_root="b"))) == 1


def test_a_pruned_job_is_not_run_again(tmp_path):
    ledger = Ledger(tmp_path)
    (record,) = ledger.plan(jobs(1))
    ledger.fail(record.key, RuntimeError("stopped"), pruned=True)
    assert ledger.plan(jobs(1)) == ()


def test_the_ledger_of_another_program_is_refused(tmp_path):
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger" / "ledger.json").write_text('{"project": "other", "format": 1}')
    with pytest.raises(OutputError, match=r"is not a ledger of metashot format 1: .*other.*hydra.sweep.dir"):
        Ledger(tmp_path)


def test_a_damaged_record_is_named(tmp_path):
    ledger = Ledger(tmp_path)
    (record,) = ledger.plan(jobs(1))
    path = Path(tmp_path, "ledger", f"{record.key}.json")
    path.write_text(path.read_text()[:20])
    with pytest.raises(OutputError, match=r"cannot be read.*remove it"):
        ledger.records()


def test_two_processes_do_not_run_one_sweep(tmp_path):
    with Ledger(tmp_path).lock(), pytest.raises(OutputError, match="another process runs this sweep"):
        Ledger(tmp_path).lock()


def test_records_are_plain_json(tmp_path):
    (record,) = Ledger(tmp_path).plan(jobs(1, path=Path("x")))
    content = json.loads((tmp_path / "ledger" / f"{record.key}.json").read_text())
    assert content["config"]["path"] == "x"
    assert content["state"] == "waiting"


def test_the_summary_shows_what_differs_between_jobs(tmp_path):
    ledger = Ledger(tmp_path)
    first, _ = ledger.plan(jobs(1, 2))
    ledger.fail(first.key, ValueError("a | b"))
    lines = sweep_markdown(ledger.records()).splitlines()
    assert lines[0] == "Sweep: 2 jobs: 1 waiting, 1 failed"
    assert lines[4] == r"| 0 | k=1 | failed |  | ValueError: a \| b |"


def test_what_decides_no_result_makes_no_other_job():
    plain = Job(("method=direct", "k=4"), {})
    words = (
        "logger=wandb",
        "+logger.x=1",
        "name=mine",
        "tags=[a]",
        "hydra/launcher=joblib",
        "report.level=0.9",
    )
    for word in words:
        assert Job((word, *plain.overrides), {}).key == plain.key, word
    for word in (
        "k=8",
        "scorer=plain",
        "logger_x=1",
        "truncation=per_option",
        "~selection",
        "stage=[train,evaluate]",
    ):
        assert Job((word, *plain.overrides), {}).key != plain.key, word


def test_a_job_that_is_left_runs_with_todays_overrides(tmp_path):
    ledger = Ledger(tmp_path)
    (first,) = ledger.plan([Job(("k=4",), {"k": 4})])
    (again,) = ledger.plan([Job(("k=4", "logger=wandb"), {"k": 4, "logger": {"kind": "wandb"}})])
    assert again.key == first.key
    assert again.overrides == ("k=4", "logger=wandb")


def test_a_record_that_was_changed_is_no_record(tmp_path):
    ledger = Ledger(tmp_path)
    job = Job(("k=1",), {"k": 1})
    ledger.plan([job])
    ledger.start(job.key, tmp_path)
    ledger.finish(job.key, 45.5)
    path = tmp_path / "ledger" / f"{job.key}.json"
    path.write_text(path.read_text().replace("45.5", "95.5"))
    with pytest.raises(OutputError, match=r"differs from its seal.*the job then runs again"):
        ledger.read(job.key)


def test_the_table_shows_overrides_and_errors_as_they_are(tmp_path):
    ledger = Ledger(tmp_path)
    words = ("seeds=[100,13]", "data.tasks=[demo-spam]", "model.path=a\\[b]")
    (record,) = ledger.plan([Job(words, {})])
    ledger.start(record.key, tmp_path / "0")
    ledger.fail(record.key, ValueError("got [red]1[/red] of [2]"))
    console = Console(file=io.StringIO(), width=200)
    console.print(sweep_table(ledger.records()))
    shown = console.file.getvalue()
    assert " ".join(words) in shown
    assert "got [red]1[/red] of [2]" in shown
