r"""A table as LaTeX that fits a two-column page: booktabs, caption above, wrapped names, panels where it is wide.

A narrow table is a `table`, a wide one a `table*`, a long one a `longtable` (which LaTeX sets in one column only, so
the file switches to one column and back). Widths are estimated from the characters of the text font at `\small`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from metashot.engine.report.tables.table import Table, TableCell

_ESCAPES = str.maketrans(
    {
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_\allowbreak{}",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "\\": r"\textbackslash{}",
        "–": "--",
        "†": r"\textsuperscript{\dag}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
    }
)
PACKAGES = ("booktabs", "array", "longtable")
COLUMN_POINTS, PAGE_POINTS = 215.0, 450.0
"""Width of one column and of both, less a little, of a two-column article."""
_CHARACTER_POINTS, _GAP_POINTS, _LEAST_POINTS = 4.6, 8.0, 52.0
_LONG_LINES = 42
"""Lines of a table that still fit on a page with their caption."""


@dataclass(frozen=True, slots=True)
class _Panel:
    """Columns that stand side by side: their places in the table, and widths in points (0: as wide as its text)."""

    places: tuple[int, ...]
    widths: tuple[float, ...]

    @property
    def total(self) -> float:
        """Width of the panel."""
        return sum(self.widths) + _GAP_POINTS * len(self.widths)


def latex(table: Table) -> str:
    """One table, ready to be included in a paper."""
    panels = _panels(table)
    parts = [rf"% needs \usepackage{{{','.join(PACKAGES)}}}"]
    if sum(_lines(table, panel) for panel in panels) > _LONG_LINES:
        parts += _long(table, panels)
    else:
        wide = "*" if max(panel.total for panel in panels) > COLUMN_POINTS else ""
        parts += [
            rf"\begin{{table{wide}}}",
            r"\centering\small\setlength{\tabcolsep}{4pt}",
            _caption(table),
            rf"\label{{{label(table)}}}",
            r"\par\smallskip",
        ]
        for number, panel in enumerate(panels):
            parts += [r"\par\medskip"] * bool(number) + [
                rf"\begin{{tabular}}{{{_layout(table, panel)}}}",
                r"\toprule",
                *_heads(table, panel),
                r"\midrule",
                *_body(table, panel),
                r"\bottomrule",
                r"\end{tabular}",
            ]
        parts.append(rf"\end{{table{wide}}}")
    return "\n".join([*parts, ""])


def label(table: Table) -> str:
    """`tab:<key>`, with what LaTeX cannot have in a label spelt out, so that no two keys share one."""
    return "tab:" + re.sub(r"[^A-Za-z0-9:.-]", lambda match: f"-{ord(match[0]):x}-", table.key)


def escape(text: str) -> str:
    """Text with LaTeX's marks escaped; a line may break after an underscore."""
    return text.translate(_ESCAPES)


def _lines(table: Table, panel: _Panel) -> int:
    """Printed lines of a panel, with the wrapping of its cells."""
    wrapped = [
        max(
            math.ceil(_CHARACTER_POINTS * len(row[place].text) / width)
            if width < _natural(table, place)
            else 1
            for place, width in zip(panel.places, panel.widths, strict=True)
        )
        for row in table.rows
    ]
    return 3 + sum(wrapped)


def _long(table: Table, panels: Sequence[_Panel]) -> list[str]:
    lines = [
        r"\makeatletter\if@twocolumn\onecolumn\def\metashotback{\twocolumn}\else\def\metashotback{}\fi\makeatother",
        r"{\small\setlength{\tabcolsep}{4pt}\setlength{\LTcapwidth}{\textwidth}",
    ]
    for number, panel in enumerate(panels):
        caption = _caption(table) if number == 0 else rf"\caption[]{{{escape(table.title)} (continued).}}"
        heads = [r"\toprule", *_heads(table, panel), r"\midrule"]
        lines += [
            rf"\begin{{longtable}}{{{_layout(table, panel)}}}",
            caption + (rf"\label{{{label(table)}}}" if number == 0 else "") + r"\\",
            *heads, r"\endfirsthead",
            *heads, r"\endhead",
            r"\bottomrule", r"\endfoot",
            *_body(table, panel),
            r"\end{longtable}",
        ]  # fmt: skip
        if number:
            lines.append(r"\addtocounter{table}{-1}")
    return [*lines, r"}\metashotback"]


def _caption(table: Table) -> str:
    return rf"\caption{{{escape(table.title)}. {escape(table.note)}}}"


