"""Finding recipe files, checking them key by key, and answering by task name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from metashot.base.errors import DataError, suggestion
from metashot.base.yaml_files import YamlFile, read_yaml
from metashot.data.recipes.named_fields import named_fields
from metashot.data.recipes.own_rows import check_own_recipe
from metashot.data.recipes.recipe import Recipe
from metashot.data.recipes.registry import KINDS

_FAMILY_KEY = "tasks"


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where a task's recipe stands: its file, and its keys there (None for a file with one task)."""

    file: YamlFile
    task: str
    content: dict[str, Any]
    is_member: bool


def recipe_names(path: Sequence[str | Path] = ()) -> list[str]:
    """Names of the 142 shipped tasks, and of those in the folders on `path`, sorted.

    Raises:
        DataError: a folder is missing, a file breaks the format, or a name stands in two places.
    """
    return sorted(_index(tuple(str(folder) for folder in path)))


def load_recipe(name: str, fixes: bool = False, path: Sequence[str | Path] = ()) -> Recipe:
    """The recipe of one task.

    Args:
        name: task name, such as `glue-mnli`.
        fixes: apply the corrections that the recipe records, instead of reproducing the published data.
        path: folders with recipes of your own, searched besides the shipped ones.

    Raises:
        DataError: no such task, or its recipe breaks the format.
    """
    index = _index(tuple(str(folder) for folder in path))
    if name not in index:
        raise DataError("task", f'no recipe is called "{name}"', suggestion(name, index))
    return _recipe(index[name], fixes)


def check_recipes(path: Sequence[str | Path] = ()) -> int:
    """Check every recipe with and without its corrections; returns how many there are.

    Raises:
        DataError: the first fault found.
    """
    index = _index(tuple(str(folder) for folder in path))
    for entry in index.values():
        _recipe(entry, False)
        _recipe(entry, True)
    return len(index)


def _recipe(entry: _Entry, fixes: bool) -> Recipe:
    spec = _parse(entry, entry.content)
    if fixes and spec.fixes:
        content = dict(entry.content)
        for fix in spec.fixes:
            content = _merged(content, fix.set)
        spec = _parse(entry, content)
    return Recipe(spec, fixed=fixes, path=str(entry.file.path))


def _index(folders: tuple[str, ...]) -> Mapping[str, _Entry]:
    index: dict[str, _Entry] = dict(_shipped())
    for folder in folders:
        if not Path(folder).is_dir():
            raise DataError(
                "data.recipe_path", f'"{folder}" is no folder', "name folders that hold *.yaml recipes"
            )
        for entry in _entries(Path(folder)):
            _add(index, entry)
    return index


@cache
def _shipped() -> Mapping[str, _Entry]:
    index: dict[str, _Entry] = {}
    for entry in _entries(Path(str(files("metashot.data.recipes") / "definitions"))):
        _add(index, entry)
    return index


def _add(index: dict[str, _Entry], entry: _Entry) -> None:
    if entry.task in index:
        raise DataError(
            entry.file.where(_FAMILY_KEY, entry.task) if entry.is_member else entry.file.where("name"),
            f'the name "{entry.task}" is taken by {index[entry.task].file.path}',
            "choose another name",
        )
    index[entry.task] = entry


def _entries(folder: Path) -> Iterator[_Entry]:
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        file = read_yaml(path)
        if _FAMILY_KEY in file.content:
            yield from _family(file)
        elif _is_setting(file):
            continue
        elif isinstance(file.content.get("name"), str):
            yield _Entry(file, file.content["name"], file.content, is_member=False)
        else:
            raise DataError(file.where("name"), "the recipe has no name", "write `name: my_task`")


def _is_setting(file: YamlFile) -> bool:
    """Settings of one's own may lie among the recipes."""
    keys = set(file.content)
    return bool(keys & {"train", "test"}) and keys <= {"name", "title", "train", "test", "unseen_domain_test"}


