"""`stage=recipe`: whatever table people have, the recipe that is written for it is read, prepared and says what it found."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from rich.console import Console

from metashot.base.errors import DataError
from metashot.data.preparation.card import show_card
from metashot.data.preparation.columns import Column, look_at
from metashot.data.preparation.draft import draft_recipe
from metashot.data.preparation.prepare import Outcome, PrepareSettings, prepare
from metashot.data.rows.jsonl import read_examples
from metashot.data.settings import load_setting

ROWS = [{"id": n, "text": f"text, number {n}", "label": n % 2} for n in range(12)]
NAMED = [one | {"label": ("no", "yes")[one["label"]]} for one in ROWS]


def written(path: Path, rows: list[dict[str, Any]], **how: Any) -> Path:
    frame = pd.DataFrame(rows)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False, **how)
    elif path.suffix == ".xlsx":
        frame.to_excel(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".json":
        path.write_text(json.dumps({"data": rows} if how else rows))
    else:
        path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def prepared(folder: Path, setting: Path, k: int) -> Outcome:
    settings = PrepareSettings(
        root=folder / "out",
        setting=load_setting(str(setting)),
        k=k,
        seeds=(100,),
        online=False,
        recipe_path=(str(folder),),
    )
    (outcome,) = prepare(settings, Console(quiet=True)).outcomes
    return outcome


TABLES = {
    "csv of numbers": ("my.csv", ROWS, {}, "labelled"),
    "csv of words": ("my.csv", NAMED, {}, "labelled"),
    "csv with semicolons": ("my.csv", ROWS, {"sep": ";"}, "labelled"),
    "csv in another encoding": ("my.csv", [one | {"text": "don’t"} for one in NAMED], {"encoding": "windows-1252"}, "labelled"),
    "csv with codes": ("my.csv", [one | {"label": ("007", "1.10")[n % 2]} for n, one in enumerate(ROWS)], {}, "labelled"),
    "csv of truth": ("my.csv", [one | {"label": bool(one["label"])} for one in ROWS], {}, "labelled"),
    "excel": ("my.xlsx", ROWS, {}, "labelled"),
    "parquet": ("my.parquet", NAMED, {}, "labelled"),
    "json": ("my.json", ROWS, {}, "labelled"),
    "json under a key": ("my.json", ROWS, {"under": "data"}, "labelled"),
    "nested json lines": ("my data.jsonl", [{"m": {"a.b": one["text"]}, "y": one["label"]} for one in ROWS], {}, "labelled"),
    "json lines of truth": ("my.jsonl", [{"t": one["text"], "y": one["label"] == 1} for one in ROWS], {}, "labelled"),
    "choices": ("my.jsonl", [{"q": f"q {n}", "c": ["a", "b", "c"], "right": n % 3} for n in range(9)], {}, "choices"),
    "choices from 1": ("my.jsonl", [{"q": f"q {n}", "c": ["a", "b", "c"], "right": 1 + n % 3} for n in range(9)], {}, "choices"),
    "several answers": ("my.jsonl", [{"q": f"question {n}", "answers": [f"a{n}", "b"]} for n in range(30)], {}, "first_answer"),
    "free text": ("my.csv", [{"question": f"q {n}?", "answer": f"answer {n}"} for n in range(60)], {}, "text_answer"),
    "odd names": ("my.csv", [{"a: b": one["text"], "#y": one["label"], "no": "x" * one["id"]} for one in ROWS], {}, "labelled"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "rows", "how", "kind"), TABLES.values(), ids=TABLES)
def test_the_recipe_that_is_written_prepares(
    tmp_path: Path, name: str, rows: list[dict[str, Any]], how: dict[str, Any], kind: str
) -> None:
    draft = draft_recipe(written(tmp_path / name, rows, **how))
    assert draft.rows == len(rows)
    text = draft.recipe.read_text(encoding="utf-8")
    assert yaml.safe_load(text)["kind"] == kind
    outcome = prepared(tmp_path, draft.setting, min(draft.k, 2))
    assert outcome.status == "ok", outcome.reason
    task = draft.task
    examples = read_examples(tmp_path / f"out/{task}/{task}_{min(draft.k, 2)}_100_test.jsonl")
    assert len(examples) == len(rows) - int(0.8 * len(rows))
    assert outcome.record is not None
    assert not outcome.record.dropped


def test_a_test_file_beside_the_training_file_is_the_test_split(tmp_path: Path) -> None:
    written(tmp_path / "t_train.csv", ROWS)
    written(tmp_path / "t_test.csv", ROWS[:3])
    draft = draft_recipe(tmp_path / "t_train.csv")
    assert draft.task == "t"
    assert prepared(tmp_path, draft.setting, 2).status == "ok"
    assert len(read_examples(tmp_path / "out/t/t_2_100_test.jsonl")) == 3


def test_nothing_is_written_over_and_a_table_without_answers_is_said(tmp_path: Path) -> None:
    path = written(tmp_path / "my.csv", ROWS)
    draft_recipe(path)
    with pytest.raises(DataError, match=r"my\.yaml: is there already \(set prepare.force=true"):
        draft_recipe(path)
    draft_recipe(path, force=True)
    with pytest.raises(DataError, match=r"no columns that ask and answer; found: text \(text\)"):
        draft_recipe(written(tmp_path / "alone.csv", [{"text": one["text"] * 3} for one in ROWS * 3]))
    (tmp_path / "quotes.csv").write_text('a,b\n"x" y,1\n')
    with pytest.raises(DataError, match=r"quotes.csv:2: .*source.quotes: none"):
        draft_recipe(tmp_path / "quotes.csv")


def test_columns_are_described_by_what_they_hold() -> None:
    rows = [
        {"a": "1", "b": ["x"], "m": {"t": None}, "z": "007"},
        {"a": "2", "b": [], "m": {"t": "true"}, "z": "1"},
    ]
    found = {one.name: one for one in look_at(rows)}
    kinds = {name: column.kind for name, column in found.items()}
    assert kinds == {"a": "number", "b": "list of texts", "m.t": "true or false", "z": "text"}
    assert found["m.t"].describe() == "true or false, 1 values (true), 4 characters, 1 of 2 blank"
    many = Column("n")
    for number in range(100):
        many.add(number)
    assert not many.values
    assert many.filled == 100


def test_the_card_counts_labels_duplicates_conflicts_and_columns(tmp_path: Path) -> None:
    rows = [*ROWS, ROWS[0], ROWS[1] | {"label": 0}, {"id": 99, "text": "", "label": 1}]
    path = tmp_path / "t_train.csv"
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ROWS[0])
        writer.writeheader()
        writer.writerows(rows)
    shutil.copy(path, tmp_path / "t_test.csv")
    outcome = prepared(tmp_path, draft_recipe(path).setting, 2)
    assert outcome.record is not None
    card = outcome.record.card
    assert card["parts"]["train"] == {
        "rows": 14, "labels": {"0": 8, "1": 6}, "duplicates": 1, "conflicts": 1,
        "input": 14.1, "output": 1.0,
    }  # fmt: skip
    assert card["columns"]["label"] == "number, 2 values (0, 1), 1 characters"
    console = Console(record=True, width=200)
    console.print(show_card("t", outcome.record))
    text = console.export_text()
    assert "answer '0'" in text
    assert "8 (57%)" in text
    assert "about " in text
    assert '1 row dropped: field "text" is blank' in text
    assert "again" not in text


def test_the_tickets_of_a_new_study_prepare_as_its_readme_says(tmp_path: Path, repository: Path) -> None:
    shutil.copytree(repository / "src/stages/study/tasks", tmp_path / "my")
    outcome = prepared(tmp_path / "my", tmp_path / "my/tickets_setting.yaml", 4)
    assert outcome.status == "ok", outcome.reason
    examples = read_examples(tmp_path / "my/out/tickets/tickets_4_100_test.jsonl")
    assert {one.output for one in examples} == {"billing", "technical"}
    assert len(examples) == 16
