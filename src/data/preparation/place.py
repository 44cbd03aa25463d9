"""From a recipe's source to rows: tries today's place, then each fallback, and says what went wrong with each."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from metashot.base.errors import DataError, suggestion
from metashot.data.recipes import Recipe
from metashot.data.recipes.keys import Place
from metashot.data.sources.archive import extract_zip
from metashot.data.sources.download import TransferLimits, download, is_address
from metashot.data.sources.hub import Located, locate_in_folder, locate_on_hub
from metashot.data.sources.layout import Row, TableLayout, column_of
from metashot.data.sources.tables import format_of, is_table, read_rows, row_places

_WILD = "*?["


@dataclass(frozen=True, slots=True)
class Reach:
    """What may be used to get at source files.

    Attributes:
        raw: folder with source files of your own: `<raw>/<hub id>/...` laid out like the hub, or the paths that
            a recipe's `files` name.
        cache: folder for downloads.
        online: whether the hub and web addresses may be asked.
        limits: patience and size limits of downloads.
    """

    raw: Path | None = None
    cache: Path = Path("downloads")
    online: bool = True
    limits: TransferLimits = field(default_factory=TransferLimits)


@dataclass(frozen=True, slots=True)
class SplitRows:
    """The rows of one split, readable more than once.

    Attributes:
        located: files and revision.
        place: the place of the recipe that answered.
        layout: how the files are read.
    """

    located: Located
    place: Place
    layout: TableLayout

    def __iter__(self) -> Iterator[Row]:
        adapt = _adapter(self.place, self.located.paths[0], self.layout)
        for path in self.located.paths:
            rows = read_rows(path, self.layout)
            yield from rows if adapt is None else map(adapt, rows)

    def at(self, numbers: Iterable[int]) -> Iterator[Row]:
        """The rows with these numbers, ascending, of files that were read through before."""
        adapt = _adapter(self.place, self.located.paths[0], self.layout)
        rows = chain.from_iterable(read_rows(path, self.layout) for path in self.located.paths)
        place = 0
        for number in numbers:
            row = next(islice(rows, number - place, None))
            yield row if adapt is None else adapt(row)
            place = number + 1

    def places(self, indices: Collection[int]) -> dict[int, str]:
        """File and line of rows by their number, found by reading again."""
        found: dict[int, str] = {}
        before = 0
        for path in self.located.paths:
            inside = {index - before for index in indices if index >= before and index not in found}
            found |= {index + before: place for index, place in row_places(path, self.layout, inside).items()}
            if len(found) == len(indices) or path == self.located.paths[-1]:
                break
            before += sum(1 for _ in read_rows(path, self.layout))
        return found


def open_split(recipe: Recipe, split: str, reach: Reach) -> SplitRows:
    """Rows of one split of a task's source, from the first place that has them.

    Raises:
        DataError: no place has them; lists each place with its reason.
    """
    reasons: list[str] = []
    source = recipe.spec.source
    for place in (source, *source.fallbacks):
        filled = _filled(place, recipe.name)
        try:
            located = _locate(recipe, filled, split, reach)
        except DataError as error:
            reasons.append(f"{error.where}: {error.problem}")
            continue
        layout = _layout(recipe, filled)
        return SplitRows(located, filled, layout)
    raise DataError(
        f"{recipe.name}, split {split}",
        "no source could be reached: " + "; ".join(reasons),
        "put the files into data.raw, or use prepared data (prepare.source)",
    )


def _filled(place: Place, task: str) -> Place:
    """`{task}` and `{short_name}` (the name behind its last colon) stand in family files."""
    short = task.rsplit(":", 1)[-1]

    def filled(name: str) -> str:
        return name.replace("{task}", task).replace("{short_name}", short)

    files = {
        split: filled(given) if isinstance(given, str) else [filled(name) for name in given]
        for split, given in place.files.items()
    }
    return place.model_copy(update={"files": files})


def _locate(recipe: Recipe, place: Place, split: str, reach: Reach) -> Located:
    if place.files:
        return _locate_file(recipe, place, split, reach)
    if place.hub is None:
        raise DataError(f"source of {recipe.name}", "names neither hub nor files", "add one of them")
    if reach.raw is not None:
        found = locate_in_folder(reach.raw / _inside(place.hub), place.config, split)
        if found is not None:
            return found
    if not reach.online:
        raise DataError(place.hub, "not in data.raw, and the hub may not be asked", "set prepare.online=true")
    return locate_on_hub(place.hub, place.config, split, place.revision)


def _locate_file(recipe: Recipe, place: Place, split: str, reach: Reach) -> Located:
    if split not in place.files:
        raise DataError(
            f"source of {recipe.name}", f'names no file for split "{split}"', suggestion(split, place.files)
        )
    given = place.files[split]
    if isinstance(given, list):
        found = [_locate_one(recipe, place, name, split, reach) for name in given]
        if not found:
            raise DataError(f"source of {recipe.name}", f'lists no file for split "{split}"', "name one")
        paths = tuple(path for one in found for path in one.paths)
        return Located(paths, "", ", ".join(dict.fromkeys(one.origin for one in found)))
    return _locate_one(recipe, place, given, split, reach)


def _locate_one(recipe: Recipe, place: Place, name: str, split: str, reach: Reach) -> Located:
    if place.archive is not None:
        return _locate_in_archive(recipe, place, place.archive, name, reach)
    if not is_address(name):
        return _local(name, split, recipe, reach)
    if not reach.online:
        raise DataError(name, "web addresses may not be asked", "set prepare.online=true")
    path = download(name, _cached(name, reach), place.sha256.get(split), reach.limits)
    return Located((path,), "", name)


def _local(name: str, split: str, recipe: Recipe, reach: Reach) -> Located:
    candidates = _candidates(name, recipe, reach)
    for candidate in candidates:
        paths = _matching(candidate)
        if paths and all(path.is_file() for path in paths):
            return Located(paths, "", str(candidate))
        if candidate.is_dir():
            return Located(_in_folder(candidate, split), "", str(candidate))
    tried = " and ".join(str(candidate) for candidate in candidates)
    raise DataError(
        name, f"no such file (tried {tried})", "paths start at the recipe's folder or at data.raw"
    )


def _matching(path: Path) -> tuple[Path, ...]:
    """The file itself, or all files of a pattern (`rows-*.parquet`) in the order of their names."""
    if path.is_file():
        return (path,)
    wild = next((place for place, part in enumerate(path.parts) if any(sign in part for sign in _WILD)), None)
    if wild is None:
        return ()
    found = Path(*path.parts[:wild]).glob(str(Path(*path.parts[wild:])))
    return tuple(sorted(one for one in found if one.is_file()))


def _candidates(name: str, recipe: Recipe, reach: Reach) -> list[Path]:
    path = _inside(name)
    return [Path(recipe.path).parent / path, *([reach.raw / path] if reach.raw is not None else [])]


def _inside(name: str) -> Path:
    """A path of a recipe: below the folder that it starts at, since a recipe may come from others."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or name.startswith("~") or "\\" in name or "\0" in name:
        raise DataError(
            name,
            "lies outside the folders that a recipe may read",
            "write a path below the recipe's folder, or give the folder on the command line: data.raw=<folder>",
        )
    return Path(path)


