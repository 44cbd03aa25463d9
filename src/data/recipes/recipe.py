"""A recipe at work: rows in, examples out, with a count of what was dropped and why."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from metashot.base.errors import DataError
from metashot.base.identity import identity_of
from metashot.base.json_text import digest_of
from metashot.data.kshot import CUT_SEED, POOL_SEED, legacy_generator
from metashot.data.recipes import choice_kinds, unifiedqa
from metashot.data.recipes.finalize import finish
from metashot.data.recipes.keys import CommonKeys, DropRule, ReleasedRule
from metashot.data.recipes.kinds import Generator, PairOf
from metashot.data.recipes.own_rows import compile_pair_check, compile_row_check
from metashot.data.recipes.registry import KINDS
from metashot.data.recipes.rows import (
    AnyPair,
    BadRow,
    Dropped,
    Row,
    held,
    lookup,
    stopped,
)
from metashot.data.recipes.spec import GroupedChoices, UnifiedqaPool, UnifiedqaTarget
from metashot.data.recipes.twins import is_same, is_void, number_of
from metashot.data.task import Example, TaskType

CODE_VERSION = 3
"""Raise when the meaning of a recipe key changes: it enters every fingerprint."""
_MISSING = object()
ROLES = ("train", "validation", "dev", "test")


@dataclass(slots=True)
class DropCounts:
    """Rows that became no example, by reason.

    Attributes:
        released: whether the recipe follows the released preprocessing where that stopped.
        left_out: the published data leaves them out as well.
        stopped: the original program stopped on such a row; it is dropped here.
        dropped: rows of a recipe that does not follow the released preprocessing.
        first: the place of the first such row, by reason.
        rows: the places of all of them, in order.
        rules: rows that each drop rule matched, by its number.
    """

    released: bool = True
    left_out: Counter[str] = field(default_factory=Counter)
    stopped: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    first: dict[str, int] = field(default_factory=dict)
    rows: array[int] = field(default_factory=lambda: array("Q"))
    rules: Counter[int] = field(default_factory=Counter)

    def add(self, dropped: Dropped, index: int | None = None) -> None:
        """Count one row, the one at `index` of its source if that is known."""
        as_released = self.left_out if dropped.published else self.stopped
        (as_released if self.released else self.dropped)[dropped.reason] += 1
        self.rules.update(dropped.rules)
        if index is not None:
            self.first.setdefault(dropped.reason, index)
            self.rows.append(index)

    def total(self) -> int:
        """All rows counted."""
        return self.left_out.total() + self.stopped.total() + self.dropped.total()

    def as_dict(self) -> dict[str, dict[str, int]]:
        """For the manifest."""
        if not self.released:
            return {"dropped": dict(self.dropped)}
        return {"left_out": dict(self.left_out), "original_stopped": dict(self.stopped)}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one task's examples come out of its source rows.

    Attributes:
        spec: the recipe file's content, corrections applied if `fixed`.
        fixed: whether the recorded corrections are in force.
        path: the file it stands in.
    """

    spec: Any
    fixed: bool = False
    path: str = ""

    @property
    def name(self) -> str:
        """Task name."""
        return self.spec.name

    @property
    def task_type(self) -> TaskType:
        """Classification, multi-choice or free-form."""
        return self.spec.task_type

    @property
    def is_line_based(self) -> bool:
        """UnifiedQA's text files, which have a selection rule of their own."""
        return isinstance(self.spec, UnifiedqaPool | UnifiedqaTarget)

    @property
    def drops_as_released(self) -> bool:
        """Whether dropped rows are those of the released preprocessing."""
        return self.spec.follows(ReleasedRule.STOPS)

    @property
    def fingerprint(self) -> str:
        """Digest of all that decides the examples; differs between published and corrected data."""
        return digest_of([CODE_VERSION, identity_of(self.spec)])

    def generator(self) -> Any:
        """The generator with which each split starts: seed 42, or 100 for UnifiedQA's training files."""
        return legacy_generator(POOL_SEED if isinstance(self.spec, UnifiedqaPool) else CUT_SEED)

    def pairs(
        self,
        rows: Iterable[Row],
        split: str = "train",
        drops: DropCounts | None = None,
        generator: Generator | None = None,
        locate: Callable[[int], str] | None = None,
    ) -> Iterator[AnyPair]:
        """Raw pairs in source order: what the k-shot selection shuffles.

        Args:
            rows: the source's rows, all of them, in order: some recipes draw one random number per row.
            split: named in errors.
            drops: counts the rows that become no pair.
            generator: what random recipes draw from; a fresh one by default.
            locate: row number to its file and line, for errors.

        Raises:
            DataError: a row does not fit the recipe.
        """
        self._check_split(split)
        counts = DropCounts(self.drops_as_released) if drops is None else drops
        drawn: Generator = self.generator() if generator is None else generator
        excluded = _compile_drops(self.spec.drop)
        if isinstance(self.spec, GroupedChoices):
            yield from self._grouped_pairs(rows, split, counts, drawn, excluded, locate)
            return
        make = self._maker(drawn, excluded)
        for index, row in enumerate(rows):
            try:
                pair = make(row)
            except Dropped as dropped:
                counts.add(dropped, index)
            except BadRow as bad:
                raise self._bad_row(bad, split, index, locate) from None
            else:
                yield pair

    def _grouped_pairs(
        self,
        rows: Iterable[Row],
        split: str,
        counts: DropCounts,
        generator: Generator,
        excluded: Callable[[Row], None] | None,
        locate: Callable[[int], str] | None,
    ) -> Iterator[AnyPair]:
        """Rows that are left out go before the others become groups; a group stands where its first row does."""
        check = excluded if self.drops_as_released else _compile_group_check(self.spec, excluded)
        kept: list[tuple[int, Row]] = []
        for index, row in enumerate(rows):
            try:
                if check is not None:
                    check(row)
            except Dropped as dropped:
                counts.add(dropped, index)
            except BadRow as bad:
                raise self._bad_row(bad, split, index, locate) from None
            else:
                kept.append((index, row))
        make = self._maker(generator, None)
        for numbers, group in choice_kinds.grouped(kept, self.spec.group_by):
            try:
                pair = make(group)
            except Dropped as dropped:
                counts.add(dropped, numbers[0])
            except BadRow as bad:
                raise self._bad_row(bad, split, numbers[bad.member], locate) from None
            else:
                yield pair

    def _bad_row(self, bad: BadRow, split: str, index: int, locate: Callable[[int], str] | None) -> DataError:
        where = f"{self.name}, {split} row {index}" if locate is None else locate(index)
        return DataError(where, bad.problem, bad.remedy)

    @property
    def is_row_wise(self) -> bool:
        """Whether a row's pair depends on this row alone: nothing is drawn or grouped."""
        return KINDS[self.spec.kind].row_wise

    def pairs_of(self, rows: Iterable[Row]) -> Iterator[AnyPair]:
        """The pairs of some rows of a split, none of which is dropped; only for recipes that are row-wise."""
        return map(self._maker(self.generator(), _compile_drops(self.spec.drop)), rows)

    def _maker(self, generator: Generator, excluded: Callable[[Row], None] | None) -> PairOf:
        """Row to pair: drop rules, then what is asked of rows, then the recipe's kind."""
        make = KINDS[self.spec.kind].make(self.spec, generator)
        if self.drops_as_released:
            if excluded is None:
                return make

            def published(row: Row) -> AnyPair:
                excluded(row)
                return make(row)

            return published
        check_row = compile_row_check(self.spec)
        check_pair = compile_pair_check(self.spec, fixed_options(self.spec))

        def checked(row: Row) -> AnyPair:
            if excluded is not None:
                excluded(row)
            pair = make(check_row(row))
            check_pair(pair)
            return pair

        return checked

    def finish(self, pair: AnyPair) -> Example:
        """The last step: one pair to one example.

        Raises:
            Dropped: the pair becomes no example.
        """
        if isinstance(self.spec, UnifiedqaPool):
            return unifiedqa.finish_pool(self.spec, pair)
        if isinstance(self.spec, UnifiedqaTarget):
            return unifiedqa.finish_target(self.spec, pair)
        return finish(self.spec, fixed_options(self.spec), pair)

    def finished(self, pairs: Iterable[AnyPair], drops: DropCounts | None = None) -> Iterator[Example]:
        """The last step over many pairs, dropped ones counted and passed over."""
        counts = DropCounts(self.drops_as_released) if drops is None else drops
        spec = self.spec
        options = fixed_options(spec)
        common = not self.is_line_based
        for pair in pairs:
            try:
                yield finish(spec, options, pair) if common else self.finish(pair)
            except Dropped as dropped:
                counts.add(dropped)

    def stream(
        self, rows: Iterable[Row], split: str = "train", drops: DropCounts | None = None
    ) -> Iterator[Example]:
        """Examples one at a time, in source order, in constant memory."""
        return self.finished(self.pairs(rows, split, drops), drops)

    def convert(self, rows: Iterable[Row], split: str = "train") -> list[Example]:
        """All examples of these rows, in source order.

        Args:
            rows: raw rows of one split of the source, in source order.
            split: `train`, `validation`, `test`, or the source's own split name.

        Raises:
            DataError: a row lacks a field or holds a label that the recipe does not know.
        """
        return list(self.stream(rows, split))

    def _check_split(self, split: str) -> None:
        plan = self.spec.splits
        known = [*ROLES, *(name for name in (plan.train, plan.test) if name)]
        if split not in known:
            raise DataError(
                "split", f'{self.name} has no split "{split}"', f"known: {', '.join(dict.fromkeys(known))}"
            )


