"""CSV and TSV files: every row as it was written, with its line; what cannot be read as written is an error."""

import csv
import gzip
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metashot.base.errors import DataError
from metashot.data.sources.layout import TableLayout
from metashot.data.sources.tables import numbered_rows, read_rows, row_places

LAYOUT = TableLayout()
HEADER = ["text", "label", "flag", "rest"]
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
rows_of_text = st.lists(st.tuples(texts, texts, texts, texts), min_size=1, max_size=12)


def written(rows: list[tuple[str, ...]], ends: str) -> bytes:
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator=ends, quoting=csv.QUOTE_ALL).writerows([HEADER, *rows])
    return stream.getvalue().encode()


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=rows_of_text)
def test_quoted_rows_come_back_whatever_they_hold_and_whatever_ends_their_lines(
    tmp_path: Path, ends: str, rows: list[tuple[str, ...]]
) -> None:
    (tmp_path / "d.csv").write_bytes(written(rows, ends))
    assert [tuple(row.values()) for row in read_rows(tmp_path / "d.csv")] == rows


@pytest.mark.parametrize(
    "columns", [("rest", "label"), ("text",), ("text", "missing"), ("rest.inner", "text"), ()]
)
def test_only_the_columns_that_are_needed_are_made(tmp_path: Path, columns: tuple[str, ...]) -> None:
    (tmp_path / "d.csv").write_bytes(written([("a", "1", "true", "x")], "\n"))
    (row,) = read_rows(tmp_path / "d.csv", TableLayout(columns=columns))
    whole = {"text": "a", "label": "1", "flag": "true", "rest": "x"}
    expected = {("rest", "label"): ["rest", "label"], ("rest.inner", "text"): ["rest", "text"]}
    assert row == {name: whole[name] for name in expected.get(columns, HEADER)}


RETURNS = {
    "at the start of a row": (b"text,label\n\ra,0\nb,1\n", 2, "carriage return outside quotes"),
    "in a field": (b"text,label\na,0\nb\rc,1\n", 3, "carriage return outside quotes"),
    "at the end of a row": (b"text,label\na,0\nb,1\r\nc,0\n", 3, "ends with a carriage return"),
    "before the end of a row": (b"text,label\r\na,0\r\r\n", 2, "ends with a carriage return"),
    "at the end of the file": (b"text,label\na,0\r", 2, "ends with a carriage return"),
    "in the header": (b"te\rxt,label\na,0\n", 2, "carriage return outside quotes"),
}


@pytest.mark.parametrize(("content", "line", "message"), RETURNS.values(), ids=RETURNS)
@pytest.mark.parametrize("quotes", ["strict", "none"])
def test_a_lone_carriage_return_is_an_error_with_its_line(
    tmp_path: Path, content: bytes, line: int, message: str, quotes
) -> None:
    (tmp_path / "d.csv").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        list(read_rows(tmp_path / "d.csv", TableLayout(quotes=quotes)))
    assert caught.value.where == f"{tmp_path / 'd.csv'}:{line}"


def test_the_sources_of_published_tasks_may_end_lines_in_any_way(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_bytes(b"text,label\na,0\rb,1\r\nc,0\n")
    rows = list(read_rows(tmp_path / "d.csv", TableLayout(any_line_end=True)))
    assert [row["text"] for row in rows] == ["a", "b", "c"]


def test_quoted_line_ends_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_bytes(b'text,label\n"a\r\nb\rc\n",0\n')
    assert list(numbered_rows(tmp_path / "d.csv")) == [(2, {"text": "a\r\nb\rc\n", "label": "0"})]


def test_the_place_of_a_row_is_the_line_on_which_it_begins(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_bytes(b'text,label\n\n"one\nlong\nrow",1\n\ntwo,2\n')
    path = tmp_path / "d.csv"
    assert row_places(path, LAYOUT, {0, 1}) == {0: f"{path}:3", 1: f"{path}:7"}


def test_bytes_that_are_no_text_are_not_taken_for_windows_1252(tmp_path: Path) -> None:
    (tmp_path / "d.csv.gz").write_bytes(gzip.compress(gzip.compress(b"text,label\na,1\n")))
    with pytest.raises(DataError, match="is not UTF-8") as caught:
        list(read_rows(tmp_path / "d.csv.gz", TableLayout()))
    assert "Windows" not in str(caught.value)