def own_files(recipe: Recipe, reach: Reach) -> list[list[str | int]]:
    """Name, size and time of the local files of a source, so that a file that was edited is read anew."""
    if recipe.spec.source.archive is not None:
        return []
    given = _filled(recipe.spec.source, recipe.name).files.values()
    names = [name for one in given for name in ([one] if isinstance(one, str) else one)]
    paths = [path for name in names if not is_address(name) for path in _candidates(name, recipe, reach)]
    files = [
        file
        for path in paths
        for file in (sorted(filter(Path.is_file, path.rglob("*"))) if path.is_dir() else _matching(path))
    ]
    return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _in_folder(folder: Path, split: str) -> tuple[Path, ...]:
    """The files of a split in a folder: what `datasets` saved, files named by the split, or all tables."""
    if any((folder / name).is_file() for name in ("dataset_dict.json", "state.json", "dataset_info.json")):
        from metashot.data.sources.columnar import saved_dataset_files

        files = saved_dataset_files(folder, split)
    else:
        named = locate_in_folder(folder, None, split)
        files = named.paths if named else tuple(filter(is_table, sorted(folder.iterdir())))
    if not files:
        held = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise DataError(
            str(folder),
            f"is a folder, but none that datasets has saved, and without tables (it holds {held})",
            "name a file, a pattern such as rows-*.parquet, or a folder of save_to_disk",
        )
    return files