def _family(file: YamlFile) -> Iterator[_Entry]:
    """A file with the keys that its tasks share, and under `tasks` what is each one's own."""
    shared = {key: value for key, value in file.content.items() if key != _FAMILY_KEY}
    members = file.content[_FAMILY_KEY]
    if "name" in shared or not isinstance(members, dict):
        raise DataError(
            file.where("name" if "name" in shared else _FAMILY_KEY),
            "a family file names its tasks under `tasks`",
            "write `tasks:` and below it one `task_name: {its own keys}` a task",
        )
    for task, own in members.items():
        yield _Entry(file, str(task), {**_merged(shared, own or {}), "name": str(task)}, is_member=True)


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`own` over `base`: `source` and `fields` merge key by key, notes add up, a null takes a key away."""
    merged = dict(base)
    for key, value in own.items():
        if key in ("source", "fields") and isinstance(value, dict) and isinstance(base.get(key), dict):
            merged[key] = {**base[key], **value}
        elif key == "notes":
            merged[key] = [*base.get(key, []), *value]
        elif value is None:
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged


def _parse(entry: _Entry, content: Mapping[str, Any]) -> Any:
    kind = content.get("kind")
    if kind not in KINDS:
        problem = f'unknown kind "{kind}"' if kind else f"the recipe of {entry.task} has no kind"
        raise DataError(entry.file.where("kind"), problem, suggestion(str(kind), KINDS))
    try:
        spec = KINDS[kind].keys.model_validate(content)
    except ValidationError as error:
        raise _format_error(entry, error) from None
    _check_fields(entry, spec)
    fault = check_own_recipe(spec)
    if fault is not None:
        key, bad = fault
        raise DataError(_place(entry, key), f"{key}: {bad.problem}", bad.remedy)
    return spec


def _format_error(entry: _Entry, error: ValidationError) -> DataError:
    faults = error.errors(include_url=False)
    # A misspelt key is also a missing one; its own error is the one that helps.
    fault = next((one for one in faults if one["type"] == "extra_forbidden"), faults[0])
    kind = str(entry.content.get("kind"))
    keys = [str(part) for part in fault["loc"]]
    prefix = (_FAMILY_KEY, entry.task) if entry.is_member else ()
    where = entry.file.where(*prefix, *keys)
    if entry.is_member and where == entry.file.where(*prefix):
        where = entry.file.where(*keys) if keys and entry.file.lines.get((keys[0],)) else where
    if fault["type"] == "extra_forbidden":
        known = _known_keys(kind, keys[:-1])
        return DataError(
            where, f'unknown key "{keys[-1]}" in the recipe of {entry.task}', suggestion(keys[-1], known)
        )
    if fault["type"] == "missing":
        return DataError(where, f'the recipe of {entry.task} lacks the key "{".".join(keys)}"', "add it")
    problem = fault["msg"].removeprefix("Value error, ")
    return DataError(where, f"{'.'.join(keys)}: {problem}, got {fault['input']!r}", "see the recipe format")


def _known_keys(kind: str, parents: Sequence[str]) -> Iterable[str]:
    model: Any = KINDS[kind].keys
    for parent in parents:
        names = [name for name in (parent, f"{parent}_") if name in getattr(model, "model_fields", {})]
        annotation = model.model_fields[names[0]].annotation if names else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        model = next((item for item in candidates if hasattr(item, "model_fields")), model)
    return [field.alias or name for name, field in model.model_fields.items()]


def _check_fields(entry: _Entry, spec: Any) -> None:
    """Templates and keys may only name declared fields, so that a slip shows before any row is read."""
    declared = {path.split(".")[0] for path in spec.fields}
    for key, path in named_fields(spec):
        is_known = path.split(".")[0] in declared
        if key == "drop" and is_known:
            # A rule on a field that no row has would drop nothing, and no row would tell.
            is_known = any(
                f"{path}.".startswith(f"{one}.") or one.startswith(f"{path}.") for one in spec.fields
            )
        if not is_known:
            raise DataError(
                _place(entry, key),
                f'{key} names the unknown field "{path}"',
                suggestion(path, {*spec.fields, *declared}),
            )


def _place(entry: _Entry, key: str) -> str:
    """Where a key of the task stands: under its own name, or among what its family shares."""
    if entry.is_member and (_FAMILY_KEY, entry.task, key) in entry.file.lines:
        return entry.file.where(_FAMILY_KEY, entry.task, key)
    return entry.file.where(key)
