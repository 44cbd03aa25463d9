"""Recipes of your own: the README's example, and an answer with file, line and way out for each slip."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

from metashot.base.errors import DataError
from metashot.data.preparation.prepare import PrepareSettings, prepare
from metashot.data.recipes import check_recipes, load_recipe, metric_of, recipe_names, task_type
from metashot.data.settings import Setting, load_setting
from metashot.data.task import TaskType
from metashot.data.tasks.source import JsonlSource

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "own_data.md"
RECIPE = """\
name: tickets
about: Which team should answer the support ticket?
task_type: classification
ontology: routing
source:
  files: {train: tickets_train.csv, test: tickets_test.csv}
splits: {train: train, test: test}
fields: {subject: text, body: text, team: number}

kind: labelled
input: "subject: {subject} [SEP] body: {body}"
label: team
labels: {0: billing, 1: technical}
options: [billing, technical]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The README's folder: a recipe, a setting and two CSV files."""
    own = tmp_path / "my_tasks"
    own.mkdir()
    (own / "tickets.yaml").write_text(RECIPE)
    (own / "tickets_setting.yaml").write_text("test: [tickets]\n")
    for split, n in (("train", 12), ("test", 5)):
        lines = [f'Subject {i},"Body {i}, with a comma.",{i % 2}' for i in range(n)]
        (own / f"tickets_{split}.csv").write_text("subject,body,team\n" + "\n".join(lines) + "\n")
    return own


def test_the_readme_example_prepares_and_loads(tmp_path: Path, folder: Path) -> None:
    settings = PrepareSettings(
        root=tmp_path / "out",
        setting=load_setting(str(folder / "tickets_setting.yaml")),
        k=4,
        online=False,
        recipe_path=(str(folder),),
    )
    report = prepare(settings, Console(quiet=True))
    assert [one.status for one in report.outcomes] == ["ok"], report.outcomes[0].reason
    line = json.loads((tmp_path / "out/tickets/tickets_4_100_test.jsonl").read_text().splitlines()[1])
    assert line == {
        "task": "tickets",
        "input": "subject: Subject 1 [SEP] body: Body 1, with a comma.",
        "output": "technical",
        "options": ["billing", "technical"],
    }
    data = JsonlSource(settings.root, {"tickets": "classification"}).load("tickets", k=4, seed=13)
    assert (len(data.demonstrations), len(data.test)) == (4, 5)
    assert data.task_type is TaskType.CLASSIFICATION


def test_the_page_on_own_data_shows_this_example() -> None:
    page = PAGE.read_text(encoding="utf-8")
    block = page.split("`tasks/tickets.yaml`", 1)[1].split("```yaml\n", 1)[1].split("```", 1)[0]
    assert yaml.safe_load(block) == yaml.safe_load(RECIPE)


@pytest.mark.parametrize("suffix", ["tsv", "jsonl", "parquet"])
def test_tables_of_every_kind_are_sources(tmp_path: Path, folder: Path, suffix: str) -> None:
    rows = [{"subject": f"s{i}", "body": "b", "team": i % 2} for i in range(8)]
    path = folder / f"data.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text("subject\tbody\tteam\n" + "".join(f"{r['subject']}\tb\t{r['team']}\n" for r in rows))
    text = RECIPE.replace("tickets_train.csv, test: tickets_test.csv", f"data.{suffix}")
    text = text.replace("test: test}", "test: train, cut: {train: [0.0, 0.5], test: [0.5, 1.0]}}")
    (folder / "tickets.yaml").write_text(text)
    settings = PrepareSettings(
        root=tmp_path / "out",
        setting=Setting("x", [], ["tickets"], []),
        k=2,
        online=False,
        recipe_path=(str(folder),),
    )
    report = prepare(settings, Console(quiet=True))
    assert [one.status for one in report.outcomes] == ["ok"], report.outcomes[0].reason


def test_own_recipes_are_listed_and_typed(folder: Path) -> None:
    path = [folder]
    assert len(recipe_names(path)) == 143
    assert check_recipes(path) == 143
    assert task_type("tickets", path) is TaskType.CLASSIFICATION
    assert metric_of("tickets", path) == "macro_f1"
    (folder / "tickets.yaml").write_text(RECIPE + "metric: accuracy\n")
    assert metric_of("tickets", path) == "accuracy"


