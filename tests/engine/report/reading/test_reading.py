"""Reading output folders: what is found, what is refused, and what is left out by name."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from rich.console import Console

from metashot.base.errors import OutputError
from metashot.base.json_text import sealed
from metashot.engine.report.build import ReportSettings, write_report
from metashot.engine.report.reading.folders import Run
from metashot.engine.report.reading.outputs import read_outputs
from metashot.engine.report.reading.variants import variant_names, with_variants


def test_folders_are_found_below_a_root(demo_runs):
    outputs = read_outputs([demo_runs])
    assert len(outputs.runs) == 6
    assert outputs.results.height == 3 + 5 * 9
    assert outputs.predictions.height == outputs.results["n"].sum()
    assert outputs.problems == ()


def test_no_results_is_an_error_that_names_the_places(tmp_path):
    with pytest.raises(OutputError, match=r"runs: no results found .*run stage=evaluate first"):
        read_outputs([tmp_path])
    with pytest.raises(OutputError, match="no folder"):
        read_outputs([tmp_path / "nowhere"])


def test_another_format_version_is_refused(tmp_path, made, written):
    folder = written(tmp_path / "run", [made("mood", 13, 1.0)])
    row = json.loads((folder / "results.jsonl").read_text()) | {"format": 99}
    (folder / "results.jsonl").write_text(json.dumps(sealed(row)) + "\n")
    with pytest.raises(OutputError, match=r"results.jsonl:1: format 99, this version reads 2"):
        read_outputs([tmp_path])


def test_a_foreign_file_is_refused(tmp_path):
    (tmp_path / "results.jsonl").write_text('{"accuracy": 0.5}\n')
    with pytest.raises(OutputError, match=r"results.jsonl:1: no 'setting' in this row"):
        read_outputs([tmp_path])


def test_one_fingerprint_with_two_values_is_named_and_left_out(tmp_path, made, written):
    result, predictions = made("mood", 13, 1.0)
    other, _ = made("quiz", 13, 1.0)
    written(tmp_path / "a", [(result, predictions), made("quiz", 13, 1.0)])
    changed = type(result)(**{n: getattr(result, n) for n in result.__dataclass_fields__} | {"value": 0.123})
    written(tmp_path / "b", [(changed, predictions)])
    outputs = read_outputs([tmp_path])
    assert outputs.results["task"].to_list() == ["quiz"]
    (problem,) = outputs.problems
    assert "mood" in problem
    assert "0.1230" in problem
    assert str(tmp_path / "a") in problem
    assert str(tmp_path / "b") in problem
    assert other.task == "quiz"


def test_a_cut_predictions_file_takes_its_cell_out(tmp_path, made, written):
    folder = written(tmp_path / "run", [made("mood", 13, 1.0), made("quiz", 13, 1.0)])
    text = (folder / "predictions.jsonl").read_text()
    (folder / "predictions.jsonl").write_text(text[:-40])
    outputs = read_outputs([tmp_path])
    assert outputs.results["task"].to_list() == ["mood"]
    assert "task quiz, seed 13 has 39 predictions of 40" in outputs.problems[0]


def test_missing_predictions_take_the_cell_out(tmp_path, made, written):
    folder = written(tmp_path / "run", [made("mood", 13, 1.0)])
    (folder / "predictions.jsonl").unlink()
    with pytest.raises(OutputError, match=r"no finished cell.* has 0 predictions of 40"):
        read_outputs([tmp_path])


def test_the_same_cell_in_two_folders_counts_once(tmp_path, made, written):
    for name in "ab":
        written(tmp_path / name, [made("mood", 13, 1.0)])
    outputs = read_outputs([tmp_path])
    kept = with_variants(outputs.results, outputs.runs)
    assert kept.height == 1
    assert kept["variant"].to_list() == [""]


def test_runs_that_differ_in_a_key_become_variants(tmp_path, made, written):
    for name in ("random", "nearest"):
        config = {"k": 16, "seeds": [13], "selection": {"strategy": name}, "logger": {"folder": name}}
        written(tmp_path / name, [made("mood", 13, 1.0, salt=name)], config)
    outputs = read_outputs([tmp_path])
    kept = with_variants(outputs.results, outputs.runs)
    assert sorted(kept["variant"]) == ["selection.strategy=nearest", "selection.strategy=random"]


def test_runs_without_a_config_are_told_apart_by_folder(tmp_path):
    runs = [Run(tmp_path / name, {}) for name in ("first", "second")]
    assert variant_names(runs) == ["first", "second"]


def test_runs_of_another_prompt_are_called_by_its_name_and_not_by_classes(tmp_path):
    configs = {
        "chat": {"_target_": "metashot.icl.prompting.config.ChatPrompt", "name": "chat", "system": None},
        "metaicl": {
            "_target_": "metashot.icl.prompting.config.MetaiclPrompt",
            "name": "metaicl",
            "boundary": "separate",
        },
    }
    runs = [
        Run(
            tmp_path / name,
            {f"prompt.{key}": value for key, value in config.items()} | {"truncation": "shared"},
        )
        for name, config in configs.items()
    ]
    assert variant_names(runs) == ["prompt=chat", "prompt=metaicl"]
    shorter = Run(tmp_path / "c", {**runs[0].config, "prompt.system": "Be brief."})
    assert len(set(variant_names([*runs, shorter]))) == 3  # the name alone would not tell two of them apart


def test_zero_shot_seeds_share_a_fingerprint_without_conflict(tmp_path, made, written):
    written(tmp_path / "run", [made("mood", seed, 1.0, k=0, method="zero") for seed in (13, 13)][:1])
    outputs = read_outputs([tmp_path])
    assert outputs.problems == ()
    assert outputs.results.select(pl.col("k")).item() == 0


@pytest.fixture
def recorded(tmp_path, made, written):
    """A folder of four cells, all of which its run.json expects."""
    cells = [made(task, seed, 1.0) for task in ("mood", "quiz") for seed in (13, 21)]
    folder = written(tmp_path / "run", cells)
    rows = [{"task": r.task, "seed": r.seed, "fingerprint": r.fingerprint} for r, _ in cells]
    (folder / "run.json").write_text(json.dumps(sealed({"format": 2, "config": {"k": 16}, "cells": rows})))
    assert read_outputs([folder]).problems == ()
    return folder


def found(folder):
    outputs = read_outputs([folder])
    return outputs.results.height, outputs.problems


@pytest.mark.parametrize("name", ["results.jsonl", "predictions.jsonl"])
def test_a_flipped_value_takes_its_cell_out_and_is_said(recorded, name):
    """A digit of a number: valid JSON as before, with another value."""
    path = recorded / name
    content = path.read_bytes()
    digit = re.search(rb'"(?:value|nll)": \[?\d\.(\d)', content)
    assert digit is not None
    other = b"1" if digit[1] != b"1" else b"2"
    path.write_bytes(content[: digit.start(1)] + other + content[digit.end(1) :])
    height, problems = found(recorded)
    assert height == 3
    assert any("damaged rows" in problem or "differ from their checksum" in problem for problem in problems)
    assert any("1 of 4 cells are missing (mood seed 13)" in problem for problem in problems)


def test_a_results_file_cut_short_is_no_smaller_experiment(recorded):
    path = recorded / "results.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2]) + lines[2][: len(lines[2]) // 2])
    height, problems = found(recorded)
    assert height == 2
    assert any("1 damaged rows" in problem for problem in problems)
    assert any("2 of 4 cells are missing (quiz seed 13, quiz seed 21)" in problem for problem in problems)


def test_of_two_rows_of_one_task_and_seed_the_last_counts_and_that_is_said(tmp_path, made, written):
    old, new = made("mood", 13, 0.1, salt="old"), made("mood", 13, 5.0, salt="new")
    folder = written(tmp_path / "run", [old, new])
    outputs = read_outputs([folder])
    assert outputs.results["value"].to_list() == [new[0].value] != [old[0].value]
    assert any("1 earlier rows of the same task and seed" in problem for problem in outputs.problems)


def test_rows_that_the_run_did_not_make_are_left_out(recorded, made, written):
    """An older command's row in a reused folder: run.json expects another fingerprint."""
    stale = made("quiz", 21, 5.0, salt="stale")
    cells = [made(task, seed, 1.0) for task in ("mood", "quiz") for seed in (13, 21)][:3]
    record = (recorded / "run.json").read_text()
    written(recorded, [*cells, stale])
    (recorded / "run.json").write_text(record)
    height, problems = found(recorded)
    assert height == 3
    assert any("1 results that this run, by its run.json, did not make (quiz seed 21)" in p for p in problems)


