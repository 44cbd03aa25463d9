"""One task in one role, from its source rows to its files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from metashot.base.errors import DataError
from metashot.base.files import FileRecord, copy_file, write_lines
from metashot.base.identity import identity_of
from metashot.base.json_text import digest_of
from metashot.data.kshot import legacy_generator
from metashot.data.preparation.card import PartCard, column_card
from metashot.data.preparation.place import Reach, SplitRows, open_split, own_files
from metashot.data.preparation.row_selection import drawn_entries, entry_rows, k_shot_entries, parts
from metashot.data.recipes import DropCounts, Recipe
from metashot.data.recipes.keys import OptionMarks, ReleasedRule
from metashot.data.recipes.rows import (
    AnyPair,
    Row,
)
from metashot.data.recipes.spec import CauseEffect, Choices, GroupedChoices, ShuffledChoices
from metashot.data.rows.jsonl import file_name, to_line
from metashot.data.rows.manifest import RoleRecord
from metashot.data.task import Example

Role = Literal["train", "test"]
Progress = Callable[[str, int], None]
"""Called with what is going on and how many rows of it are done."""

HELD_ENTRIES = 200_000
"""Sources with fewer entries are kept in memory between counting and choosing; larger ones are read twice."""
_PROGRESS_EVERY = 20_000
_LOOKED_AT = 2_000
"""Rows whose columns a data card describes."""
_CONTROL = re.compile(
    r"<\|[^\s|<>]{1,40}\|>|</?s>|<(?:bos|eos|pad|unk|mask|start_of_turn|end_of_turn)>|\[/?INST\]"
)
"""What tokenizers in use have as control tokens, written as text."""
_SHOWN_CONTROLS = 3


@dataclass(frozen=True, slots=True)
class Choice:
    """What to select.

    Attributes:
        k: examples per training (and development) file.
        seeds: one set of files per seed.
    """

    k: int
    seeds: tuple[int, ...]


@dataclass(slots=True)
class Entries:
    """The raw pairs of one split, counted, and readable by number.

    Attributes:
        count: how many there are.
        held: all of them, if few.
        read: makes a fresh pass over them.
        find: the ones with these numbers, in order, where that takes less than a whole pass.
    """

    count: int
    held: list[AnyPair] | None
    read: Callable[[], Iterator[AnyPair]]
    find: Callable[[list[int]], Iterator[AnyPair]] | None = None

    def pick(self, numbers: Iterable[int]) -> dict[int, AnyPair]:
        """The pairs with these numbers."""
        wanted = {int(number) for number in numbers}
        if self.held is not None:
            return {number: self.held[number] for number in wanted}
        if self.find is not None:
            ordered = sorted(wanted)
            return dict(zip(ordered, self.find(ordered), strict=True))
        return {number: pair for number, pair in enumerate(self.read()) if number in wanted}

    def all(self) -> Iterator[AnyPair]:
        """Every pair, in order."""
        return iter(self.held) if self.held is not None else self.read()


@dataclass(slots=True)
class _Work:
    """What accumulates while a task is prepared."""

    recipe: Recipe
    choice: Choice
    folder: Path
    files: dict[str, FileRecord] = field(default_factory=dict)
    entries: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, DropCounts] = field(default_factory=dict)
    source: dict[str, str] = field(default_factory=dict)
    drop_notes: list[str] = field(default_factory=list)
    controls: Counter[str] = field(default_factory=Counter)
    card: dict[str, Any] = field(default_factory=dict[str, Any])

    def counts(self, part: str) -> DropCounts:
        return self.dropped.setdefault(part, DropCounts(self.recipe.drops_as_released))

    def write(self, seed: int, part: str, pairs: Iterable[AnyPair]) -> Path:
        name = file_name(self.recipe.name, self.choice.k, seed, part)
        examples = self.recipe.finished(pairs, self.counts(f"{part}_file"))
        self.files[name] = write_lines(self.folder / name, map(to_line, map(self._watched, examples)))
        return self.folder / name

    def _watched(self, example: Example) -> Example:
        """The example, with what looks like a control token in it counted."""
        for text in (example.input, example.output, *example.options):
            if "<" in text or "[" in text:
                self.controls.update(set(_CONTROL.findall(text)))
        return example


def task_fingerprint(recipe: Recipe, role: str, choice: Choice, reach: Reach) -> str:
    """Digest of what decides a role's files: recipe, role, numbers, and size and time of source files of one's own."""
    return digest_of([recipe.fingerprint, recipe.name, role, identity_of(choice), own_files(recipe, reach)])


def build_role(
    recipe: Recipe, role: Role, choice: Choice, root: Path, reach: Reach, progress: Progress
) -> RoleRecord:
    """Make the files of one task in one role.

    Raises:
        DataError: no source, a row that does not fit the recipe, or fewer training rows than k in the test role.
    """
    work = _Work(recipe, choice, root / recipe.name)
    if recipe.is_line_based:
        _build_lines(work, role, reach, progress)
    elif role == "train":
        _build_pool(work, reach, progress)
    else:
        _build_target(work, reach, progress)
    return RoleRecord(
        fingerprint=task_fingerprint(recipe, role, choice, reach),
        fixes=recipe.fixed,
        source=work.source,
        k=choice.k,
        seeds=choice.seeds,
        entries=work.entries,
        dropped={part: counts.as_dict() for part, counts in work.dropped.items() if counts.total()},
        files=work.files,
        notes=_notes(work, role),
        task_type=recipe.task_type.value,
        metric=recipe.spec.metric,
        card=work.card,
    )


def _build_pool(work: _Work, reach: Reach, progress: Progress) -> None:
    plan = work.recipe.spec.splits
    train = _open(work, plan.train, "train", reach, progress)
    numbers = parts(plan, train.count, 0).train
    for seed in work.choice.seeds:
        chosen, _ = k_shot_entries(numbers, work.choice.k, seed)
        picked = train.pick(chosen)
        work.write(seed, "train", (picked[int(number)] for number in chosen))


def _build_target(work: _Work, reach: Reach, progress: Progress) -> None:
    plan, choice = work.recipe.spec.splits, work.choice
    train = _open(work, plan.train, "train", reach, progress)
    test = train if plan.cut else _open(work, _test_split(work), "test", reach, progress)
    numbers = parts(plan, train.count, test.count)
    _require(work, len(numbers.train))
    chosen = {seed: k_shot_entries(numbers.train, choice.k, seed) for seed in choice.seeds}
    picked = train.pick(number for pair in chosen.values() for part in pair for number in part)
    for seed, (train_numbers, dev_numbers) in chosen.items():
        work.write(seed, "train", (picked[int(number)] for number in train_numbers))
        work.write(seed, "dev", (picked[int(number)] for number in dev_numbers))
    if numbers.test is None:
        _write_tests(work, test.all())
    else:
        held = test.pick(numbers.test)
        _write_tests(work, (held[int(number)] for number in numbers.test))


def _build_lines(work: _Work, role: Role, reach: Reach, progress: Progress) -> None:
    """UnifiedQA: a task is made in one role only; its targets have no development file."""
    recipe, choice = work.recipe, work.choice
    trains_only = recipe.spec.splits.test is None
    if trains_only != (role == "train"):
        wanted, asked = ("train", "test") if trains_only else ("test", "train")
        raise DataError(recipe.name, f"has no {asked} role", f"UnifiedQA gives it the {wanted} role only")
    generator = recipe.generator()
    train = _open(work, recipe.spec.splits.train, "train", reach, progress, generator)
    if trains_only:
        for seed in choice.seeds:
            chosen = drawn_entries(generator, train.count, choice.k)
            picked = train.pick(chosen)
            work.write(seed, "train", (picked[int(number)] for number in chosen))
        return
    _require(work, train.count)
    for seed in choice.seeds:
        chosen = drawn_entries(legacy_generator(seed), train.count, choice.k)
        picked = train.pick(chosen)
        work.write(seed, "train", (picked[int(number)] for number in chosen))
    _write_tests(work, _open(work, _test_split(work), "test", reach, progress).all())


def _write_tests(work: _Work, pairs: Iterable[AnyPair]) -> None:
    """The evaluation file is the same for all seeds: written once, then copied."""
    first, *others = work.choice.seeds
    made = work.write(first, "test", pairs)
    for seed in others:
        name = file_name(work.recipe.name, work.choice.k, seed, "test")
        copy_file(made, work.folder / name)
        work.files[name] = work.files[made.name]


def _open(
    work: _Work, split: str, part: str, reach: Reach, progress: Progress, generator: Any = None
) -> Entries:
    recipe = work.recipe
    rows = open_split(recipe, split, reach)
    _note_source(work, part, rows)
    counts = work.counts(part)

    def first_pass() -> Iterator[AnyPair]:
        watched = _watched(rows, f"reading {part}", progress)
        return recipe.pairs(watched, split, counts, generator, locate=lambda row: rows.places({row})[row])

    def later_pass() -> Iterator[AnyPair]:
        return recipe.pairs(_watched(rows, f"choosing {part}", progress), split)

    held: list[AnyPair] | None = []
    count = 0
    card = PartCard()
    for pair in first_pass():
        count += 1
        if not recipe.drops_as_released:
            card.add(pair[0], pair[1])
        if held is not None:
            held.append(pair)
            if count > HELD_ENTRIES:
                held = None
    work.entries[part] = count
    reasons = _reasons(counts, rows)
    if count == 0:
        why = f": {'; '.join(reasons)}" if reasons else ""
        raise DataError(
            f"{recipe.name}, split {split}",
            f"no row became an example{why}",
            "check the source, the recipe's keys and its drop rules",
        )
    if not recipe.drops_as_released and counts.total():
        work.drop_notes += [f"{part}: {reason}" for reason in reasons]

    if not recipe.drops_as_released:
        name = f"{part} and test" if recipe.spec.splits.cut and part == "train" else part
        work.card.setdefault("parts", {})[name] = card.as_dict()
        if part == "train":
            work.card["columns"] = column_card(islice(rows, _LOOKED_AT), recipe.spec.fields)

    def chosen(numbers: list[int]) -> Iterator[AnyPair]:
        places = entry_rows(np.array(numbers), np.array(counts.rows, dtype=np.int64)).tolist()
        progress(f"choosing {part}", 0)
        return recipe.pairs_of(rows.at(places))

    return Entries(count, held, later_pass, chosen if recipe.is_row_wise else None)


def _reasons(counts: DropCounts, rows: SplitRows) -> list[str]:
    """`n rows dropped: reason (first: file:line)`, the most frequent first."""
    places = rows.places(set(counts.first.values()))
    total = counts.left_out + counts.stopped + counts.dropped
    return [
        f"{count} row{'s' if count > 1 else ''} dropped: {reason}"
        + (f" (first: {places[first]})" if (first := counts.first.get(reason)) in places else "")
        for reason, count in total.most_common()
    ]


def _watched(rows: Iterable[Row], what: str, progress: Progress) -> Iterator[Row]:
    number = 0
    for number, row in enumerate(rows, start=1):
        yield row
        if number % _PROGRESS_EVERY == 0:
            progress(what, number)
    progress(what, number)


def _note_source(work: _Work, part: str, rows: SplitRows) -> None:
    work.source[part] = rows.located.origin
    if rows.located.revision:
        work.source[f"{part}_revision"] = rows.located.revision


def _test_split(work: _Work) -> str:
    split = work.recipe.spec.splits.test
    if split is None:
        raise DataError(work.recipe.name, "has no test split", "prepare it in the train role only")
    return split


def _require(work: _Work, n: int) -> None:
    if n < work.choice.k:
        raise DataError(
            work.recipe.name,
            f"has {n} training examples, k={work.choice.k} asked",
            f"set prepare.k={n} or less",
        )


def _notes(work: _Work, role: Role) -> tuple[str, ...]:
    notes = list(work.drop_notes)
    spec = work.recipe.spec
    passes = isinstance(spec, Choices | ShuffledChoices | GroupedChoices | CauseEffect)
    if passes and isinstance(spec.options, OptionMarks) and not spec.follows(ReleasedRule.MARKS):
        notes.append(
            "options.cut_at is not needed: question and choices go through as they are "
            "(as_released: [marks] would cut them at their marks)"
        )
    if not work.recipe.drops_as_released:
        matched = sum((counts.rules for counts in work.dropped.values()), Counter[int]())
        notes += [
            f"drop rule {number + 1} (field {rule.field}) matched no row of {' and '.join(work.entries)}"
            for number, rule in enumerate(spec.drop)
            if not matched[number]
        ]
        notes += [
            f"texts hold {token!r} ({count} times), a control token of some models: it is read as text"
            for token, count in work.controls.most_common(_SHOWN_CONTROLS)
        ]
    stopped = sum(counts.stopped.total() for counts in work.dropped.values())
    if stopped:
        notes.append(f"{stopped} rows dropped on which the original stopped")
    if role == "test":
        short = [
            name for name, record in work.files.items() if "_train" in name and record.rows < work.choice.k
        ]
        if short:
            notes.append(f"{len(short)} training files hold fewer than k={work.choice.k} examples")
    return tuple(notes)


def dropped_total(dropped: Mapping[str, Any]) -> int:
    """Rows of a record that became no example, over all parts and reasons."""
    return sum(sum(reasons.values()) for part in dropped.values() for reasons in part.values())
