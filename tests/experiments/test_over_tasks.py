"""The interval over tasks is Student's, and its published figures come out of the stored rows."""

import importlib.util
import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "metaicl_real"


@pytest.fixture(scope="module")
def over_tasks():
    spec = importlib.util.spec_from_file_location("over_tasks", FOLDER / "over_tasks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