def test_a_damaged_run_record_leaves_its_folder_out(recorded, made, written):
    written(recorded.parent / "other", [made("weather", 13, 1.0)])
    path = recorded / "run.json"
    path.write_text(path.read_text().replace('"k": 16', '"k": 17'))
    outputs = read_outputs([recorded.parent])
    assert outputs.results["task"].to_list() == ["weather"]
    assert any("run.json is damaged: differs from its seal" in problem for problem in outputs.problems)


def test_results_that_are_gone_altogether_are_missed(recorded, made, written):
    written(recorded.parent / "other", [made("weather", 13, 1.0)])
    (recorded / "results.jsonl").unlink()
    assert any("4 of 4 cells are missing" in problem for problem in read_outputs([recorded.parent]).problems)


def test_rows_of_an_earlier_version_are_read_by_what_they_say(tmp_path, made):
    """Lines as 0.1.0 wrote them: no digest, format 1."""
    result, predictions = made("mood", 13, 1.0)
    (tmp_path / "results.jsonl").write_text(json.dumps(asdict(result) | {"format": 1}) + "\n")
    text = "".join(json.dumps(asdict(prediction)) + "\n" for prediction in predictions)
    (tmp_path / "predictions.jsonl").write_text(text)
    assert found(tmp_path) == (1, ())


