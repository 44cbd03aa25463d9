"""Train, evaluate and report in one command: planned, interrupted, resumed, swept over what the trainer alone reads."""

import json
import re
import signal

import pytest

CHAIN = (
    "stage=[train,evaluate,report]", "model=tiny", "model.path=gpt2", "method=metaicl", "data=synthetic", "data.train_tasks=4",
    "data.target_tasks=1", "data.test_size=4", "k=2", "seeds=[100]", "trainer.batch_size=4", "trainer.micro_batch_size=auto",
    "trainer.evaluate_every=0", "trainer.progress=false", "trainer.log_every=1", "logger=jsonl", "report.formats=[markdown]",
    "report.draws=20", "report.permutations=20",
)  # fmt: skip


def finished(process, status=0):
    """What it printed."""
    printed, problems = process.communicate(timeout=300)
    assert process.returncode == status, problems
    return printed


def weights(folder):
    """sha256 of a run's last weights, by its checkpoint's manifest."""
    newest = max((folder / "checkpoints").glob("step-*"))
    return json.loads((newest / "manifest.json").read_text())["files"]["model.safetensors"]


@pytest.mark.slow
def test_a_chain_is_planned_interrupted_resumed_and_reported_as_if_nothing_had_been(
    start, wait_for, tmp_path
):
    steps = "trainer.steps=120"
    plan = finished(start(*CHAIN[1:], steps, "stage=plan"))
    assert re.search(
        r"micro_batch_size=auto: 4 sequences a forward pass, 1 of them a step; one of 1,024 tokens", plan
    )
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    printed = finished(start(*CHAIN, steps, f"hydra.run.dir={whole}"))
    assert printed.count("trainer.micro_batch_size=auto: 4 sequences a forward pass") == 1
    process = start(*CHAIN, steps, f"hydra.run.dir={cut}")
    wait_for(process, cut / "metrics.jsonl", "train/loss")
    process.send_signal(signal.SIGTERM)
    finished(process, status=143)
    assert not (cut / "results.jsonl").exists()
    assert "continuing from" in finished(start(*CHAIN, steps, f"hydra.run.dir={cut}"))
    assert weights(cut) == weights(whole)
    rows = [json.loads((folder / "summary.json").read_text())["mean"] for folder in (whole, cut)]
    assert rows[0] == rows[1]
    assert "not finished" not in (cut / "report.md").read_text()


@pytest.mark.slow
def test_a_sweep_over_attention_dropout_trains_each_value_and_names_it(start, tmp_path):
    sweep = ("-m", *CHAIN, "trainer.steps=3", "trainer.attention_dropout=null,0.0")
    printed = finished(start(*sweep))
    assert "2 jobs: 2 finished" in printed
    (folder,) = (tmp_path / "root" / "sweeps").iterdir()
    assert weights(folder / "0") != weights(folder / "1")
    report = (folder / "1" / "report.md").read_text()
    assert "MetaICL [trainer.attention_dropout=null]" in report
    assert "MetaICL [trainer.attention_dropout=0.0]" in report
    assert "not finished" not in report
    again = finished(start(*sweep))
    assert "2 of 2 jobs are finished already" in again
