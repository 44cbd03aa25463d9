"""What stands in a file is what a prompt shows, whatever the format."""

import json
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from metashot.base.errors import ConfigError, DataError
from metashot.data.recipes.rows import text_of
from metashot.data.sources.layout import TableLayout
from metashot.data.sources.tables import numbered_rows, read_rows

WRITTEN = ["5", "5.0", "1.10", "1E5", "1e22", "-0", "-0.0", "100000000000000000000.5", "true", "false",
           "12345678901234567890123", "1e400"]  # fmt: skip


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("form", ['{"a": %s}\n', '{"a": [%s]}\n', '{"a": [[%s]]}\n'])
@pytest.mark.parametrize("name", ["d.jsonl", "d.json"])
def test_json_numbers_and_booleans_are_shown_as_written(
    tmp_path: Path, written: str, form: str, name: str
) -> None:
    (tmp_path / name).write_text(form % written)
    (row,) = read_rows(tmp_path / name)
    assert text_of(row["a"], "a") == written


def one(path: Path, column: pa.Array) -> Any:
    pq.write_table(pa.table({"a": column}), path)
    (row,) = read_rows(path)
    return row["a"]


COLUMNS = {
    "float32": (pa.array([0.1], pa.float32()), "0.1"),
    "float16": (pa.array([0.1], pa.float16()), "0.1"),
    "float64": (pa.array([0.1]), "0.1"),
    "float32 in a list": (pa.array([[0.1, None, 3.3]], pa.list_(pa.float32())), [0.1, None, 3.3]),
    "float32 in a struct": (pa.array([{"x": 0.1}], pa.struct([("x", pa.float32())])), {"x": 0.1}),
    "binary": (pa.array([b"a"]), "a"),
    "large binary": (pa.array([b"a"], pa.large_binary()), "a"),
    "binary in a list": (pa.array([[b"a", b"b"]]), ["a", "b"]),
    "binary in a large list": (pa.array([[b"a", b"b"]], pa.large_list(pa.binary())), ["a", "b"]),
    "binary in a struct in a list": (pa.array([[{"x": b"a"}]]), [{"x": "a"}]),
    "binary of a dictionary": (pa.array([b"a"]).dictionary_encode(), "a"),
    "binary in a map": (pa.array([[(b"k", b"v")]], pa.map_(pa.binary(), pa.binary())), [("k", "v")]),
    "null": (pa.array([None], pa.binary()), None),
}


@pytest.mark.parametrize(("column", "expected"), COLUMNS.values(), ids=COLUMNS)
def test_parquet_values_are_what_the_file_means(tmp_path: Path, column: pa.Array, expected: Any) -> None:
    value = one(tmp_path / "d.parquet", column)
    assert (text_of(value, "a") if isinstance(expected, str) else value) == expected


def test_bytes_inside_a_list_that_are_no_text_are_an_error_with_their_row(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [[b"ok"], [b"\xff"]]}), tmp_path / "d.parquet")
    with pytest.raises(DataError, match=r'd.parquet, row 2: column "a" holds bytes that are not UTF-8'):
        list(read_rows(tmp_path / "d.parquet"))


def test_labels_know_the_class_names_of_their_file(tmp_path: Path) -> None:
    names = ClassLabel(names=["neg", "pos"])
    features = Features({"y": names, "votes": List(names), "text": Value("string")})
    rows = [{"y": 1, "votes": [0, 1], "text": "a"}, {"y": -1, "votes": [], "text": "b"}]
    Dataset.from_list(rows, features=features).to_parquet(tmp_path / "d.parquet")
    first, second = read_rows(tmp_path / "d.parquet")
    assert first == rows[0]
    assert (text_of(first["y"], "y"), text_of(first["votes"], "votes")) == ("pos", "neg pos")
    assert text_of(second["y"], "y") == "-1"


MARKED = [
    ("utf-8", "utf-8-sig"),
    ("UTF8", "utf-8-sig"),
    ("utf-16", "utf-16"),
    ("utf-16-le", "utf-16"),
    (None, "utf-8-sig"),
]


@pytest.mark.parametrize(("named", "written"), MARKED)
def test_a_byte_order_mark_is_no_text_where_the_encoding_is_named(
    tmp_path: Path, named, written: str
) -> None:
    (tmp_path / "d.csv").write_bytes("text,label\nä,1\n".encode(written))
    assert list(read_rows(tmp_path / "d.csv", TableLayout(encoding=named))) == [{"text": "ä", "label": "1"}]


def test_a_mark_of_another_encoding_than_the_named_one_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_bytes("text,label\nä,1\n".encode("utf-8-sig"))
    with pytest.raises(DataError, match="byte-order mark of UTF-8, not of windows-1252"):
        list(read_rows(tmp_path / "d.csv", TableLayout(encoding="windows-1252")))


ROWS = [{"a": 1}, {"a": 2}]
WRAPPED = {
    "data": {"data": ROWS},
    "meta.rows": {"v": [1, {"x": "]"}], "meta": {"n": 2, "rows": ROWS, "more": 1}, "z": 0},
}


@pytest.mark.parametrize(("field", "value"), WRAPPED.items(), ids=WRAPPED)
@pytest.mark.parametrize("indent", [None, 1])
def test_rows_stand_under_a_field_of_one_object(tmp_path: Path, field: str, value: Any, indent) -> None:
    (tmp_path / "d.json").write_text(json.dumps(value, indent=indent))
    assert list(read_rows(tmp_path / "d.json", TableLayout(field=field))) == ROWS


def test_rows_under_a_field_have_their_lines_and_a_wrong_field_is_named(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text('{"v": 1,\n "data": [\n{"a": 1},\n{"a": 2}]}')
    assert list(numbered_rows(path, TableLayout(field="data"))) == [(3, {"a": 1}), (4, {"a": 2})]
    with pytest.raises(DataError, match=r"holds no \"dat\" .*did you mean 'data'"):
        list(read_rows(path, TableLayout(field="dat")))
    with pytest.raises(DataError, match=r"set source.field: data"):
        list(read_rows(path))
    path.write_text('{"data": [{"a": 1}]}')
    with pytest.raises(DataError, match=r"set source.field: data"):
        list(read_rows(path, TableLayout(columns=("a",))))


def test_excel_sheets(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for row in (["text", "label"], ["007", 1], [None, None], [" a ", 0.5]):
        sheet.append(row)
    book.create_sheet("other").append(["x"])
    book["other"].append([True])
    path = tmp_path / "d.xlsx"
    book.save(path)
    expected = [(2, {"text": "007", "label": 1}), (4, {"text": " a ", "label": 0.5})]
    assert list(numbered_rows(path)) == expected
    assert list(read_rows(path, TableLayout(sheet="other"))) == [{"x": True}]
    with pytest.raises(DataError, match=r'has no sheet "othr" \(did you mean .other'):
        list(read_rows(path, TableLayout(sheet="othr")))
    (tmp_path / "e.xlsx").write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=r"is no whole .xlsx file"):
        list(read_rows(tmp_path / "e.xlsx"))
    book["other"].append([1, 2])
    book.save(path)
    with pytest.raises(DataError, match=r"row 3: 2 values for 1 columns"):
        list(read_rows(path, TableLayout(sheet="other")))


def test_excel_without_its_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    (tmp_path / "d.xlsx").touch()
    with pytest.raises(ConfigError, match=r"metashot\[excel\]"):
        list(read_rows(tmp_path / "d.xlsx"))