@contextmanager
def not_allowed(path):
    """Nothing may be done with `path`; root, to whom nothing is forbidden, reads as another user meanwhile."""
    mode = path.stat().st_mode
    path.chmod(0)
    if os.getuid() == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        path.chmod(mode)


@pytest.mark.parametrize("name", ["", "results.jsonl", "predictions.jsonl", "run.json"])
def test_what_this_user_may_not_read_is_named_and_the_rest_is_reported(made, written, name):
    with TemporaryDirectory() as place:  # pytest's own folders are closed to other users
        root = Path(place)
        root.chmod(0o755)
        written(root / "other", [made("weather", 13, 1.0)])
        closed = written(root / "closed", [made("mood", 13, 1.0)])
        read_outputs([root])  # imports what reading needs
        with not_allowed(closed / name):
            outputs = read_outputs([root])
        assert outputs.lost == (closed,)
        assert any(str(closed) in problem and "left out" in problem for problem in outputs.problems)
        assert outputs.results["task"].to_list() == ["weather"]


def test_a_folder_whose_results_are_gone_and_whose_record_is_damaged_is_named(recorded, made, written):
    written(recorded.parent / "other", [made("weather", 13, 1.0)])
    (recorded / "results.jsonl").unlink()
    (recorded / "run.json").write_text("{")
    outputs = read_outputs([recorded.parent])
    assert outputs.lost == (recorded,)
    assert any(str(recorded) in problem and "run.json is damaged" in problem for problem in outputs.problems)


def test_a_report_that_lacks_a_folder_does_not_end_well(recorded, made, written, repository):
    """The command: the rest is written, the folder is named, and the status is 2."""
    written(recorded.parent / "other", [made("weather", 13, 1.0)])
    (recorded / "run.json").write_text("{")
    out = recorded.parent.parent / "out"
    words = ["stage=report", f"runs=[{recorded.parent}]", "report.draws=5", "report.permutations=5"]
    words += ["report.formats=[markdown]", f"hydra.run.dir={out}", f"results_root={out}"]
    ended = subprocess.run(
        [sys.executable, str(repository / "run.py"), *words], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: {recorded}: cannot be read or is damaged")
    assert "weather" in (out / "report.md").read_text()


def test_the_names_in_a_csv_files_header_are_no_formulas(made, written, tmp_path):
    written(tmp_path / "a", [made("mood", 13, 1.0, method="=1+1")])
    written(tmp_path / "b", [made("mood", 13, 1.0, method="@x", model="+y")])
    settings = ReportSettings((tmp_path,), tmp_path / "out", draws=5, permutations=5, formats=("csv",))
    outcome = write_report(settings, Console(file=io.StringIO()))
    cells = [cell for path in outcome.files for row in csv.reader(path.open()) for cell in row]
    assert {cell for cell in cells if "=1+1" in cell} >= {"'=1+1", "'=1+1, k=16 (tiny)"}
    signed_number = re.compile(r"[+]\d+\.\d+")  # which a spreadsheet reads as the number that it is
    assert [c for c in cells if c and c[:1] in "=+@" and not signed_number.fullmatch(c)] == []