def fixed_options(spec: CommonKeys) -> tuple[str, ...]:
    """The recipe's own option list; empty where options come from the text or there are none."""
    return tuple(spec.options) if isinstance(spec.options, list) else ()


def _compile_drops(rules: list[DropRule]) -> Callable[[Row], None] | None:
    if not rules:
        return None

    def check(row: Row) -> None:
        matching = [number for number, rule in enumerate(rules) if _matches(rule, row)]
        if matching:
            rule = rules[matching[0]]
            raise Dropped(rule.why or f'rule on field "{rule.field}"', published=True, rules=matching)

    return check


def _compile_group_check(
    spec: GroupedChoices, excluded: Callable[[Row], None] | None
) -> Callable[[Row], None]:
    """Drops rows by rule, and rows that belong to no group."""

    def check(row: Row) -> None:
        if excluded is not None:
            excluded(row)
        group = lookup(row, spec.group_by)
        if is_void(group) or (isinstance(group, str) and not group.strip()):
            raise stopped(f'field "{spec.group_by}" is {"blank" if isinstance(group, str) else "null"}')

    return check


def _matches(rule: DropRule, row: Row) -> bool:
    value = held(row, rule.field, _MISSING)
    if rule.missing or value is _MISSING:
        return rule.missing and value is _MISSING
    if rule.equals is not None:
        return any(is_same(value, known) for known in rule.equals)
    if is_void(value) or value == "":
        return False
    number = number_of(value)
    if number is None:
        raise BadRow(f'field "{rule.field}" holds {value!r}, not a number', "check the column")
    return (rule.above is not None and number > rule.above) or (
        rule.below is not None and number < rule.below
    )
