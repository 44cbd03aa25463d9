"""The same numbers whatever the threads and the hash seed; another fingerprint for whatever decides a value; flat memory."""

import json
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from commands import COMMANDS, ROOTS, SYNTHETIC, lay_out

EVALUATE = (*SYNTHETIC, "k=4", "method=direct", "seeds=[100]", *ROOTS)
DECIDING = {
    "k": "k=3", "scorer": "scorer=plain", "data's seed": "data.seed=1", "difficulty": "data.difficulty=hard", "test size": "data.test_size=5",
    "seed": "seeds=[13]", "split": "split=dev", "truncation": "truncation=per_option", "method": "method=channel",
    "calibration": "method=calibrated", "normalization": "method.normalization=sum", "layout": "method.layout=space",
    "weights": "model.seed=1", "architecture": "model.path=llama", "dtype": "model.dtype=bfloat16", "prompt": "prompt=template",
    "separator": "prompt=template prompt.separator=' | '", "limit": "prompt.max_length=64", "example limit": "prompt.max_length_per_example=24",
    "overlong": "prompt.overlong=cut_start", "boundary": "prompt.boundary=joint",
    "strategy": "selection.strategy=random", "order": "selection.order=2", "noise": "selection.label_noise=0.5",
    "labels": "selection.labels=flipped", "shown": "selection.shown=labels",
}  # fmt: skip
NOT_DECIDING = {
    "title": "method.title=x", "row": "method.row=7", "tags": "tags=[a]", "name": "name=x", "condition": "condition=x",
    "batch size": "scorer.batch_size=2", "logger": "logger=jsonl", "draws": "report.draws=10",
    "trainer": "trainer.steps=7", "compare": "compare.seed=3", "workers": "prepare.workers=1", "supmer": "supmer=small",
    "progress": "trainer.progress=false",
}  # fmt: skip


def fingerprints(folder):
    rows = [json.loads(line) for line in (folder / "out" / "results.jsonl").read_text().splitlines()]
    return {row["fingerprint"] for row in rows}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_what_decides_misses_and_what_does_not_hits(program):
    assert program(EVALUATE, "base") == 0, program.said("base")
    base, seen = fingerprints(program.folder / "base"), set()
    for number, (name, words) in enumerate({**DECIDING, **NOT_DECIDING}.items()):
        changes = (
            [word.replace("' | '", "'\\ |\\ '") for word in words.split(" ", 1)]
            if "|" in words
            else words.split()
        )
        kept = [
            text
            for text in EVALUATE
            if text.partition("=")[0] not in {one.partition("=")[0] for one in changes}
        ]
        assert program([*kept, *changes], f"change-{number}") == 0, (name, program.said(f"change-{number}"))
        found = fingerprints(program.folder / f"change-{number}")
        if name in NOT_DECIDING:
            assert found == base, name
        else:
            assert found.isdisjoint(base), name
            assert found.isdisjoint(seen), name
            seen |= found
    print(f"identity: {len(DECIDING)} deciding keys miss, {len(NOT_DECIDING)} others hit")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["evaluate", "train", "tuning", "prepare"])
def test_hash_seed_changes_no_byte_and_threads_no_prediction(warm, program, holds, kind):
    """A hash seed needs an interpreter of its own; threads may change the last digits of a sum, not what is chosen."""
    import subprocess

    lay_out(program.folder)
    outcomes = []
    for number, environment in enumerate(
        ({"PYTHONHASHSEED": "0"}, {"PYTHONHASHSEED": "12345"}, {"OMP_NUM_THREADS": "2"})
    ):
        root = program.folder / f"run-{number}"
        root.mkdir()
        arguments = [
            text.replace("ROOT", str(root)).replace("SHARED", str(program.folder)) for text in COMMANDS[kind]
        ]
        code = "from metashot.stages.command import main; main()"
        subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=root, check=True, capture_output=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )  # fmt: skip
        outcomes.append(holds(root))
    assert outcomes[0] == outcomes[1]
    if kind in ("evaluate", "tuning"):
        chosen = [[row["prediction"] for row in found["out/predictions.jsonl"]] for found in outcomes]
        assert chosen[0] == chosen[2]
    if kind == "prepare":
        assert outcomes[0] == outcomes[2]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("work", ["cells", "steps"])
def test_memory_stays_flat(program, work):
    """500 cells and 2,000 steps: what is held at the end is what was held after the first part."""
    seeds = ",".join(str(seed) for seed in range(1, 251))
    short = ",".join(str(seed) for seed in range(1, 51))
    commands = {
        "cells": [(*SYNTHETIC, "method=direct", f"seeds=[{some}]", *ROOTS) for some in (short, seeds)],
        "steps": [
            ("stage=train", *SYNTHETIC, "method=metaicl", f"trainer.steps={steps}", "trainer.save_every=0", "trainer.pool_size=32",
             "trainer.evaluate_every=0", "trainer.progress=false", "trainer.batch_size=1", "trainer.micro_batch_size=1",
             "k=1", *ROOTS) for steps in (200, 2000)
        ],
    }[work]  # fmt: skip
    peaks = []
    for number, command in enumerate(commands):
        assert program(command, f"run-{number}") == 0, program.said(f"run-{number}")
        peaks.append(json.loads((program.folder / f"run-{number}.peak").read_text()))
    print(f"{work}: {peaks[0] >> 10} and {peaks[1] >> 10} MiB")
    assert peaks[1] < peaks[0] + (48 << 10), peaks
