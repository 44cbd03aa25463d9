"""Parquet and Arrow files, and folders that `datasets` has saved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import ipc, parquet

from metashot.base.errors import DataError, suggestion
from metashot.base.json_text import parse_json, read_json
from metashot.data.sources.layout import Row, TableLayout

_BATCH_ROWS = 1024
_BROKEN = (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError, OSError)


def parquet_rows(path: Path, layout: TableLayout) -> Iterator[tuple[int, Row]]:
    """(number from 1, row) of a parquet file, batch by batch."""
    file = _opened(path, "parquet", parquet.ParquetFile)
    columns = _columns(path, file.schema_arrow, layout)
    yield from _rows(path, file.iter_batches(batch_size=_BATCH_ROWS, columns=columns), layout)


def arrow_rows(path: Path, layout: TableLayout) -> Iterator[tuple[int, Row]]:
    """(number from 1, row) of an Arrow file, in the stream or the file format, mapped into memory."""
    with pyarrow.memory_map(str(path)) as mapped:
        source = _opened(path, "Arrow", lambda _: _arrow_reader(mapped))
        columns = _columns(path, source.schema, layout)
        yield from _rows(path, _arrow_batches(source, columns), layout)


def _arrow_reader(mapped: Any) -> Any:
    try:
        return ipc.open_file(mapped)
    except pyarrow.ArrowInvalid:
        mapped.seek(0)
        return ipc.open_stream(mapped)


def _arrow_batches(source: Any, columns: list[str] | None) -> Iterator[Any]:
    whole = (
        (source.get_batch(number) for number in range(source.num_record_batches))
        if hasattr(source, "num_record_batches")
        else source
    )
    for batch in whole:
        chosen = batch if columns is None else batch.select(columns)
        for start in range(0, chosen.num_rows, _BATCH_ROWS):
            yield chosen.slice(start, _BATCH_ROWS)


def class_names(path: Path, format_name: str) -> dict[str, list[str]]:
    """Class names that the hub keeps inside a columnar file: column to names in number order."""
    if format_name == "parquet":
        schema = _opened(path, "parquet", parquet.ParquetFile).schema_arrow
    else:
        with pyarrow.memory_map(str(path)) as mapped:
            schema = _opened(path, "Arrow", lambda _: _arrow_reader(mapped)).schema
    metadata = schema.metadata or {}
    features = _features(metadata.get(b"huggingface", b"{}"))
    return {
        column: feature["names"]
        for column, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }


def saved_dataset_files(folder: Path, split: str) -> tuple[Path, ...] | None:
    """Arrow files of a `Dataset`, or of one split of a `DatasetDict`, that `save_to_disk` wrote; None for others.

    Raises:
        DataError: the folder lacks the split, or files that it names.
    """
    if (folder / "dataset_dict.json").is_file():
        splits = _member(folder / "dataset_dict.json", "splits")
        if split not in splits:
            raise DataError(str(folder), f'has no split "{split}"', suggestion(split, splits))
        folder = folder / split
    if not (folder / "state.json").is_file():
        return None
    names = [entry.get("filename") for entry in _member(folder / "state.json", "_data_files")]
    outside = [name for name in names if not isinstance(name, str) or Path(name).name != name]
    if outside:
        raise DataError(
            str(folder / "state.json"), f"names {outside[0]!r}, no file beside it", "save the data set again"
        )
    files = tuple(folder / str(name) for name in names)
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise DataError(
            str(missing[0]), "no such file, though state.json names it", "save the data set again"
        )
    return files


def _features(text: bytes) -> dict[str, Any]:
    """What the hub wrote about the columns; nothing where that cannot be read."""
    try:
        return dict(parse_json(text)["info"]["features"])
    except (ValueError, KeyError, TypeError):
        return {}


def _member(path: Path, key: str) -> Any:
    try:
        found = read_json(path)[key]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            str(path), f"has no readable {key!r}: {error!r}", "save the data set again"
        ) from error
    if not isinstance(found, list) or (
        key == "_data_files" and not all(isinstance(one, dict) for one in found)
    ):
        raise DataError(str(path), f"{key!r} is no list", "save the data set again")
    return found


def _opened(path: Path, what: str, opener: Any) -> Any:
    try:
        return opener(path)
    except _BROKEN as error:
        reason = str(error).splitlines()[0]
        raise DataError(str(path), f"is no whole {what} file: {reason}", "fetch it again") from error


def _columns(path: Path, schema: Any, layout: TableLayout) -> list[str] | None:
    """The columns to read; all of them where one is missing, so that the recipe's error can name what is there."""
    repeated = [name for name in schema.names if schema.names.count(name) > 1]
    if repeated:
        raise DataError(
            str(path), f'two columns are called "{repeated[0]}"', "give every column a name of its own"
        )
    present = [name for name in layout.columns if name in schema.names]
    return present if present and len(present) == len(layout.columns) else None


def _rows(path: Path, batches: Iterator[Any], layout: TableLayout) -> Iterator[tuple[int, Row]]:
    number = 0
    try:
        for batch in batches:
            for row in _decoded(path, batch, number, layout).to_pylist():
                number += 1
                yield number, row
    except _BROKEN as error:
        raise DataError(
            str(path), f"is broken behind row {number}: {str(error).splitlines()[0]}", "fetch it again"
        ) from error


def _decoded(path: Path, batch: Any, before: int, layout: TableLayout) -> Any:
    """The batch with its binary columns as text.

    Raises:
        DataError: bytes that are not UTF-8, in a column that is needed.
    """
    for place, field in enumerate(batch.schema):
        if not _is_binary(field.type) or (layout.columns and field.name not in layout.columns):
            continue
        try:
            column = batch.column(place)
            if pyarrow.types.is_dictionary(field.type):
                column = column.dictionary_decode()
            column = column.cast(pyarrow.large_binary()).cast(pyarrow.large_string())
        except pyarrow.ArrowInvalid as error:
            wrong = next(
                row for row, value in enumerate(batch.column(place).to_pylist()) if not _is_text(value)
            )
            raise DataError(
                f"{path}, row {before + wrong + 1}",
                f'column "{field.name}" holds bytes that are not UTF-8',
                "write the column as text",
            ) from error
        batch = batch.set_column(place, field.name, column)
    return batch


def _is_binary(kind: Any) -> bool:
    types = pyarrow.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    return (
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_binary_view(kind)
    )


def _is_text(value: bytes | None) -> bool:
    try:
        (value or b"").decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