def _panels(table: Table) -> list[_Panel]:
    """The columns in as many panels as the page width asks for; each repeats the label columns."""
    natural = [_natural(table, place) for place in range(len(table.columns))]
    labels, numbers = range(table.n_labels), list(range(table.n_labels, len(table.columns)))
    wanted = [natural[place] for place in labels]
    beside = _shrunk(wanted, PAGE_POINTS - sum(natural[place] + _GAP_POINTS for place in numbers))
    if sum(beside) + sum(natural[place] for place in numbers) + _GAP_POINTS * len(natural) <= PAGE_POINTS:
        return [_Panel((*labels, *numbers), (*beside, *(natural[place] for place in numbers)))]
    widest = max((natural[place] + _GAP_POINTS for place in numbers), default=0.0)
    narrow = _shrunk(wanted, max(PAGE_POINTS - widest, 0.45 * PAGE_POINTS))
    taken = sum(narrow) + _GAP_POINTS * len(narrow)
    limit = PAGE_POINTS - taken - _GAP_POINTS
    panels: list[list[int]] = [[]]
    used = taken
    for place in numbers:
        width = min(natural[place], limit) + _GAP_POINTS
        if panels[-1] and used + width > PAGE_POINTS:
            panels.append([])
            used = taken
        panels[-1].append(place)
        used += width
    return [
        _Panel((*labels, *places), (*narrow, *(min(natural[place], limit) for place in places)))
        for places in panels
    ]


def _natural(table: Table, place: int) -> float:
    """Width of a column: its longest cell, and the longest word of its head, which wraps."""
    cells = max((len(row[place].text) for row in table.rows), default=0)
    head = max(map(len, re.split(r"[ _-]", table.columns[place])))
    return _CHARACTER_POINTS * max(cells, head, 2)


def _shrunk(widths: Sequence[float], room: float) -> list[float]:
    """The widest columns made narrower until all fit into `room`, none below a legible least."""
    shrunk = list(widths)
    room -= _GAP_POINTS * len(shrunk)
    while sum(shrunk) > room and max(shrunk) > _LEAST_POINTS:
        place = shrunk.index(max(shrunk))
        shrunk[place] = max(_LEAST_POINTS, shrunk[place] - _CHARACTER_POINTS)
    return shrunk


def _layout(table: Table, panel: _Panel) -> str:
    parts: list[str] = []
    for place, width in zip(panel.places, panel.widths, strict=True):
        wraps = width < _natural(table, place)
        side = "raggedright" if place < table.n_labels else "raggedleft"
        plain = "l" if place < table.n_labels else "r"
        parts.append(rf">{{\{side}\arraybackslash}}p{{{width:.0f}pt}}" if wraps else plain)
    return "@{}" + "".join(parts) + "@{}"


def _heads(table: Table, panel: _Panel) -> list[str]:
    lines: list[str] = []
    if table.groups:
        spans, rules = _spans(table, panel)
        lines += [" & ".join(spans) + r" \\", " ".join(rules)]
    heads: list[str] = []
    for place, width in zip(panel.places, panel.widths, strict=True):
        name = table.columns[place]
        text = escape(name)
        if len(name) * _CHARACTER_POINTS > width:
            side = "raggedright" if place < table.n_labels else "raggedleft"
            text = rf"\parbox[b]{{{width + 2:.0f}pt}}{{\{side}\strut {text}\strut}}"
        heads.append(text)
    return [*lines, " & ".join(heads) + r" \\"]


def _spans(table: Table, panel: _Panel) -> tuple[list[str], list[str]]:
    """Group heads over the panel's columns, and a rule under each."""
    owner = ["" for _ in range(table.n_labels)]
    for head, size in table.groups:
        owner += [head] * size
    spans: list[str] = [""] * table.n_labels
    rules: list[str] = []
    column = table.n_labels + 1
    while column <= len(panel.places):
        head = owner[panel.places[column - 1]]
        size = 1
        while column + size <= len(panel.places) and owner[panel.places[column + size - 1]] == head:
            size += 1
        spans.append(rf"\multicolumn{{{size}}}{{c}}{{{escape(head)}}}")
        rules.append(rf"\cmidrule(lr){{{column}-{column + size - 1}}}")
        column += size
    return spans, rules


def _body(table: Table, panel: _Panel) -> list[str]:
    return [" & ".join(_cell(row[place]) for place in panel.places) + r" \\" for row in table.rows]


def _cell(cell: TableCell) -> str:
    text = escape(cell.text)
    return rf"\textbf{{{text}}}" if cell.best else text
