"""Recipes on rows written for this project, one entry per rule worth knowing."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from metashot.data.recipes import load_recipe
from metashot.data.recipes.recipe import DropCounts

ENTRIES: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parent / "fixtures" / "recipe_examples.yaml").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("entry", ENTRIES, ids=[f"{entry['task']}: {entry['why']}" for entry in ENTRIES])
def test_rows_become_lines(entry: dict[str, Any]) -> None:
    made = load_recipe(entry["task"]).convert(entry["rows"])
    assert [[example.input, example.output, list(example.options)] for example in made] == entry["lines"]


def test_what_was_dropped_is_counted_by_reason() -> None:
    entry = next(one for one in ENTRIES if one["task"] == "wino_grande")
    counts = DropCounts()
    list(load_recipe("wino_grande").stream(entry["rows"], drops=counts))
    assert counts.as_dict() == {
        "left_out": {'field "answer" names no choice': 1},
        "original_stopped": {'field "answer" is no number': 1},
    }


FIXED: list[tuple[str, dict[str, Any], str, str]] = [
    ("tweet_eval-irony", {"text": "x", "label": 1}, "x", "irony"),
    ("tweet_eval-offensive", {"text": "x", "label": 1}, "x", "offensive"),
    ("ethos-directed_vs_generalized", {"text": "x", "directed_vs_generalized": 0}, "x", "generalized"),
    ("onestop_english", {"text": "x", "label": 2}, "x", "advanced"),
    ("imdb", {"text": "a\nb", "label": 0}, "a b", "negative"),
    ("ag_news", {"text": "hit\\new", "label": 0}, "hit new", "World"),
    ("piqa", {"goal": "g", "sol1": "a", "sol2": "b", "label": 1}, "goal: g [SEP] solution 1: a [SEP] solution 2: b", "solution 2"),
    ("search_qa", {"question": "q", "category": "c", "answer": "a"}, "question: q category: c", "a"),
    ("wiqa", {"question_stem": "q", "question_para_step": ["s"], "choices": {"text": ["a", "b"]}, "answer_label_as_choice": "A"}, "s q", "a"),
    ("proto_qa", {"question": {"normalized": "q"}, "answers": {"raw": {"a": 1, "b": 2}}}, "q", "b"),
    ("google_wellformed_query", {"content": "x", "rating": 0.61}, "x", "well-formed"),
    ("unifiedqa:mctest", {"line": "q \\n (A) x (B) y \\n s\tx"}, "q s", "x"),
]  # fmt: skip


@pytest.mark.parametrize(("task", "row", "text", "output"), FIXED, ids=[case[0] for case in FIXED])
def test_corrections_apply_only_when_asked(task: str, row: dict[str, Any], text: str, output: str) -> None:
    (fixed,) = load_recipe(task, fixes=True).convert([row])
    assert (fixed.input, fixed.output) == (text, output)
    assert not fixed.options or output in fixed.options
    if task != "google_wellformed_query":
        (published,) = load_recipe(task).convert([row])
        assert published != fixed
    assert load_recipe(task).fingerprint != load_recipe(task, fixes=True).fingerprint


def test_a_rating_of_exactly_the_limit_is_left_out_when_corrected() -> None:
    row = {"content": "x", "rating": 0.6000000238418579}
    assert load_recipe("google_wellformed_query").convert([row])
    assert not load_recipe("google_wellformed_query", fixes=True).convert([row])
