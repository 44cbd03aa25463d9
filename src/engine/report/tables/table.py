"""A table that every output format is written from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from metashot.engine.metrics.statistics import Interval


@dataclass(frozen=True, slots=True)
class TableCell:
    """One cell.

    Attributes:
        text: as shown.
        value: what sorting and CSV use; None where there is no number.
        best: whether the cell is the best of its column.
        link: an address that a page links the text to.
    """

    text: str
    value: float | None = None
    best: bool = False
    link: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table; the first `n_labels` columns are names, the rest numbers.

    Attributes:
        key: file name stem and anchor.
        title: heading.
        note: how to read it.
        columns: column heads.
        rows: cells, as many as columns.
        n_labels: leading text columns.
        folded: whether a page shows it closed at first.
        groups: (head, number of columns) above the columns that follow the labels; empty without such heads.
    """

    key: str
    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[TableCell, ...], ...]
    n_labels: int = 1
    folded: bool = False
    groups: tuple[tuple[str, int], ...] = ()

    @property
    def heads(self) -> tuple[str, ...]:
        """Column heads that stand alone: with their group's head in front."""
        over = [""] * self.n_labels + [f"{head}: " for head, size in self.groups for _ in range(size)]
        return (
            tuple(f"{group}{name}" for group, name in zip(over, self.columns, strict=True))
            if self.groups
            else self.columns
        )


def without_constant_columns(table: Table, columns: Sequence[str] = ("Setting", "Model")) -> Table:
    """`table` less those of these label columns that say the same in every row; the note says it once."""
    constant = {
        place: table.rows[0][place].text
        for place, name in enumerate(table.columns[: table.n_labels])
        if name in columns and len({row[place].text for row in table.rows}) == 1
    }
    if not constant or len(table.rows) < 2:
        return table
    kept = [place for place in range(len(table.columns)) if place not in constant]
    said = ", ".join(f"{table.columns[place].lower()} {text}" for place, text in constant.items())
    return replace(
        table,
        columns=tuple(table.columns[place] for place in kept),
        rows=tuple(tuple(row[place] for place in kept) for row in table.rows),
        n_labels=table.n_labels - len(constant),
        note=f"{said[0].upper()}{said[1:]}. {table.note}",
    )


def names(*texts: str) -> tuple[TableCell, ...]:
    """Text cells."""
    return tuple(TableCell(text) for text in texts)


def percent(value: float | None, best: bool = False, mark: str = "") -> TableCell:
    """A value in 0..1 as percent with one decimal, followed by `mark`."""
    return TableCell("–", None) if value is None else TableCell(f"{100 * value:.1f}{mark}", 100 * value, best)


def shots(k: int) -> TableCell:
    """The number of demonstrations; a zero-shot row says so."""
    return TableCell(str(k) if k else "zero-shot", k)


def points(value: float | None) -> TableCell:
    """A difference in percentage points with its sign."""
    return TableCell("–", None) if value is None else TableCell(f"{value:+.1f}", value)


def p_value(value: float) -> TableCell:
    """A p-value with three decimals, or `<0.001`."""
    return TableCell("<0.001" if value < 0.001 else f"{value:.3f}", value)


def interval_cell(interval: Interval) -> TableCell:
    """An interval of a value in 0..1 in percent, sorted by its width."""
    low, high = 100 * interval.low, 100 * interval.high
    return TableCell(f"{low:.1f} to {high:.1f}", high - low)
