"""Published intervals of metaicl_real come out of stored rows: over tasks by Student's t, over rows by resampling."""

import importlib.util
import json
import random
import shutil
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "metaicl_real"


def script(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def over_tasks():
    return script("over_tasks")


def test_two_differences_by_hand(over_tasks):
    """Mean 2, standard error 1; t of one degree of freedom at 97.5 % is 12.706."""
    low, high = over_tasks.interval_over_tasks([1.0, 3.0])
    assert (low, high) == pytest.approx((2 - 12.706, 2 + 12.706), abs=1e-3)


def test_the_table_of_the_page_is_that_of_the_stored_rows(over_tasks):
    page = (FOLDER / "README.md").read_text()
    stored = json.loads((FOLDER / "results" / "comparison_independent.json").read_text())
    for rule, found in stored.items():
        differences = [task["trained"] - task["raw"] for task in found["tasks"].values()]
        low, high = over_tasks.interval_over_tasks(differences)
        words = rule.replace("_", ", ")
        own_low, own_high = found["interval"]
        assert (
            f"| {words} | {found['difference']:+.1f} | {own_low:+.1f} to {own_high:+.1f} | {low:+.1f} to {high:+.1f} |"
            in page
        )


def made_run(folder, skill):
    """An evaluation of two tasks and seeds, whose gold option gets `skill` nats less."""
    folder.mkdir()
    rng, rows = random.Random(skill), []
    for task in ("one", "two"):
        for seed in (13, 100):
            for _ in range(12):
                gold = rng.choice(["yes", "no"])
                nll = [rng.random() - (skill if option == gold else 0) for option in ("yes", "no")]
                rows.append(
                    {"task": task, "seed": seed, "gold": gold, "options": ["yes", "no"], "sum_nll": nll, "n_tokens": [1, 1],
                     "n_chars": [3, 2], "n_bytes": [3, 2], "null_sum_nll": [], "null_n_tokens": []}
                )  # fmt: skip
    cells = [
        {"task": task, "seed": seed, "metric": "macro_f1"} for task in ("one", "two") for seed in (13, 100)
    ]
    for name, lines in (("predictions", rows), ("results", cells)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(folder)


def test_a_comparison_is_made_again_from_the_rows_that_it_keeps(tmp_path, capsys):
    compare = script("compare_runs")
    out = tmp_path / "found.json"
    compare.main(out, [made_run(tmp_path / "raw", 0.1), made_run(tmp_path / "trained", 0.8)])
    first, said = out.read_text(), capsys.readouterr().out
    for folder in ("raw", "trained"):
        shutil.rmtree(tmp_path / folder)
    out.unlink()
    compare.main(out, [])
    assert (out.read_text(), capsys.readouterr().out) == (first, said)
    assert json.loads(first)["none"]["difference"] > 5
