"""Files of instruction variants: the raw rows of a task's splits, chosen by seed, rendered with a template."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from metashot.base.errors import DataError
from metashot.base.files import FileRecord, copy_file, write_lines
from metashot.base.identity import identity_of
from metashot.base.json_text import digest_of
from metashot.data.preparation.instructions import (
    Renderer,
    Template,
    choose_template,
    is_instruction,
    read_templates,
)
from metashot.data.preparation.place import Reach, open_split, own_files
from metashot.data.preparation.row_selection import k_shot_entries, parts
from metashot.data.preparation.task_files import Choice, Role
from metashot.data.recipes import DropCounts, load_recipe
from metashot.data.recipes.rows import (
    Dropped,
    Row,
    stopped,
)
from metashot.data.rows.jsonl import file_name, to_line
from metashot.data.rows.manifest import RoleRecord
from metashot.data.settings import base_task
from metashot.data.task import Example

__all__ = ["build_instructions", "instruction_fingerprint", "is_instruction"]

_RANDOM_NOTE = "the template draws at random: seeded here, unseeded in the original"


@dataclass(slots=True)
class _Variant:
    """One instruction variant in the making."""

    task: str
    role: Role
    renderer: Renderer
    drops: DropCounts = field(default_factory=DropCounts)

    def example(self, number: int, row: Row) -> Example:
        """Row `number` of its split, rendered.

        Raises:
            Dropped: an empty rendering, or options that the original stopped on.
        """
        pair = self.renderer.pair(row, number)
        if self.role == "train":
            return Example(self.task, pair.input, pair.output, ())
        options = self.renderer.options(row)
        if pair.output not in options:
            raise stopped("the answer is not among the options")
        return Example(self.task, pair.input, pair.output, tuple(options))

    def lines(self, rows: Iterable[tuple[int, Row]]) -> Iterator[str]:
        """Finished lines; dropped rows are counted."""
        for number, row in rows:
            try:
                yield to_line(self.example(number, row))
            except Dropped as dropped:
                self.drops.add(dropped)


def instruction_fingerprint(
    task: str, role: str, choice: Choice, reach: Reach, promptsource: Path | None
) -> str:
    """Digest of template, the plain task's recipe with its source, role, k and seeds."""
    recipe = load_recipe(base_task(task))
    made_of = [identity_of(_template(task, promptsource)), recipe.fingerprint, own_files(recipe, reach)]
    return digest_of([task, role, identity_of(choice), *made_of])


def build_instructions(
    task: str, role: Role, choice: Choice, root: Path, reach: Reach, promptsource: Path | None
) -> RoleRecord:
    """Make the files of one instruction variant.

    All rows of a split take part, in order: the plain recipe's filters and expansions do not apply
    (docs/methods.md, instructions).

    Raises:
        DataError: no templates, no source, or fewer rows than k in the test role.
    """
    template = _template(task, promptsource)
    variant = _Variant(task, role, Renderer(template, task))
    recipe = load_recipe(base_task(task))
    plan = recipe.spec.splits
    read_train, source = _reader(recipe, plan.train, reach)
    n_train = sum(1 for _ in read_train())
    files: dict[str, FileRecord] = {}
    folder = root / task

    def write(seed: int, part: str, rows: Iterable[tuple[int, Row]]) -> Path:
        path = folder / file_name(task, choice.k, seed, part)
        files[path.name] = write_lines(path, variant.lines(rows))
        return path

    if role == "test" and plan.cut is None:
        read_test, _ = _reader(recipe, plan.test, reach)
        n_test = sum(1 for _ in read_test())
    else:
        read_test, n_test = read_train, n_train
    numbers = parts(plan, n_train, n_test)
    if role == "test" and len(numbers.train) < choice.k:
        raise DataError(
            task, f"has {len(numbers.train)} rows, k={choice.k} asked", f"set prepare.k={len(numbers.train)}"
        )
    for seed in choice.seeds:
        train, dev = k_shot_entries(numbers.train, choice.k, seed)
        write(seed, "train", _picked(read_train, train))
        if role == "test":
            write(seed, "dev", _picked(read_train, dev))
    if role == "test":
        wanted = range(n_test) if numbers.test is None else numbers.test
        first, *others = choice.seeds
        made = write(first, "test", _picked(read_test, wanted))
        for seed in others:
            name = file_name(task, choice.k, seed, "test")
            copy_file(made, folder / name)
            files[name] = files[made.name]
    for name in [name for name, record in files.items() if record.rows == 0 and role == "train"]:
        (folder / name).unlink()  # a template that yields nothing gets no file
        del files[name]
    return RoleRecord(
        fingerprint=instruction_fingerprint(task, role, choice, reach, promptsource),
        fixes=False,
        source={"rows": source, "template": template.name},
        k=choice.k,
        seeds=choice.seeds,
        entries={"train": n_train},
        dropped={"all": variant.drops.as_dict()} if variant.drops.total() else {},
        files=files,
        notes=(_RANDOM_NOTE,) if template.draws_at_random else (),
    )


def _template(task: str, promptsource: Path | None) -> Template:
    if promptsource is None:
        raise DataError(
            "prepare.promptsource",
            f'"{task}" needs PromptSource\'s templates',
            "give a checkout or package folder",
        )
    return choose_template(task, read_templates(promptsource, base_task(task)))


def _reader(recipe: Any, split: str, reach: Reach) -> tuple[Callable[[], Iterator[Row]], str]:
    rows = open_split(recipe, split, reach)
    # Templates may name any column, not only those of the recipe.
    whole = replace(rows, layout=replace(rows.layout, columns=()))
    if recipe.name != "circa":
        return lambda: iter(whole), rows.located.origin
    return lambda: _circa(whole), rows.located.origin


def _circa(rows: Iterable[Row]) -> Iterator[Row]:
    """Rows without a gold label go, and goldstandard1 takes the value of goldstandard2."""
    for row in rows:
        if row["goldstandard2"] != -1:
            yield {**row, "goldstandard1": row["goldstandard2"]}


def _picked(read: Callable[[], Iterator[Row]], numbers: Iterable[int]) -> Iterator[tuple[int, Row]]:
    order = [int(number) for number in numbers]
    if order == sorted(order):
        wanted = set(order)
        return ((number, row) for number, row in enumerate(read()) if number in wanted)
    wanted = set(order)
    held = {number: row for number, row in enumerate(read()) if number in wanted}
    return ((number, held[number]) for number in order)