def _locate_in_archive(recipe: Recipe, place: Place, archive: str, name: str, reach: Reach) -> Located:
    if is_address(archive):
        if not reach.online:
            raise DataError(archive, "web addresses may not be asked", "set prepare.online=true")
        local = download(archive, _cached(archive, reach), place.sha256.get("archive"), reach.limits)
    else:
        candidates = _candidates(archive, recipe, reach)
        local = next((path for path in candidates if path.is_file()), candidates[0])
    folder = extract_zip(local, reach.cache / "unpacked" / _key(archive))
    path = folder / _inside(name)
    if not path.is_file():
        members = [str(found.relative_to(folder)) for found in folder.rglob("*") if found.is_file()]
        raise DataError(archive, f'holds no "{name}"', suggestion(name, members))
    return Located((path,), "", archive)


def _cached(url: str, reach: Reach) -> Path:
    return reach.cache / _key(url) / _file_name(urlsplit(url).path)


def _file_name(path: str) -> str:
    name = PurePosixPath(path).name
    return name if name not in ("", ".", "..") else "file"


def _key(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def _layout(recipe: Recipe, place: Place) -> TableLayout:
    back = {new: old for old, new in place.rename.items()}
    fields: dict[str, str] = recipe.spec.fields
    return TableLayout(
        format=place.format,
        delimiter=place.delimiter,
        quotes=place.quotes,
        encoding=place.encoding,
        header=tuple(place.header),
        sheet=place.sheet,
        field=place.field,
        any_line_end=recipe.drops_as_released,
        columns=tuple(_renamed(path, back) for path in fields),
    )


def _renamed(path: str, names: Mapping[str, str]) -> str:
    """A path under the file's own name of its column."""
    column = column_of(path, names)
    return path if column is None else names[column] + path.removeprefix(column)


def _adapter(place: Place, first: Path, layout: TableLayout) -> Any:
    """Renames columns and renumbers classes by name; None where nothing is to be done."""
    if not place.rename and not place.by_class_name:
        return None
    numbers = _renumbering(place, first, layout)

    def adapt(row: Row) -> Row:
        renamed = {place.rename.get(column, column): value for column, value in row.items()}
        if len(renamed) < len(row):
            raise DataError(
                str(first),
                f"source.rename gives two columns one name: {', '.join(row)}",
                "rename the other one too",
            )
        for column, mapping in numbers.items():
            if column in renamed:
                renamed[column] = mapping.get(renamed[column], renamed[column])
        return renamed

    return adapt


def _renumbering(place: Place, first: Path, layout: TableLayout) -> Mapping[str, dict[Any, int]]:
    """Per column: today's number, or the class name itself, to the original's number."""
    read_names = format_of(first, layout).class_names if place.by_class_name else None
    stored = read_names(first) if read_names is not None else {}
    by_new_name = {place.rename.get(column, column): names for column, names in stored.items()}
    numbers: dict[str, dict[Any, int]] = {}
    for column, original in place.by_class_name.items():
        names = by_new_name.get(column)
        if names is None and read_names is not None:
            raise DataError(
                str(first),
                f'column "{column}" has no class names',
                "the file must carry the hub's class names",
            )
        unknown = [name for name in names or [] if name not in original]
        if unknown:
            raise DataError(str(first), f'class "{unknown[0]}" is unknown', suggestion(unknown[0], original))
        numbers[column] = dict(original)
        numbers[column].update({number: original[name] for number, name in enumerate(names or [])})
    return numbers
