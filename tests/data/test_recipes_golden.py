"""Every row of the reference conversions, for all 142 tasks, becomes exactly the reference's line."""

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from metashot.data.recipes import load_recipe, recipe_names

SHARED = Path(os.environ.get("METASHOT_SHARED", Path(__file__).parents[2] / "../shared"))
GOLDEN = SHARED / "golden" / "recipes.jsonl"

Call = tuple[str, str, list[dict[str, Any]], list[dict[str, Any]], list[list[Any]]]


def golden_calls() -> list[Call]:
    """(task, split, rows, final, raw): indexed rows of a split make one call, other rows one each."""
    if not GOLDEN.is_file():
        return []
    records = [json.loads(line) for line in GOLDEN.read_text(encoding="utf-8").splitlines()]
    together: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    calls: list[Call] = []
    for record in records:
        if "index" in record:
            together[record["task"], record["split"]].append(record)
        else:
            rows = record.get("rows", [record["row"]])
            calls.append((record["task"], record["split"], rows, record["final"], record["raw"]))
    for (task, split), members in together.items():
        members.sort(key=lambda record: record["index"])
        final = [line for record in members for line in record["final"]]
        raw = [pair for record in members for pair in record["raw"]]
        calls.append((task, split, [record["row"] for record in members], final, raw))
    return sorted(calls, key=lambda call: call[0])


CALLS = golden_calls()


def test_there_are_142_recipes_and_each_has_reference_rows() -> None:
    assert len(recipe_names()) == 142
    if CALLS:
        assert {call[0] for call in CALLS} == set(recipe_names())


@pytest.mark.skipif(not CALLS, reason="shared/golden is not here")
@pytest.mark.parametrize("call", CALLS, ids=[f"{index}-{call[0]}" for index, call in enumerate(CALLS)])
def test_rows_become_the_reference_lines(call: Call) -> None:
    task, split, rows, final, raw = call
    recipe = load_recipe(task)
    made = [
        {
            "task": example.task,
            "input": example.input,
            "output": example.output,
            "options": list(example.options),
        }
        for example in recipe.convert(rows, split=split)
    ]
    assert made == final
    if not recipe.is_line_based:  # the reference's raw pairs of UnifiedQA are the unprocessed fields
        assert [tuple(pair) for pair in recipe.pairs(rows, split)] == [
            (pair[0], str(pair[1])) for pair in raw
        ]
