"""Damage in every file of the folders that a command reads: it ends as on a fresh root, whatever is stored already."""

import json
import random
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from commands import COMMANDS, ROOTS, lay_out
from test_corruption import damaged

from metashot.engine.models.loading import LazyLanguageModel
from metashot.engine.models.sources import named_model

READS = {
    "data": ("model=tiny", "data=jsonl", "data.root=SHARED/input", "data.tasks=[two]", "method=direct", "k=2",
             "seeds=[100]", *ROOTS),
    "model": ("model=local", "model.path=SHARED/input", "data=synthetic", "data.train_tasks=1", "data.target_tasks=1",
              "data.test_size=4", "method=direct", "k=2", "seeds=[100]", *ROOTS),
    "checkpoint": ("model=tiny", "data=synthetic", "data.train_tasks=3", "data.target_tasks=2", "data.test_size=4", "k=2",
                   "method=metaicl", "checkpoint=SHARED/input", "seeds=[100]", *ROOTS),
}  # fmt: skip
"""A command for each folder that can be given to one; SHARED/input is that folder."""


def _make(kind, program):
    lay_out(program.folder)
    folder = program.folder / "input"
    if kind == "model":
        made = LazyLanguageModel(named_model("tiny")).load()
        made.model.save_pretrained(folder)
        made.tokenizer.save_pretrained(folder)
        return folder
    command, place = {"data": ("prepare", "data"), "checkpoint": ("train", "out")}[kind]
    assert program(COMMANDS[command], "made") == 0, program.said("made")
    shutil.copytree(program.folder / "made" / place, folder)
    return folder


def _told(program, name):
    """What a run gave: its values and scores, or nothing where it ended with an error."""
    out = program.folder / name / "out"
    if not (out / "results.jsonl").is_file():
        return None
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    scores = [json.loads(line)["nll"] for line in (out / "predictions.jsonl").read_text().splitlines()]
    return [(row["task"], row["seed"], row["value"], row["n"], row["test_digest"]) for row in rows], scores


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", READS)
def test_no_stored_cell_hides_damage_of_an_input(program, kind):
    folder = _make(kind, program)
    whole = program.folder / "whole-input"
    shutil.copytree(folder, whole)
    assert program(READS[kind], "stored") == 0, program.said("stored")
    expected = _told(program, "stored")
    files = [
        path.relative_to(whole) for path in sorted(whole.rglob("*")) if path.is_file() and path.stat().st_size
    ]
    files = [path for path in files if path.suffix not in (".lock", ".log")]
    draw, told = random.Random(0), {"refused": 0, "equal": 0, "computed anew": 0}
    for number, path in enumerate(path for path in files for _ in range(2)):
        content = (whole / path).read_bytes()
        (folder / path).write_bytes(damaged(draw, content, number))
        for name in ("stored", "fresh"):
            shutil.rmtree(program.folder / name / "out", ignore_errors=True)
        shutil.rmtree(program.folder / "fresh", ignore_errors=True)
        statuses = [program(READS[kind], name) for name in ("stored", "fresh")]
        found, fresh = _told(program, "stored"), _told(program, "fresh")
        assert set(statuses) <= {0, 1, 2}, (path, number, program.said("stored"), program.said("fresh"))
        assert "Traceback" not in program.said("stored") + program.said("fresh"), (path, number)
        assert statuses[0] == statuses[1], (path, number, program.said("stored"), program.said("fresh"))
        assert found == fresh, (path, number)
        if found != expected and not statuses[0]:
            assert "the best of the others is taken" in program.said("stored"), (path, number)
        told["refused" if statuses[0] else "equal" if found == expected else "computed anew"] += 1
        (folder / path).write_bytes(content)
    print(f"{kind}: {len(files)} files, {told}, none hidden by what was stored")