SLIPS = [
    ("lables: {0: a}", "labels: {0: billing, 1: technical}", r'tickets.yaml:13: unknown key "lables".*\(did you mean .labels.'),
    ("kind: labeled", "kind: labelled", r'tickets.yaml:10: unknown kind "labeled" \(did you mean .labelled.'),
    ('input: "{subjct}"', 'input: "subject: {subject} [SEP] body: {body}"', r'tickets.yaml:11: input names the unknown field "subjct" \(did you mean .subject.'),
    ("label: tean", "label: team", r'tickets.yaml:12: label names the unknown field "tean" \(did you mean .team.'),
    ("task_type: regression", "task_type: classification", r"tickets.yaml:3: task_type: .*got 'regression'"),
    ("", "about: Which team should answer the support ticket?", r'lacks the key "about"'),
    ("splits: {train: train, tset: test}", "splits: {train: train, test: test}", r'tickets.yaml:7: unknown key "tset".*did you mean .test.'),
    ("clean: [{in: bdy, strip: true}]", "options: [billing, technical]", r'tickets.yaml:14: clean names the unknown field "bdy"'),
    ("name: piqa", "name: tickets", r'tickets.yaml:1: the name "piqa" is taken by .*piqa.yaml'),
    ("", "name: tickets", r"the recipe has no name"),
    ("name: tickets\nname: two", "name: tickets", r'tickets.yaml:2: key "name" stands twice'),
]  # fmt: skip


@pytest.mark.parametrize(("slip", "right", "message"), SLIPS)
def test_a_slip_in_a_recipe_is_answered_with_its_place(
    folder: Path, slip: str, right: str, message: str
) -> None:
    assert right in RECIPE
    (folder / "tickets.yaml").write_text(RECIPE.replace(right, slip))
    with pytest.raises(DataError, match=message):
        check_recipes([folder])


def test_two_recipes_with_one_name_are_refused(folder: Path) -> None:
    (folder / "again.yaml").write_text(RECIPE)
    with pytest.raises(DataError, match=r'the name "tickets" is taken by .*again.yaml'):
        recipe_names([folder])


def test_a_family_file_holds_several_tasks(folder: Path) -> None:
    shared = (
        RECIPE.replace("name: tickets\n", "")
        .replace("label: team\n", "")
        .replace("team: number", "a: number, b: number")
    )
    (folder / "tickets.yaml").write_text(
        shared + "tasks:\n  one: {label: a}\n  two: {label: b, notes: [x]}\n"
    )
    path = [folder]
    rows = [{"subject": "s", "body": "b", "a": 0, "b": 1}]
    assert [load_recipe(name, path=path).convert(rows)[0].output for name in ("one", "two")] == [
        "billing",
        "technical",
    ]
    (folder / "tickets.yaml").write_text(shared + "tasks:\n  one: {label: a}\n  two: {lable: b}\n")
    with pytest.raises(DataError, match=r'unknown key "lable" in the recipe of two \(did you mean .label.'):
        check_recipes(path)


ROWS: list[tuple[dict[str, Any], str]] = [
    ({"subject": "s", "team": 0}, r'tickets, train row 1: has no field "body" \(the row has: subject, team'),
    ({"subject": "s", "body": "b", "team": 2}, r'tickets, train row 1: field "team" holds the unknown label 2 \(the recipe knows 0, 1'),
    ({"subject": {"x": 1}, "body": "b", "team": 0}, r'tickets, train row 1: field "subject" is a struct'),
]  # fmt: skip


@pytest.mark.parametrize(("row", "message"), ROWS)
def test_a_row_that_does_not_fit_is_named(folder: Path, row: dict[str, Any], message: str) -> None:
    recipe = load_recipe("tickets", path=[folder])
    with pytest.raises(DataError, match=message):
        recipe.convert([{"subject": "s", "body": "b", "team": 1}, row])


def test_unknown_names_are_answered_with_near_ones(folder: Path) -> None:
    with pytest.raises(DataError, match=r'no recipe is called "glue-mnly" \(did you mean .glue-mnli.'):
        load_recipe("glue-mnly")
    with pytest.raises(DataError, match=r"data.recipe_path: .* is no folder"):
        recipe_names([folder / "nowhere"])
    with pytest.raises(DataError, match=r'glue-mnli has no split "trian"'):
        load_recipe("glue-mnli").convert([], split="trian")
