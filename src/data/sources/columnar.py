"""Parquet and Arrow files, and folders that `datasets` has saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from pyarrow import ipc, parquet

from metashot.base.errors import DataError, suggestion
from metashot.base.json_text import parse_json, read_json
from metashot.data.sources.layout import ClassNumber, Row, TableLayout

Change = Callable[[Any], Any]
_BATCH_ROWS = 1024
_BROKEN = (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError, OSError)


def parquet_rows(path: Path, layout: TableLayout) -> Iterator[tuple[int, Row]]:
    """(number from 1, row) of a parquet file, batch by batch."""
    file = _opened(path, "parquet", parquet.ParquetFile)
    schema = file.schema_arrow
    columns = _columns(path, schema, layout)
    yield from _rows(path, schema, columns, file.iter_batches(batch_size=_BATCH_ROWS, columns=columns))


def arrow_rows(path: Path, layout: TableLayout) -> Iterator[tuple[int, Row]]:
    """(number from 1, row) of an Arrow file, in the stream or the file format, mapped into memory."""
    with pyarrow.memory_map(str(path)) as mapped:
        source = _opened(path, "Arrow", lambda _: _arrow_reader(mapped))
        columns = _columns(path, source.schema, layout)
        yield from _rows(path, source.schema, columns, _arrow_batches(source, columns))


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


def class_names(path: Path) -> dict[str, list[str]]:
    """Class names that the hub keeps inside a columnar file: column to names in number order."""
    if _is_parquet(path):
        schema = _opened(path, "parquet", parquet.ParquetFile).schema_arrow
    else:
        with pyarrow.memory_map(str(path)) as mapped:
            schema = _opened(path, "Arrow", lambda _: _arrow_reader(mapped)).schema
    names = {column: _class_names(feature) for column, feature in _features(schema).items()}
    return {column: held for column, held in names.items() if held is not None}


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) == b"PAR1"


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


def _features(schema: Any) -> dict[str, Any]:
    """What the hub wrote about the columns; nothing where that cannot be read."""
    try:
        return dict(parse_json((schema.metadata or {})[b"huggingface"])["info"]["features"])
    except (ValueError, KeyError, TypeError):
        return {}


def _class_names(feature: Any) -> list[str] | None:
    if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
        return feature.get("names")
    return None


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
    """The columns to read, None for all."""
    repeated = [name for name in schema.names if schema.names.count(name) > 1]
    if repeated:
        raise DataError(
            str(path), f'two columns are called "{repeated[0]}"', "give every column a name of its own"
        )
    return layout.picked(schema.names) or None


def _rows(
    path: Path, schema: Any, columns: list[str] | None, batches: Iterator[Any]
) -> Iterator[tuple[int, Row]]:
    features = _features(schema)
    changes = {
        field.name: change
        for field in schema
        if (columns is None or field.name in columns)
        and (change := _change(field.type, features.get(field.name)))
    }
    number = 0
    try:
        for batch in batches:
            for row in batch.to_pylist():
                number += 1
                for column, change in changes.items():
                    try:
                        row[column] = change(row[column])
                    except UnicodeDecodeError as error:
                        raise DataError(
                            f"{path}, row {number}",
                            f'column "{column}" holds bytes that are not UTF-8',
                            "write the column as text",
                        ) from error
                yield number, row
    except _BROKEN as error:
        raise DataError(
            str(path), f"is broken behind row {number}: {str(error).splitlines()[0]}", "fetch it again"
        ) from error


def _change(kind: Any, feature: Any) -> Change | None:
    """What makes a column's Python values those that the file means, at any depth; None where they are.

    Binary is UTF-8 text, a 32-bit number is the shortest decimal that reads back as it (0.1, not
    0.10000000149011612), and a number of the hub's ClassLabel knows its name.

    Args:
        kind: arrow's type of the column.
        feature: what the hub wrote about it, or None.
    """
    types = pyarrow.types
    if types.is_dictionary(kind):
        return _change(kind.value_type, feature)
    lists = (
        types.is_list,
        types.is_large_list,
        types.is_fixed_size_list,
        types.is_list_view,
        types.is_large_list_view,
    )
    if any(check(kind) for check in lists):
        inner = feature.get("feature") if isinstance(feature, dict) else feature
        item = _change(kind.value_type, inner[0] if isinstance(inner, list) and inner else inner)
        return None if item is None else _unless_null(lambda value: [item(one) for one in value])
    if types.is_map(kind):
        key, item = _change(kind.key_type, None) or _itself, _change(kind.item_type, None) or _itself
        return _unless_null(lambda value: [(key(name), item(one)) for name, one in value])
    if types.is_struct(kind):
        of = feature if isinstance(feature, dict) else {}
        members = {
            field.name: change for field in kind if (change := _change(field.type, of.get(field.name)))
        }
        return (
            _unless_null(lambda value: value | {m: do(value[m]) for m, do in members.items()})
            if members
            else None
        )
    if types.is_integer(kind) and (names := _class_names(feature)):
        return _unless_null(
            lambda value: ClassNumber(value, names[value]) if 0 <= value < len(names) else value
        )
    if types.is_float16(kind) or types.is_float32(kind):
        width = np.float16 if types.is_float16(kind) else np.float32
        return _unless_null(lambda value: float(str(width(value))))
    if any(check(kind) for check in (types.is_binary, types.is_large_binary, types.is_fixed_size_binary)):
        return _unless_null(bytes.decode)
    return _unless_null(bytes.decode) if types.is_binary_view(kind) else None


def _unless_null(change: Change) -> Change:
    return lambda value: None if value is None else change(value)


def _itself(value: Any) -> Any:
    return value
