"""Reading output folders: what is found, what is refused, and what is left out by name."""

import json

import polars as pl
import pytest

from metashot.engine.errors import OutputError
from metashot.engine.report.reading import Run, read_outputs
from metashot.engine.report.variants import variant_names, with_variants


def test_folders_are_found_below_a_root(demo_runs):
    outputs = read_outputs([demo_runs])
    assert len(outputs.runs) == 6
    assert outputs.results.height == 3 + 5 * 9
    assert outputs.predictions.height == outputs.results["n"].sum()
    assert outputs.problems == ()


def test_no_results_is_an_error_that_names_the_places(tmp_path):
    with pytest.raises(OutputError, match=r"report.runs: no results found .*run stage=evaluate first"):
        read_outputs([tmp_path])
    with pytest.raises(OutputError, match="no folder"):
        read_outputs([tmp_path / "nowhere"])


def test_another_format_version_is_refused(tmp_path, made, written):
    folder = written(tmp_path / "run", [made("mood", 13, 1.0)])
    row = json.loads((folder / "results.jsonl").read_text()) | {"format": 2}
    (folder / "results.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(OutputError, match=r"results.jsonl:1: format 2, this version reads 1"):
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
    assert "has 0 predictions of 40" in read_outputs([tmp_path]).problems[0]


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


def test_zero_shot_seeds_share_a_fingerprint_without_conflict(tmp_path, made, written):
    written(tmp_path / "run", [made("mood", seed, 1.0, k=0, method="zero") for seed in (13, 13)][:1])
    outputs = read_outputs([tmp_path])
    assert outputs.problems == ()
    assert outputs.results.select(pl.col("k")).item() == 0
