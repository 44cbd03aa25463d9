"""Data as people have it: every kind of it reaches the prompt as it is, is counted with its reason, or is an error with its line."""

import bz2
import csv
import gzip
import io
import json
import lzma
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from metashot.base.errors import DataError
from metashot.data.preparation.prepare import Outcome, PrepareSettings, prepare
from metashot.data.rows.jsonl import read_examples
from metashot.data.settings import Setting
from metashot.data.sources.tables import TableLayout, read_rows

CHOICES = """
name: t
about: test
task_type: multi-choice
ontology: x
source: {files: {train: FILE, test: FILE}}
splits: {train: train, test: test}
fields: {q: text, a: text, b: text, c: text, ch: list of text, ans: number}
kind: choices
input: "{q}"
choices: [a, b, c]
gold: {index: ans}
"""
LABELLED = """
name: t
about: test
task_type: classification
ontology: x
source: {files: {train: FILE, test: FILE}}
splits: {train: train, test: test}
fields: {text: text, label: number}
kind: labelled
input: "{text}"
label: label
labels: {0: neg, 1: pos}
options: [neg, pos]
"""
ROWS = [{"text": f"text {n}", "label": n % 2} for n in range(4)]


def prepared(folder: Path, recipe: str, file: str) -> Outcome:
    (folder / "t.yaml").write_text(recipe.replace("FILE", file), encoding="utf-8")
    wanted = PrepareSettings(
        root=folder / "out",
        setting=Setting("x", [], ["t"], []),
        k=1,
        seeds=(100,),
        online=False,
        recipe_path=(str(folder),),
    )
    (outcome,) = prepare(wanted, Console(quiet=True)).outcomes
    return outcome


def lines(folder: Path) -> list[tuple[str, str, tuple[str, ...]]]:
    examples = read_examples(folder / "out/t/t_1_100_test.jsonl")
    return [(one.input, one.output, one.options) for one in examples]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_question_and_choices_go_through_as_they_are(tmp_path: Path) -> None:
    rows = [
        {"q": "Reason (A): heat (B). Which?", "a": "x (C) y", "b": " b ", "c": "\\n", "ans": 0},
        {"q": "one\\ntwo\ttab ", "a": "(A) ", "b": "[SEP]", "c": "c", "ans": 2},
    ]
    write_jsonl(tmp_path / "d.jsonl", rows)
    # A `cut_at` that older recipes carry changes nothing, and is said.
    outcome = prepared(tmp_path, CHOICES + 'options: {cut_at: " (A) "}\n', "d.jsonl")
    assert outcome.status == "ok", outcome.reason
    assert lines(tmp_path) == [
        (row["q"], row["abc"[row["ans"]]], (row["a"], row["b"], row["c"])) for row in rows
    ]
    assert outcome.record is not None
    assert any("cut_at is not needed" in note for note in outcome.record.notes)


@pytest.mark.parametrize("count", ["", "count: [2, 100]\n", "count: [2, null]\n"])
def test_any_number_of_choices(tmp_path: Path, count: str) -> None:
    options = [f"option {n}" for n in range(40)]
    write_jsonl(tmp_path / "d.jsonl", [{"q": "q", "ch": options, "ans": 33}] * 2)
    recipe = CHOICES.replace("choices: [a, b, c]", "choices: ch") + count
    assert prepared(tmp_path, recipe, "d.jsonl").status == "ok"
    assert lines(tmp_path)[0] == ("q", "option 33", tuple(options))


GOOD = {"q": "q", "a": "1", "b": "2", "c": "3", "ans": 1}
DROPPED = [
    ({"q": None}, 'field "q" is null'),
    ({"q": " \t"}, 'field "q" is blank'),
    ({"c": None}, 'field "c" is null'),
    ({"ans": float("nan")}, 'field "ans" is NaN'),
    ({"a": "2"}, "an option stands twice"),
    ({"q": "half \ud83d"}, "half a character (a lone surrogate) in the input"),
    ({"a": "half \udc00"}, "half a character (a lone surrogate) in the options"),
]


