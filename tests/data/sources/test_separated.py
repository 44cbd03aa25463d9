"""The fast way through CSV and TSV files against the slow one, which reads row by row."""

import csv
import gzip
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metashot.base.errors import DataError
from metashot.data.sources.layout import TableLayout
from metashot.data.sources.separated import separated_rows
from metashot.data.sources.tables import read_rows, row_places, waiting_rows

LAYOUT = TableLayout(types={"label": "number", "flag": "true or false"})
HEADER = ["text", "label", "flag", "rest"]
FAULTS = {
    "too wide": b"a,1,true,x,y\n",
    "too narrow": b"a,1\n",
    "no number": b"a,one,true,x\n",
    "a superscript is no number": "a,²,true,x\n".encode(),
    "more digits than a number has": b"a," + b"9" * 5000 + b",true,x\n",
    "neither true nor false": b"a,1,maybe,x\n",
    "a quote followed by text": b'"a" b,1,true,x\n',
    "a quote that stays open": b'"a,1,true,x\n',
    "another encoding": b"a\x92,1,true,x\n",
}
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
rows_of_text = st.lists(st.tuples(texts, st.integers(0, 9), st.booleans(), texts), max_size=12)


def written(rows: list[tuple[str, int, bool, str]], times: int = 1) -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    for _ in range(times):
        writer.writerows(rows)
    return stream.getvalue().encode()


def outcome(rows) -> tuple[list[dict], str]:
    """The rows before an error, and the error."""
    found = []
    try:
        found.extend(rows)
    except DataError as error:
        return found, str(error)
    return found, ""


def slow(path: Path, layout: TableLayout) -> tuple[list[dict], str]:
    return outcome(row for _, row in separated_rows(path, layout, ","))


@pytest.mark.parametrize("fault", [*FAULTS, "none"])
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=rows_of_text, times=st.sampled_from([1, 7, 30]), after=rows_of_text)
def test_rows_and_the_first_error_are_those_of_the_slow_reader(
    tmp_path: Path, fault: str, before, times, after
) -> None:
    header = ",".join(HEADER).encode() + b"\n"
    (tmp_path / "d.csv").write_bytes(
        header + written(before, times) + FAULTS.get(fault, b"\n\n") + written(after)
    )
    fast, error = outcome(read_rows(tmp_path / "d.csv", LAYOUT))
    assert (fast, error) == slow(tmp_path / "d.csv", LAYOUT)
    assert bool(error) == (fault != "none")
    assert len(fast) >= len(before) * times or error


@pytest.mark.parametrize("columns", [("rest", "label"), ("text",), ("text", "missing"), ()])
def test_columns_are_picked_alike(tmp_path: Path, columns: tuple[str, ...]) -> None:
    (tmp_path / "d.csv").write_bytes(
        ",".join(HEADER).encode() + b"\n" + written([("a", 1, True, "x"), ("b", 2, False, "y")], 50)
    )
    layout = TableLayout(types={"label": "number"}, columns=columns)
    assert (list(read_rows(tmp_path / "d.csv", layout)), "") == slow(tmp_path / "d.csv", layout)


@pytest.mark.parametrize("name", ["d.csv", "d.csv.gz", "d.jsonl"])
def test_waiting_rows_are_the_rows(tmp_path: Path, name: str) -> None:
    content = b"text,label\n" + b'one,1\n\n"two\nlines",2\n\n\nthree,3\n'
    if name == "d.jsonl":
        content = b'{"text": "one", "label": 1}\n\n{"text": "two", "label": 2}\n'
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    layout = TableLayout(types={"label": "number"})
    assert [row() for row in waiting_rows(tmp_path / name, layout)] == list(
        read_rows(tmp_path / name, layout)
    )


def test_the_place_of_a_row_is_the_line_on_which_it_begins(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_bytes(b'text,label\n\n"one\nlong\nrow",1\n\ntwo,2\n')
    path = tmp_path / "d.csv"
    assert row_places(path, LAYOUT, {0, 1}) == {0: f"{path}:3", 1: f"{path}:7"}


def test_a_long_wrong_value_is_shown_by_its_start(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_bytes(b"text,label\na," + b"9" * 5000 + b"\n")
    with pytest.raises(
        DataError, match=r"d.csv:2: column \"label\" holds '9{60}\.\.\.' \(the recipe's fields call"
    ):
        list(read_rows(tmp_path / "d.csv", TableLayout(types={"label": "number"})))


def test_bytes_that_are_no_text_are_not_taken_for_windows_1252(tmp_path: Path) -> None:
    (tmp_path / "d.csv.gz").write_bytes(gzip.compress(gzip.compress(b"text,label\na,1\n")))
    with pytest.raises(DataError, match="is not UTF-8") as caught:
        list(read_rows(tmp_path / "d.csv.gz", TableLayout()))
    assert "Windows" not in str(caught.value)
