"""Rules of recipes over rows as people have them: what a rule says happens, is counted and said, or is an error with its line."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from metashot.data.preparation.prepare import Outcome, PrepareSettings, prepare
from metashot.data.rows.jsonl import read_examples
from metashot.data.rows.manifest import read_manifest
from metashot.data.settings import Setting
from metashot.data.task import Scoring, TaskType
from metashot.data.tasks.modules import HubData, JsonlData

HEAD = """
name: t
about: test
ontology: x
source: {files: {train: %s, test: %s}}
splits: {train: train, test: test}
"""
LABELLED = """
task_type: classification
fields: {text: text, y: number, lang: text, m.lang: text}
kind: labelled
input: "{text}"
label: y
labels: {0: neg, 1: pos}
options: [neg, pos]
"""
GROUPED = """
task_type: multi-choice
fields: {qid: text, q: text, p: text, a: text, ok: number, lang: text}
kind: grouped_choices
input: "{q}"
group_by: qid
choice: a
right: ok
context: "{p}"
"""


def prepared(folder: Path, recipe: str, rows: list[dict[str, Any]], name: str = "d.jsonl") -> Outcome:
    if name == "d.jsonl":
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "t.yaml").write_text(HEAD % (name, name) + recipe)
    settings = PrepareSettings(
        root=folder / "out", setting=Setting("x", [], ["t"], []), k=1, seeds=(100,), online=False,
        recipe_path=(str(folder),),
    )  # fmt: skip
    (outcome,) = prepare(settings, Console(quiet=True)).outcomes
    return outcome


def made(folder: Path) -> list[tuple[str, str]]:
    return [(one.input, one.output) for one in read_examples(folder / "out/t/t_1_100_test.jsonl")]


def row(text: str, y: Any = 0, lang: Any = "en", **more: Any) -> dict[str, Any]:
    return {"text": text, "y": y, "lang": lang, "m": {"lang": lang}, **more}


MATCHING = [
    ("lang, equals: [2]", "2"), ("lang, equals: ['2']", 2), ("lang, equals: [true]", 1), ("lang, equals: ['1']", True),
    ("lang, equals: [2]", "2.0"), ("m.lang, equals: [de]", "de"), ("lang, equals: [null]", ""),
    ("lang, above: 3", "4"), ("lang, below: 3", "2"), ("m.lang, above: 3", 4),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "value"), MATCHING, ids=map(repr, MATCHING))
def test_a_drop_rule_takes_twins_and_nested_fields(tmp_path: Path, rule: str, value: Any) -> None:
    rows = [row("a", lang=3), row("b", lang=value), row("c", lang=3)]
    outcome = prepared(tmp_path, LABELLED + f"drop: [{{field: {rule}, why: other}}]\n", rows)
    assert outcome.status == "ok", outcome.reason
    assert made(tmp_path) == [("a", "neg"), ("c", "neg")]
    assert outcome.record is not None
    assert any("other (first: " in note and "d.jsonl:2)" in note for note in outcome.record.notes)


def test_a_rule_that_matched_no_row_is_said(tmp_path: Path) -> None:
    rules = "drop: [{field: lang, equals: [de], why: a}, {field: lang, equals: [fr], why: b}, {field: m.lang, equals: [de]}]\n"
    outcome = prepared(tmp_path, LABELLED + rules, [row("a"), row("b", lang="de")])
    assert outcome.record is not None
    said = [note for note in outcome.record.notes if "matched no row" in note]
    assert said == ["drop rule 2 (field lang) matched no row of train and test"]


WRONG = [
    ("{field: lagn, equals: ['2']}", r'drop names the unknown field "lagn" (did you mean \'lang\'?)'),
    ("{field: m.lagn, equals: ['2']}", r'drop names the unknown field "m.lagn" (did you mean \'m.lang\'?)'),
    ("{field: lang, equals: ['2'], above: 1}", "2 conditions: give one of equals, above, below and missing"),
    ("{field: lang}", "0 conditions: give one of equals, above, below and missing"),
]


@pytest.mark.parametrize(("rule", "message"), WRONG, ids=[rule for rule, _ in WRONG])
def test_a_rule_that_can_match_nothing_is_an_error_of_the_recipe(
    tmp_path: Path, rule: str, message: str
) -> None:
    outcome = prepared(tmp_path, LABELLED + f"drop: [{rule}]\n", [row("a")])
    assert outcome.status == "failed"
    assert message.replace("\\", "") in outcome.reason
    assert "t.yaml:" in outcome.reason


def answer(qid: Any, q: str, a: str, ok: Any, lang: str = "en", p: str = "p") -> dict[str, Any]:
    return {"qid": qid, "q": q, "p": p, "a": a, "ok": ok, "lang": lang}


FIRST = [answer(1, "q1", "a1", 1), answer("1", "q1", "a2", 0)]


@pytest.mark.parametrize("group", [None, "", " ", float("nan")])
def test_rows_without_a_group_are_dropped_and_counted(tmp_path: Path, group: Any) -> None:
    rows = [*FIRST, answer(group, "q2", "b1", 1), answer(group, "q3", "c1", 1)]
    outcome = prepared(tmp_path, GROUPED, rows)
    assert outcome.status == "ok", outcome.reason
    assert made(tmp_path) == [("q1 p", "a1")]
    assert outcome.record is not None
    assert sum(outcome.record.dropped["test"]["dropped"].values()) == 2
    assert any("qid" in note and "d.jsonl:3" in note for note in outcome.record.notes)


def test_drop_rules_of_grouped_choices_drop_rows_with_their_line(tmp_path: Path) -> None:
    rows = [*FIRST, answer(2, "q2", "b1", 1, "de"), answer(2, "q2", "b2", 0, "de")]
    outcome = prepared(tmp_path, GROUPED + "drop: [{field: lang, equals: [de], why: x}]\n", rows)
    assert made(tmp_path) == [("q1 p", "a1")]
    assert outcome.record is not None
    assert any("2 rows dropped: x (first: " in note and "d.jsonl:3" in note for note in outcome.record.notes)


GROUP_FAULTS = [
    (answer(1, "q1 other", "a3", 0), "differ in their question: 'q1' and 'q1 other'"),
    (answer(1, "q1", "a3", 0, p="other"), "differ in their context: 'p' and 'other'"),
    (answer(1, "q1", "a3", 2), 'field "ok" holds the unknown label 2'),
    (answer(1, "q1", "a3", "x"), "field \"ok\" holds the unknown label 'x'"),
]


@pytest.mark.parametrize(("wrong", "message"), GROUP_FAULTS, ids=[message for _, message in GROUP_FAULTS])
def test_rows_that_contradict_their_group_are_errors_with_their_line(
    tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    outcome = prepared(tmp_path, GROUPED, [*FIRST, wrong])
    assert outcome.status == "failed"
    assert message in outcome.reason
    assert "d.jsonl:3" in outcome.reason


def test_a_question_may_have_no_context(tmp_path: Path) -> None:
    outcome = prepared(tmp_path, GROUPED.replace('"{p}"', '""'), FIRST)
    assert outcome.status == "ok", outcome.reason
    assert made(tmp_path) == [("q1", "a1")]


@pytest.mark.parametrize("right", [1, "1", True, "true", 1.0])
def test_marks_of_right_answers_take_twins(tmp_path: Path, right: Any) -> None:
    outcome = prepared(tmp_path, GROUPED, [answer(1, "q", "a", right), answer(1, "q", "b", 0)])
    assert outcome.status == "ok", outcome.reason
    assert made(tmp_path) == [("q p", "a")]


CAUSE = """
task_type: multi-choice
fields: {p: text, r: text, a: text, b: text, y: number}
kind: cause_effect
premise: p
relation: r
choices: [a, b]
label: y
"""
WRITTEN = """
task_type: multi-choice
fields: {q: text, y: text}
kind: written_choices
input: "{q}"
index: y
options: {cut_at: "(A)"}
repairs: {}
"""


@pytest.mark.parametrize("value", [0, "0", False, 0.0, 1, "1", True, 2, -1, 7, "x", "b"])
@pytest.mark.parametrize("kind", ["cause_effect", "written_choices"])
def test_the_second_choice_is_1_and_nothing_else(tmp_path: Path, kind: str, value: Any) -> None:
    if kind == "cause_effect":
        rows = [{"p": " p ", "r": "cause", "a": "one", "b": "two", "y": value}] * 2
        outcome = prepared(tmp_path, CAUSE, rows)
        expected = ("Effect:  p ", "Cause: one" if str(value) in ("0", "False", "0.0") else "Cause: two")
    else:
        outcome = prepared(tmp_path, WRITTEN, [{"q": "which (A) one (B) two", "y": value}] * 2)
        expected = ("which", "one" if str(value) in ("0", "False", "0.0") else "two")
    if value in (2, -1, 7, "x", "b"):
        assert outcome.status == "failed"
        assert "holds the unknown label" in outcome.reason
        assert "d.jsonl:1" in outcome.reason
    else:
        assert outcome.status == "ok", outcome.reason
        assert made(tmp_path)[0] == expected


MAJORITY = (
    LABELLED.replace("kind: labelled", "kind: majority")
    .replace("label: y", "votes: y")
    .replace("y: number", "y: list of numbers")
)
SUPPORTING = """
task_type: free-form
fields: {q: text, t: list of texts, s: list of lists of texts, f: list of texts, a: text}
kind: supporting_paragraphs
input: "{q} {paragraphs}"
titles: t
sentences: s
supporting: f
answer: a
"""
SUPPORT = {"q": "q", "t": ["T", "U"], "s": [[" one ", "two"], ["three"]], "f": ["T", "U"], "a": "a"}
LISTS = [
    (MAJORITY, row("a", y="001"), "field \"y\" holds '001', not a list"),
    (MAJORITY, row("a", y=1), 'field "y" holds 1, not a list'),
    (MAJORITY, row("a", y=["x"]), "field \"y\" holds 'x' in a list of numbers"),
    (MAJORITY, row("a", y=[2, 2]), 'field "y" holds the unknown label 2'),
    (SUPPORTING, SUPPORT | {"f": "TU"}, "field \"f\" holds 'TU', not a list"),
    (SUPPORTING, SUPPORT | {"s": ["one", "two"]}, "field \"s\" holds 'one', not a list"),
    (SUPPORTING, SUPPORT | {"s": [["one"]]}, "has 2 titles for 1 lists of sentences"),
]


@pytest.mark.parametrize(("recipe", "wrong", "message"), LISTS, ids=[message for *_, message in LISTS])
def test_a_text_is_no_list_and_declared_lists_are_checked(
    tmp_path: Path, recipe: str, wrong: dict[str, Any], message: str
) -> None:
    outcome = prepared(tmp_path, recipe, [wrong])
    assert outcome.status == "failed"
    assert message in outcome.reason
    assert "d.jsonl:1" in outcome.reason


def test_votes_take_twins_and_paragraphs_keep_their_blanks(tmp_path: Path) -> None:
    assert prepared(tmp_path, MAJORITY, [row("a", y=[1, "1", True, 0, 0])]).status == "ok"
    assert made(tmp_path) == [("a", "pos")]
    assert prepared(tmp_path, SUPPORTING, [SUPPORT]).status == "ok"
    assert made(tmp_path) == [("q  one two three", "a")]


@pytest.mark.parametrize("flat", [True, False])
def test_a_path_names_a_column_or_a_nested_field(tmp_path: Path, flat: bool) -> None:
    recipe = (
        LABELLED.replace(
            "fields: {text: text, y: number, lang: text, m.lang: text}",
            "fields: {m.t: text, m.y: number, m.o: text}",
        )
        .replace("label: y", "label: m.y")
        .replace('"{text}"', '"{m.t}{m.o}"')
        + "optional: [m.o]\n"
    )
    rows = [{"t": "a", "y": 1, "o": None}, {"t": "b", "y": 0}]
    rows[1]["o"] = "!"
    shaped = [{f"m.{name}": value for name, value in one.items()} if flat else {"m": one} for one in rows]
    outcome = prepared(tmp_path, recipe, shaped)
    assert outcome.status == "ok", outcome.reason
    assert made(tmp_path) == [("a", "pos"), ("b!", "neg")]


def test_an_optional_nested_field_may_be_missing_with_all_that_holds_it(tmp_path: Path) -> None:
    recipe = LABELLED.replace('"{text}"', '"{text}{m.lang}"') + "optional: [m]\n"
    outcome = prepared(
        tmp_path, recipe, [row("a"), row("b") | {"m": None}, {"text": "c", "y": 1, "lang": "en"}]
    )
    assert outcome.status == "ok", outcome.reason
    assert made(tmp_path) == [("aen", "neg"), ("b", "neg"), ("c", "pos")]


def test_a_template_without_a_field_is_an_error(tmp_path: Path) -> None:
    outcome = prepared(tmp_path, LABELLED.replace('"{text}"', "text"), [row("a")])
    assert "t.yaml:" in outcome.reason
    assert "input: 'text' names no field, so it is the same for every row (write {text}," in outcome.reason


ANSWERS = """
task_type: free-form
fields: {q: text, ans: list of texts}
kind: first_answer
input: "{q}"
answers: ans
"""


@pytest.mark.parametrize(
    ("take", "answers", "expected"),
    [
        ("joined", ["b", "a", "b", " "], ("b", ("a",))),
        ("first", ["b", "a"], ("b", ("a",))),
        ("sorted", ["b", "a", "a"], ("a", ("b",))),
        ("most_frequent", {"b": 1, "a": 3}, ("a", ("b",))),
    ],
)
def test_all_right_answers_reach_the_rows(tmp_path: Path, take: str, answers: Any, expected: Any) -> None:
    recipe = ANSWERS + f"take: {take}\n"
    if take == "most_frequent":
        recipe = recipe.replace("list of texts", "map of answer text to count")
    outcome = prepared(tmp_path, recipe, [{"q": "q", "ans": answers}])
    assert outcome.status == "ok", outcome.reason
    (example,) = read_examples(tmp_path / "out/t/t_1_100_test.jsonl")
    assert (example.output, example.references) == expected
    (line,) = (tmp_path / "out/t/t_1_100_test.jsonl").read_text().splitlines()
    assert json.loads(line)["references"] == list(expected[1])


def test_type_and_metric_of_a_recipe_stand_in_the_manifest_and_decide(tmp_path: Path) -> None:
    recipe = LABELLED.replace("classification", "multi-choice") + "metric: macro_f1\n"
    assert prepared(tmp_path, recipe, [row("a"), row("b", 1)]).status == "ok"
    assert read_manifest(tmp_path / "out").scoring("t") == Scoring(TaskType.MULTI_CHOICE, "macro_f1")
    root = str(tmp_path / "out")
    for data in (HubData(root=root, recipe_path=(str(tmp_path),)), JsonlData(root=root)):
        cell = data.open().load("t", k=1, seed=100)
        assert (cell.task_type, cell.metric, cell.notes) == (TaskType.MULTI_CHOICE, "macro_f1", ())
    said = JsonlData(root=root, task_types={"t": "classification"}).open().load("t", k=1, seed=100)
    assert (said.task_type, said.metric) == (TaskType.CLASSIFICATION, None)


SHARDS = {
    "[part-0.jsonl, part-1.jsonl]": ["part-0.jsonl", "part-1.jsonl"],
    "part-*.jsonl": ["part-0.jsonl", "part-1.jsonl"],
    "shards": [
        "shards/train-0.parquet",
        "shards/train-1.parquet",
        "shards/test-0.parquet",
        "shards/README.txt",
    ],
    "plain": ["plain/a.parquet", "plain/b.parquet"],
    "[part-0.jsonl, 'shards/te*']": ["part-0.jsonl", "shards/test-0.parquet"],
}


@pytest.mark.parametrize("given", SHARDS)
def test_one_split_comes_from_several_files(tmp_path: Path, given: str) -> None:
    for number, name in enumerate(SHARDS[given]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        rows = [row(f"{name} {number}")]
        if name.endswith("parquet"):
            pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
        else:
            (tmp_path / name).write_text("".join(json.dumps(one) + "\n" for one in rows))
    outcome = prepared(tmp_path, LABELLED, [], name=given)
    assert outcome.status == "ok", outcome.reason
    wanted = [name for name in SHARDS[given] if "train" not in name and "README" not in name]
    assert [text.split(" ")[0] for text, _ in made(tmp_path)] == wanted
    (tmp_path / SHARDS[given][0]).write_bytes(b"damaged")
    assert "damaged" not in prepared(tmp_path, LABELLED, [], name=given).reason
    assert prepared(tmp_path, LABELLED, [], name=given).status == "failed"


def test_class_names_of_a_file_are_labels(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "y": ClassLabel(names=["bad", "good"])})
    Dataset.from_list([{"text": "a", "y": 1}, {"text": "b", "y": 0}], features=features).to_parquet(
        tmp_path / "d.parquet"
    )
    recipe = LABELLED.replace(", lang: text, m.lang: text", "")
    for labels in ("{bad: neg, good: pos}", "{0: neg, 1: pos}"):
        named = recipe.replace("{0: neg, 1: pos}", labels)
        assert prepared(tmp_path, named, [], "d.parquet").status == "ok"
        assert made(tmp_path) == [("a", "pos"), ("b", "neg")]


def test_control_tokens_in_the_text_are_said(tmp_path: Path) -> None:
    outcome = prepared(tmp_path, LABELLED, [row("a <|endoftext|> b"), row("<b>bold</b> [1]")])
    assert outcome.record is not None
    assert [note for note in outcome.record.notes if "control" in note] == [
        "texts hold '<|endoftext|>' (2 times), a control token of some models: it is read as text"
    ]
    assert made(tmp_path)[0][0] == "a <|endoftext|> b"
