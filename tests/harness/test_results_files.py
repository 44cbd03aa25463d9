"""Results that the real lm-evaluation-harness wrote are one more system of a report; ours are files that it reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("lm_eval")

from lm_eval.utils import make_table

from metashot.engine.report.formats.harness_output import harness_files
from metashot.engine.report.reading.folders import read_folder
from metashot.engine.report.reading.harness_files import harness_results_files
from metashot.engine.report.reading.outputs import read_outputs
from metashot.engine.report.systems.results import collect_systems

CHOICES = [("one", -5.0), ("two words", -9.0), ("three", -4.0)]


def sample(place: int, gold: int, context: str = "Q?") -> dict:
    """One line as the harness writes it, version 0.4.13."""
    return {
        "doc_id": place, "doc": {}, "target": str(gold), "filter": "none", "metrics": ["acc"],
        "arguments": {f"gen_args_{i}": {"arg_0": context, "arg_1": f" {text}"} for i, (text, _) in enumerate(CHOICES)},
        "filtered_resps": [[str(value), "False"] for _, value in CHOICES], "acc": float(gold == 2),
    }  # fmt: skip


@pytest.fixture
def written(tmp_path: Path) -> Path:
    folder = tmp_path / "harness" / "model"
    folder.mkdir(parents=True)
    content = {
        "results": {"mini": {"acc,none": 0.5}}, "n-shot": {"mini": 2, "other": 0},
        "configs": {"mini": {"output_type": "multiple_choice", "target_delimiter": " "}, "other": {"output_type": "multiple_choice"}},
        "config": {"model": "hf", "model_args": {"pretrained": "org/small"}, "fewshot_seed": 1234},
    }  # fmt: skip
    (folder / "results_2026-01-01T00-00-00.json").write_text(json.dumps(content), encoding="utf-8")
    lines = [sample(0, 2), sample(1, 0)]
    (folder / "samples_mini_2026-01-01T00-00-00.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8"
    )
    return tmp_path


def test_samples_become_predictions_and_what_has_none_is_named(written):
    (path,) = {path.parent for path in written.rglob("results_*.json")}
    (outputs,) = read_folder(path)
    (row,) = outputs.results.to_dicts()
    assert (row["method"], row["model"], row["task"], row["k"], row["seed"]) == (
        "lm_eval",
        "small",
        "mini",
        2,
        1234,
    )
    assert row["value"] == 0.5
    assert outputs.predictions["prediction"].to_list() == ["three", "three"]
    assert outputs.predictions["gold"].to_list() == ["three", "one"]
    assert outputs.predictions["nll"].to_list()[0] == [5.0, 9.0, 4.0]
    assert "task other has no samples" in outputs.problems[0]


def test_our_figures_are_files_that_the_harness_reads_and_no_run_of_its_own(written):
    answers, _ = collect_systems(read_outputs([written]), lambda _: (), draws=50, level=0.95, seed=0)
    assert harness_files(answers, 50, 0.95, 0) == {}  # the harness ran it, it has a file already
    from dataclasses import replace

    ours = [replace(row, system=replace(row.system, method="direct")) for row in answers]
    ((name, text),) = harness_files(ours, 50, 0.95, 0).items()
    content = json.loads(text)
    assert content["results"]["mini"]["acc,none"] == 0.5
    assert 0.2 < content["results"]["mini"]["acc_stderr,none"] < 0.5
    assert "|mini" in make_table(content)
    path = written / name
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    assert harness_results_files(path.parent) == []


def test_another_programs_file_of_that_name_is_left_alone(tmp_path):
    (tmp_path / "results_mine.json").write_text("[1, 2]", encoding="utf-8")
    assert harness_results_files(tmp_path) == []
