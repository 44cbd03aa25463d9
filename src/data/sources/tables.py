"""Rows of table files, one at a time: parquet, CSV, TSV, JSON, JSON lines and plain text lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metashot.data.errors import DataError

Row = dict[str, Any]
FORMATS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".txt": "lines",
}
_PARQUET_BATCH_ROWS = 1024
_TRUE, _FALSE = frozenset({"true", "1", "yes"}), frozenset({"false", "0", "no"})


@dataclass(frozen=True, slots=True)
class TableLayout:
    """How to read a table.

    Attributes:
        format: one of FORMATS' values; None goes by the file's ending.
        delimiter: of CSV and TSV files; None for their usual one.
        header: column names of a CSV or TSV file that has no header line.
        types: column to its type in words (`text`, `number`, `true or false`): CSV and TSV values are converted.
        columns: the only columns to read from parquet; empty for all.
    """

    format: str | None = None
    delimiter: str | None = None
    header: tuple[str, ...] = ()
    types: Mapping[str, str] | None = None
    columns: tuple[str, ...] = ()


def format_of(path: Path, layout: TableLayout) -> str:
    """The file's format.

    Raises:
        DataError: its ending tells nothing and the recipe names no format.
    """
    found = layout.format or FORMATS.get(path.suffix.lower())
    if found is None:
        raise DataError(
            str(path),
            f'cannot tell the format of "{path.suffix}" files',
            f"set source.format to one of {', '.join(sorted(set(FORMATS.values())))}",
        )
    return found


def read_rows(path: Path, layout: TableLayout) -> Iterator[Row]:
    """Rows in file order, in constant memory (`json` excepted, which is read whole).

    Raises:
        DataError: missing file or broken content, with the line where that is known.
    """
    if not path.is_file():
        raise DataError(str(path), "no such file", "check source.files, data.raw and the file's name")
    reader: Callable[[Path, TableLayout], Iterator[Row]] = {
        "parquet": _parquet,
        "csv": _separated,
        "tsv": _separated,
        "jsonl": _json_lines,
        "json": _json,
        "lines": _lines,
    }[format_of(path, layout)]
    try:
        yield from reader(path, layout)
    except UnicodeDecodeError as error:
        raise DataError(str(path), f"is not UTF-8: {error}", "save the file in UTF-8") from error


def class_names(path: Path) -> dict[str, list[str]]:
    """Class names that the hub keeps inside a parquet file: column to names in number order."""
    metadata = _parquet_file(path).schema_arrow.metadata or {}
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    return {
        column: feature["names"]
        for column, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }


def _parquet_file(path: Path) -> Any:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(str(path), "parquet files need pyarrow", 'pip install "metashot[hub]"') from error
    try:
        return parquet.ParquetFile(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(str(path), f"is no whole parquet file: {error}", "fetch it again") from error


def _parquet(path: Path, layout: TableLayout) -> Iterator[Row]:
    file = _parquet_file(path)
    present = file.schema_arrow.names
    # Columns the file lacks are left to the recipe, whose error names the row's columns.
    columns = [name for name in layout.columns if name in present] or None
    if columns is not None and len(columns) < len(layout.columns):
        columns = None
    for batch in file.iter_batches(batch_size=_PARQUET_BATCH_ROWS, columns=columns):
        yield from batch.to_pylist()


def _separated(path: Path, layout: TableLayout) -> Iterator[Row]:
    tab_separated = format_of(path, layout) == "tsv"
    delimiter = layout.delimiter or ("\t" if tab_separated else ",")
    convert = _converters(layout.types or {})
    with path.open("r", encoding="utf-8-sig", newline="") as stream:
        quoting = csv.QUOTE_NONE if tab_separated else csv.QUOTE_MINIMAL
        reader = csv.reader(stream, delimiter=delimiter, quoting=quoting)
        header = list(layout.header) or next(reader, [])
        try:
            for values in reader:
                if values:
                    yield _named(path, reader.line_num, header, values, convert)
        except csv.Error as error:
            raise DataError(f"{path}:{reader.line_num}", f"broken CSV: {error}", "quote the field") from error


def _named(
    path: Path, line: int, header: Sequence[str], values: Sequence[str], convert: Mapping[str, Any]
) -> Row:
    if len(values) != len(header):
        raise DataError(
            f"{path}:{line}",
            f"{len(values)} values for {len(header)} columns ({', '.join(header)})",
            "quote values that hold the separator, or set source.header",
        )
    row: Row = dict(zip(header, values, strict=True))
    for column, to_type in convert.items():
        if column in row:
            try:
                row[column] = to_type(row[column])
            except ValueError as error:
                raise DataError(
                    f"{path}:{line}", f'column "{column}" holds {row[column]!r}', str(error)
                ) from error
    return row


def _converters(types: Mapping[str, str]) -> dict[str, Callable[[str], Any]]:
    known: dict[str, Callable[[str], Any]] = {}
    for column, words in types.items():
        if "number" in words and "list" not in words:
            known[column] = _to_number
        elif words == "true or false":
            known[column] = _to_bool
    return known


def _to_number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise ValueError("the recipe's fields call it a number: correct the file or call it text") from None


def _to_bool(text: str) -> bool:
    if text.strip().lower() in _TRUE | _FALSE:
        return text.strip().lower() in _TRUE
    raise ValueError("write true or false")


def _json_lines(path: Path, layout: TableLayout) -> Iterator[Row]:
    # Bytes are cut at newlines only: text mode would also cut at a lone carriage return inside a string.
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, start=1):
            if raw.strip():
                yield _object(path, number, raw.decode("utf-8"))


def _object(path: Path, number: int, text: str) -> Row:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{number}", f"broken JSON: {error.msg}", "write one JSON object a line"
        ) from error
    if not isinstance(value, dict):
        raise DataError(f"{path}:{number}", f"holds a {type(value).__name__}", "write one JSON object a line")
    return value


def _json(path: Path, layout: TableLayout) -> Iterator[Row]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}", f"broken JSON: {error.msg}", "fetch it again") from error
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise DataError(str(path), "holds no list of objects", "use source.format: jsonl for JSON lines")
    yield from value


def _lines(path: Path, layout: TableLayout) -> Iterator[Row]:
    # Universal newlines, as the original reads: a lone carriage return ends a line too.
    with path.open("r", encoding="utf-8") as stream:
        for line in stream:
            yield {"line": line}