@pytest.mark.parametrize(("change", "reason"), DROPPED, ids=[reason for _, reason in DROPPED])
def test_a_row_that_cannot_be_scored_is_dropped_with_reason_and_line(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    write_jsonl(tmp_path / "d.jsonl", [GOOD, GOOD | {"q": "other"}, GOOD | change])
    outcome = prepared(tmp_path, CHOICES, "d.jsonl")
    assert outcome.status == "ok", outcome.reason
    assert outcome.record is not None
    assert outcome.record.dropped["test"] == {"dropped": {reason: 1}}
    assert any(reason in note and "d.jsonl:3" in note for note in outcome.record.notes)
    assert len(lines(tmp_path)) == 2


def test_choices_that_are_empty_or_too_few(tmp_path: Path) -> None:
    rows = [{"q": "q", "ch": choices, "ans": 0} for choices in (["x", "y"], ["only"], ["x", ""])]
    write_jsonl(tmp_path / "d.jsonl", rows)
    outcome = prepared(tmp_path, CHOICES.replace("choices: [a, b, c]", "choices: ch"), "d.jsonl")
    assert outcome.record is not None
    assert outcome.record.dropped["test"] == {"dropped": {"only one option": 1, "an option is blank": 1}}


def test_an_optional_field_may_be_empty(tmp_path: Path) -> None:
    write_jsonl(
        tmp_path / "d.jsonl",
        [{"text": "a", "more": None, "label": 0}, {"text": "b", "more": "m", "label": 1}],
    )
    recipe = LABELLED.replace("fields: {", "optional: [more]\nfields: {more: text, ")
    outcome = prepared(tmp_path, recipe.replace('"{text}"', '"{text}|{more}"'), "d.jsonl")
    assert outcome.status == "ok", outcome.reason
    assert [text for text, _, _ in lines(tmp_path)] == ["a|", "b|m"]


RECIPE_FAULTS = [
    (
        "labels: {0: neg, 1: pos}",
        "labels: {0: neg, 1: good}",
        r't.yaml:\d+: labels: "good" is not among the options',
    ),
    ("options: [neg, pos]", "options: [neg, pos, neg]", r't.yaml:\d+: options: option "neg" stands twice'),
    ("options: [neg, pos]", "options: []", r"t.yaml:\d+: options: is empty, but the task is classification"),
]


@pytest.mark.parametrize(
    ("right", "wrong", "message"), RECIPE_FAULTS, ids=[wrong for _, wrong, _ in RECIPE_FAULTS]
)
def test_what_no_row_can_mend_is_an_error_of_the_recipe(
    tmp_path: Path, right: str, wrong: str, message: str
) -> None:
    write_jsonl(tmp_path / "d.jsonl", ROWS)
    with pytest.raises(DataError, match=message):
        raise DataError("", "", prepared(tmp_path, LABELLED.replace(right, wrong), "d.jsonl").reason)


def test_words_of_yaml_are_words(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("text,label\na,no\nb,yes\nc,1:30\n")
    recipe = LABELLED.replace("label: number", "label: text")
    recipe = recipe.replace("labels: {0: neg, 1: pos}", "labels: {no: neg, yes: pos, 1:30: pos}")
    assert prepared(tmp_path, recipe, "d.csv").status == "ok"
    assert [output for _, output, _ in lines(tmp_path)] == ["neg", "pos", "pos"]


def test_a_number_in_quotes_is_the_same_label_and_a_shown_number_keeps_its_digits(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("text,label\n007,0\n1.10,1\n")
    recipe = LABELLED.replace("text: text", "text: number")
    assert prepared(tmp_path, recipe.replace("label: number", "label: text"), "d.csv").status == "ok"
    assert [line[:2] for line in lines(tmp_path)] == [("007", "neg"), ("1.10", "pos")]


QUOTES = [
    ('text,label\nplain,0\n"open\nx,1\ny,0\n', r"d.csv:3: the quote that opens a field here is never closed"),
    (
        'text,label\n"a\nb" c,0\n',
        r"d.csv:3: the text ' c,0' follows the closing quote of a field that opened on line 2",
    ),
    (
        'text,label\n"5 in" x,0\n"open,1\n',
        r"d.csv:3: the quote .* never closed; also .*d.csv:2: the text ' x,0'",
    ),
    ("text,text\na,0\n", r'd.csv:1: two columns are called "text"'),
    ("text;label\na;0\n", r'd.csv:1: .*separator is likely ";".*source.delimiter'),
]


@pytest.mark.parametrize(("content", "message"), QUOTES, ids=[message for _, message in QUOTES])
def test_tables_that_cannot_be_read_as_written_are_named_with_their_line(
    tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "d.csv").write_text(content)
    layout = TableLayout(columns=("text", "label"))
    with pytest.raises(DataError, match=message):
        list(read_rows(tmp_path / "d.csv", layout))


def test_quotes_are_honoured_in_tsv_and_fields_have_any_length(tmp_path: Path) -> None:
    texts = ['He said "hi"', '"quoted"', "tab\tinside", "line\nbreak", "x" * 300_000, 'in"side']
    frame = pd.DataFrame({"text": texts, "label": range(len(texts))})
    frame.to_csv(tmp_path / "d.tsv", sep="\t", index=False)
    assert [row["text"] for row in read_rows(tmp_path / "d.tsv", TableLayout())] == texts
    (tmp_path / "e.tsv").write_text('text\tlabel\n"as it is\t0\n')
    assert list(read_rows(tmp_path / "e.tsv", TableLayout(quotes="none"))) == [
        {"text": '"as it is', "label": "0"}
    ]


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]
COMPRESSED = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("ending", [*COMPRESSED, ".zst"])
def test_every_text_format_is_read_compressed_and_with_a_mark(
    tmp_path: Path, ending: str, encoding: str
) -> None:
    rows = [{"text": "naïve – ✓", "label": "0"}, {"text": "two\nlines", "label": "1"}]
    table = io.StringIO()
    writer = csv.DictWriter(table, ["text", "label"])
    writer.writeheader()
    writer.writerows(rows)
    contents = {
        "d.csv": table.getvalue(),
        "d.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
        "d.json": json.dumps(rows, ensure_ascii=False, indent=1),
    }
    for name, text in contents.items():
        path = tmp_path / f"{name}{ending}"
        if ending == ".zst":
            with pa.CompressedOutputStream(str(path), "zstd") as stream:
                stream.write(text.encode(encoding))
        else:
            path.write_bytes(COMPRESSED[ending](text.encode(encoding)))
        assert list(read_rows(path, TableLayout())) == rows, name


def test_a_cut_archive_and_another_encoding_are_said(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(b'{"a": 1}\n' * 1000)[:-20])
    with pytest.raises(DataError, match="the compressed file is broken or cut off"):
        list(read_rows(tmp_path / "d.jsonl.gz", TableLayout()))
    (tmp_path / "d.csv").write_bytes("text,label\nplain,0\ndon’t,1\n".encode("windows-1252"))
    with pytest.raises(DataError, match=r"d.csv:3: byte 0x92 is not UTF-8; it is likely Windows-1252.*don’t"):
        list(read_rows(tmp_path / "d.csv", TableLayout()))
    layout = TableLayout(encoding="windows-1252")
    assert [row["text"] for row in read_rows(tmp_path / "d.csv", layout)] == ["plain", "don’t"]


def test_columnar_sources(tmp_path: Path) -> None:
    table = pa.table(
        {"text": pa.array([b"one", "zwei ü".encode()]), "label": pa.array(["0", "1"]).dictionary_encode()}
    )
    pq.write_table(table, tmp_path / "d.parquet")
    with (
        pa.OSFile(str(tmp_path / "d.arrow"), "wb") as sink,
        pyarrow.ipc.new_stream(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    for name in ("d.parquet", "d.arrow"):
        assert [row["text"] for row in read_rows(tmp_path / name, TableLayout())] == ["one", "zwei ü"]
    pq.write_table(pa.table({"text": [b"ok", b"\xff"]}), tmp_path / "bad.parquet")
    with pytest.raises(DataError, match=r'bad.parquet, row 2: column "text" holds bytes that are not UTF-8'):
        list(read_rows(tmp_path / "bad.parquet", TableLayout()))


def test_folders_that_datasets_saved(tmp_path: Path) -> None:
    DatasetDict(train=Dataset.from_list(ROWS), test=Dataset.from_list(ROWS[:2])).save_to_disk(
        tmp_path / "saved"
    )
    assert prepared(tmp_path, LABELLED, "saved").status == "ok"
    assert lines(tmp_path) == [("text 0", "neg", ("neg", "pos")), ("text 1", "pos", ("neg", "pos"))]
    (tmp_path / "saved/test/state.json").unlink()
    (tmp_path / "saved/test/data-00000-of-00001.arrow").touch()
    assert "none that datasets has saved" in prepared(tmp_path, LABELLED, "saved").reason


def test_a_source_file_that_was_edited_is_read_anew(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "d.jsonl", ROWS)
    assert prepared(tmp_path, LABELLED, "d.jsonl").status == "ok"
    assert prepared(tmp_path, LABELLED, "d.jsonl").status == "skipped"
    write_jsonl(tmp_path / "d.jsonl", [*ROWS, {"text": "new", "label": 0}])
    assert prepared(tmp_path, LABELLED, "d.jsonl").status == "ok"
    assert ("new", "neg", ("neg", "pos")) in lines(tmp_path)


JSON_FAULTS = [
    ("d.json", '[{"a": 1},\n {"a": 2}\n {"a": 3}]', r"d.json:3: an object must be followed by a comma"),
    ("d.json", '[{"a": 1},\n {"a" 2}]', r"d.json:2: malformed JSON"),
    ("d.json", '[{"a": 1}', r"d.json:1: an object must be followed"),
    ("d.jsonl", '{"a": 1}\n\n{"a": 1, "a": 2}\n', r'd.jsonl:3: the key "a" stands twice'),
    ("d.jsonl", "[" * 100_000, r"d.jsonl:1: (lists or objects are nested too deep|begins a list)"),
]


@pytest.mark.parametrize(
    ("name", "content", "message"), JSON_FAULTS, ids=[message for *_, message in JSON_FAULTS]
)
def test_broken_json_is_named_with_its_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        list(read_rows(tmp_path / name, TableLayout()))


nasty = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("\",\t\n\r\\ '();{}[]\u2028\u0085\ufeff\0"),
    max_size=30,
)
tables = st.lists(st.tuples(nasty, st.integers(0, 1)), min_size=2, max_size=8)


@pytest.mark.parametrize("kind", ["csv", "tsv", "pandas csv", "polars csv", "jsonl", "json", "parquet"])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=tables)
def test_no_row_and_no_character_is_lost_on_the_way(
    tmp_path_factory: pytest.TempPathFactory, kind: str, table: list[tuple[str, int]]
) -> None:
    """Random tables through every format and `prepare`: what comes out is what went in, but for rows that are blank."""
    folder = tmp_path_factory.mktemp("table")
    file = f"d.{kind.split()[-1]}"
    rows = [{"text": text, "label": label} for text, label in table]
    if kind in ("csv", "tsv"):
        with (folder / file).open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(
                stream, ["text", "label"], delimiter="\t" if kind == "tsv" else ",", quoting=csv.QUOTE_ALL
            )
            writer.writeheader()
            writer.writerows(rows)
    elif kind == "pandas csv":
        pd.DataFrame(rows).to_csv(folder / file, index=False, lineterminator="\r\n")
    elif kind == "polars csv":
        pl.DataFrame(rows).write_csv(folder / file, quote_style="non_numeric")
    elif kind == "jsonl":
        write_jsonl(folder / file, rows)
    elif kind == "json":
        (folder / file).write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(rows), folder / file)
    outcome = prepared(folder, LABELLED, file)
    kept = [(text, "neg" if label == 0 else "pos", ("neg", "pos")) for text, label in table if text.strip()]
    if not kept:
        assert outcome.status == "failed"
        assert "blank" in outcome.reason
        return
    assert outcome.status == "ok", outcome.reason
    assert lines(folder) == kept
    assert outcome.record is not None
    dropped = outcome.record.dropped.get("test", {}).get("dropped", {})
    assert sum(dropped.values()) == len(table) - len(kept)


@pytest.mark.parametrize("name", ["../rows.jsonl", "inner/../../rows.jsonl", "ABSOLUTE", "~/rows.jsonl"])
def test_a_recipe_reads_no_file_outside_its_folder(tmp_path: Path, name: str) -> None:
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    folder = tmp_path / "own"
    (folder / "inner").mkdir(parents=True)
    outcome = prepared(folder, LABELLED, name.replace("ABSOLUTE", str(tmp_path / "rows.jsonl")))
    assert outcome.status == "failed"
    assert "lies outside the folders that a recipe may read" in outcome.reason
    assert "put the files into data.raw" in outcome.reason
