"""Plots of a report, each with a text that says what it shows."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metashot.engine.metrics.statistics import seed_values
from metashot.engine.report.systems.diagnosis import Diagnosis
from metashot.engine.report.systems.results import System, SystemResults
from metashot.engine.report.tables.comparisons import Curve

INK = "#1f2933"
"""Colour of text and axes; a page replaces it by the reader's text colour."""

# Okabe and Ito's palette without yellow and black: tells series apart for colour-blind readers,
# on white as on black.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_WIDTH_INCHES = 4.8
HOLLOW = " (hollow: cells are missing)"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "metashot",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "legend.frameon": False,
}


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawn plot.

    Attributes:
        key: file name stem and anchor.
        title: heading.
        alternative: what the plot shows, for readers who do not see it.
        svg: the picture with text as text, on a transparent ground.
        png: the picture on white, 200 dots per inch.
    """

    key: str
    title: str
    alternative: str
    svg: str
    png: bytes


def results_plot(setting: str, answers: Sequence[SystemResults]) -> Plot:
    """Mean with interval and worst seed of every system of a setting."""
    rows = list(reversed(answers))

    def draw(figure: Figure, axes: Axes) -> None:
        places = np.arange(len(rows))
        means = np.array([100 * row.figures.mean.value for row in rows])
        lows = np.array([100 * row.figures.mean.low for row in rows])
        highs = np.array([100 * row.figures.mean.high for row in rows])
        worst = [np.nan if row.worst is None else 100 * row.worst.value for row in rows]
        # A percentile interval of a biased statistic can lie beside its value.
        bars = np.maximum(0, [means - lows, highs - means])
        axes.errorbar(
            means,
            places,
            xerr=bars,
            fmt="o",
            color=_COLORS[0],
            capsize=3,
            label="mean and interval",
            markerfacecolor="none",
        )
        whole = np.array([row.coverage.complete for row in rows])
        axes.plot(means[whole], places[whole], "o", color=_COLORS[0])  # hollow ones lack cells
        axes.plot(worst, places, "|", color=_COLORS[1], markersize=12, markeredgewidth=2, label="worst seed")
        axes.set_yticks(places, _labels(rows))
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel("percent" + (HOLLOW if not whole.all() else ""))
        figure.legend(loc="outside upper center", ncols=2)

    whole = [row for row in answers if row.coverage.complete] or answers
    best = max(whole, key=lambda row: row.figures.mean.value)
    alternative = (
        f"Mean score of {len(answers)} methods on {setting} with intervals. "
        + "; ".join(f"{_name(row)} {100 * row.figures.mean.value:.1f}" for row in answers)
        + f". Highest: {_name(best)}."
    )
    height = 1.3 + 0.42 * len(rows)
    return draw_plot(f"results-{setting}", f"Results on {setting}", alternative, height, draw)


def shots_plot(curves: Mapping[Curve, Mapping[int, SystemResults]]) -> Plot:
    """Mean over the number of demonstrations, with intervals."""

    def draw(figure: Figure, axes: Axes) -> None:
        shots = sorted({k for curve in curves.values() for k in curve})
        for number, (label, curve) in enumerate(curves.items()):
            ks = sorted(curve)
            # Even spacing: the values of k usually double.
            places = [shots.index(k) for k in ks]
            color = _COLORS[number % len(_COLORS)]
            axes.plot(
                places, [100 * curve[k].figures.mean.value for k in ks], color=color,
                marker=_MARKERS[number % len(_MARKERS)], label=names[label],
            )  # fmt: skip
            lows = [100 * curve[k].figures.mean.low for k in ks]
            highs = [100 * curve[k].figures.mean.high for k in ks]
            axes.fill_between(places, lows, highs, color=color, alpha=0.15, linewidth=0)
            gaps = [
                (place, 100 * curve[k].figures.mean.value)
                for place, k in zip(places, ks, strict=True)
                if not curve[k].coverage.complete
            ]
            if gaps:
                axes.plot(
                    *zip(*gaps, strict=True), linestyle="none", color=color, markerfacecolor="white",
                    marker=_MARKERS[number % len(_MARKERS)], zorder=5,
                )  # fmt: skip
        axes.set_xticks(range(len(shots)), [_shots_label(k, curves) for k in shots])
        whole = all(row.coverage.complete for curve in curves.values() for row in curve.values())
        axes.set_xlabel("demonstrations k" + ("" if whole else HOLLOW))
        axes.set_ylabel("percent")
        figure.legend(loc="outside upper center", ncols=1)

    names = _curve_names(list(curves))
    parts = [
        f"{label[1]} on {label[0]} with {label[2]}: "
        + ", ".join(f"k={k} {100 * curve[k].figures.mean.value:.1f}{curve[k].mark}" for k in sorted(curve))
        for label, curve in curves.items()
    ]
    alternative = "Mean score by number of demonstrations. " + "; ".join(parts) + "."
    return draw_plot("shots", "Number of demonstrations", alternative, 3.2 + 0.25 * len(curves), draw)


def _shots_label(k: int, curves: Mapping[Curve, Mapping[int, SystemResults]]) -> str:
    """A place on the axis of k, with what the prompts held where that is less."""
    rows = [curve[k] for curve in curves.values() if k in curve]
    if not any(row.shown for row in rows):
        return str(k)
    held = [k if row.shown is None else row.shown[0] for row in rows]
    low, high = f"{min(held):.1f}", f"{max(held):.1f}"
    return f"{k}\n({low if low == high else f'{low} to {high}'} shown)"


def _curve_names(curves: Sequence[Curve]) -> dict[Curve, str]:
    """The method, and of setting and model what differs between curves."""
    vary = [len({curve[place] for curve in curves}) > 1 for place in range(3)]
    names: dict[Curve, str] = {}
    for setting, method, model in curves:
        parts = [
            part
            for part, show in zip((method, setting, model), (True, vary[0], vary[2]), strict=True)
            if show
        ]
        names[setting, method, model] = _wrapped(", ".join(parts), 46)
    return names


def seeds_plot(setting: str, answers: Sequence[SystemResults]) -> Plot | None:
    """One dot a demonstration seed: the mean over tasks of every system; None without several seeds."""
    rows = [row for row in reversed(answers) if row.has_seeds and len(_seed_means(row)) > 1]
    if not rows:
        return None

    def draw(figure: Figure, axes: Axes) -> None:
        for place, row in enumerate(rows):
            values = list(_seed_means(row).values())
            axes.plot([min(values), max(values)], [place, place], color=_COLORS[0], alpha=0.4)
            axes.plot(values, [place] * len(values), "o", color=_COLORS[0], alpha=0.8)
        axes.set_yticks(range(len(rows)), _labels(rows))
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel("percent, one dot a seed")

    spans = []
    for row in reversed(rows):
        values = _seed_means(row).values()
        spans.append(f"{_name(row)} from {min(values):.1f} to {max(values):.1f}")
    alternative = f"Mean over tasks of {setting} for each demonstration seed: " + "; ".join(spans) + "."
    height = 1.0 + 0.42 * len(rows)
    return draw_plot(f"seeds-{setting}", f"Demonstration seeds on {setting}", alternative, height, draw)


def diagnosis_plot(
    setting: str, answers: Sequence[SystemResults], found: Mapping[System, Diagnosis]
) -> Plot | None:
    """The biases of each system of a setting; None where nothing stored tells any."""
    kinds = ("posterior", "contextual", "domain")
    rows = [
        row for row in reversed(answers) if row.system in found and found[row.system].posterior is not None
    ]
    if not rows:
        return None
    values = {
        kind: np.array([getattr(found[row.system], kind) for row in rows], dtype=np.float64) for kind in kinds
    }  # None becomes NaN, which is not drawn

    def draw(figure: Figure, axes: Axes) -> None:
        for kind, color, marker in zip(kinds, _COLORS, _MARKERS, strict=False):
            if np.isfinite(values[kind]).any():
                axes.plot(
                    100 * values[kind], np.arange(len(rows)), marker, color=color, label=kind, alpha=0.8
                )
        axes.set_yticks(range(len(rows)), _labels(rows))
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlim(left=0)
        axes.set_xlabel("bias, percent (0: none)")
        figure.legend(loc="outside upper center", ncols=3)

    told = [f"{_name(row)} {100 * value:.1f}" for row, value in zip(rows, values["posterior"], strict=True)]
    alternative = (
        f"Biases of the systems on {setting}; posterior bias in percent: " + "; ".join(reversed(told)) + "."
    )
    return draw_plot(
        f"diagnosis-{setting}", f"Biases on {setting}", alternative, 1.3 + 0.42 * len(rows), draw
    )


def _seed_means(row: SystemResults) -> dict[int, float]:
    """Seed -> mean over tasks in percent, for the seeds that every task has."""
    by_task = [dict(zip(o.seeds, 100 * seed_values(o), strict=True)) for o in row.outcomes.values()]
    common = set(by_task[0]).intersection(*by_task)
    return {seed: float(np.mean([values[seed] for values in by_task])) for seed in sorted(common)}


def draw_plot(
    key: str, title: str, alternative: str, height: float, draw: Callable[[Figure, Axes], None]
) -> Plot:
    """A plot in the report's style, `height` inches high; `draw` fills the axes."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_INCHES, height), layout="constrained")
        draw(figure, figure.subplots())
        svg, png = io.StringIO(), io.BytesIO()
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None, "Title": title})
        figure.savefig(png, format="png", dpi=200, facecolor="white", metadata={"Software": None})
    return Plot(key, title, alternative, svg.getvalue(), png.getvalue())


def _labels(rows: Sequence[SystemResults]) -> list[str]:
    several = len({row.system.model for row in rows}) > 1
    return [_wrapped(_name(row) if several else row.system.title + _missing(row)) for row in rows]


def _name(row: SystemResults) -> str:
    return f"{row.system.title} ({row.system.model}){_missing(row)}"


def _missing(row: SystemResults) -> str:
    return row.mark


def _wrapped(text: str, width: int = 30, lines: int = 3) -> str:
    return "\n".join(textwrap.wrap(text, width, max_lines=lines, placeholder="…"))
