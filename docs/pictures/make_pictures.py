"""`make pictures`: the pictures of README and site, light and dark, from real runs of this checkout.

    python docs/pictures/make_pictures.py [--runs FOLDER]

Without --runs it first makes the sweep that the pictures show (some ten minutes on two cores); a sweep that is there
already is not computed again. The report page is taken by headless Chromium where that is installed (`chromium`).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SWEEP = (
    "method=direct,channel,pmi",
    "k=0,2,4,8",
    "seeds=[13,21]",
    "data.tasks=[demo-review_sentiment,demo-news_topic]",
)
WIDTHS = (1280, 390)
"""Of the page's screenshots, in CSS pixels: a desk and a telephone."""


@dataclass(frozen=True)
class Theme:
    """Colours of one variant of a picture."""

    name: str
    paper: str
    ink: str
    soft: str
    series: tuple[str, str, str]


THEMES = (
    Theme("light", "#ffffff", "#1f2430", "#d9dde5", ("#3366cc", "#d9730d", "#2a9d6f")),
    Theme("dark", "#14171f", "#e8eaf0", "#39404f", ("#7aa2f7", "#ff9e64", "#73daca")),
)


def main() -> None:
    """Make all of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=Path, default=ROOT / "outputs" / "pictures")
    parser.add_argument("--into", type=Path, default=HERE)
    arguments = parser.parse_args()
    run("-m", *SWEEP, f"results_root={arguments.runs}", f"hydra.sweep.dir={arguments.runs / 'sweep'}")
    arguments.into.mkdir(parents=True, exist_ok=True)
    for theme in THEMES:
        three_readings(theme, arguments.into)
        k_curve(theme, arguments.runs / "sweep", arguments.into)
    page(arguments.runs, arguments.into)


def run(*overrides: str) -> None:
    """One command of this checkout."""
    subprocess.run([sys.executable, str(ROOT / "run.py"), *overrides], check=True, cwd=ROOT)


def three_readings(theme: Theme, into: Path) -> None:
    """The same two demonstrations and one question, read by direct, channel and PMI scoring."""
    figure, axes = plt.subplots(3, 1, figsize=(9.6, 5.4), facecolor=theme.paper)
    x, y = theme.series[0], theme.series[1]
    shown = [("great food", x), ("positive", y), ("it broke", x), ("negative", y)]
    readings = (
        (
            "direct",
            "How likely is the answer after the text?",
            [*shown, ("lovely rooms", x)],
            ("positive?", y),
            "P(answer | demonstrations, text)",
        ),
        (
            "channel",
            "How likely is the text after the answer?",
            [("positive", y), ("great food", x), ("negative", y), ("it broke", x), ("positive", y)],
            ("lovely rooms?", x),
            "P(text | demonstrations, answer)",
        ),
        (
            "PMI",
            "Direct, but how much more likely than after no text?",
            [*shown, ("lovely rooms", x)],
            ("positive?", y),
            "P(answer | demonstrations, text) / P(answer | demonstrations, N/A)",
        ),
    )
    for axis, (name, question, before, scored, formula) in zip(axes, readings, strict=True):
        axis.set_axis_off()
        axis.set_xlim(0, 100)
        axis.set_ylim(0, 10)
        axis.text(0, 8.6, name, color=theme.ink, fontsize=15, fontweight="bold")
        axis.text(11.5, 8.7, question, color=theme.ink, fontsize=11.5)
        left = 0.0
        for text, colour in before:
            left = box(axis, left, text, colour, theme, filled=False)
        box(axis, left, scored[0], scored[1], theme, filled=True)
        axis.text(0, 0.6, formula, color=theme.ink, fontsize=10, family="monospace", alpha=0.8)
    figure.tight_layout(pad=0.8)
    save(figure, into / f"three_readings-{theme.name}.png", theme)


def box(axis: plt.Axes, left: float, text: str, colour: str, theme: Theme, *, filled: bool) -> float:
    """A piece of a prompt; returns where the next one begins."""
    width = 3.2 + 1.15 * len(text)
    axis.add_patch(
        plt.Rectangle(
            (left, 3.4),
            width,
            3.0,
            facecolor=colour if filled else theme.paper,
            edgecolor=colour,
            linewidth=1.6,
        )
    )
    axis.text(
        left + width / 2, 4.9, text, ha="center", va="center", fontsize=11,
        color=theme.paper if filled else theme.ink,
    )  # fmt: skip
    return left + width + 1.2


def k_curve(theme: Theme, sweep: Path, into: Path) -> None:
    """Mean macro-F1 of the sweep's tasks over the number of demonstrations, with each seed as a dot."""
    values: dict[str, dict[int, dict[int, list[float]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for file in sorted(sweep.glob("*/results.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            values[row["method"]][row["k"]][row["seed"]].append(100 * row["value"])
    if not values:
        raise SystemExit(f"no results in {sweep}")
    figure, axis = plt.subplots(figsize=(7.2, 4.2), facecolor=theme.paper)
    axis.set_facecolor(theme.paper)
    names = {"direct": "direct", "channel": "channel", "pmi": "PMI"}
    for (method, name), colour in zip(names.items(), theme.series, strict=True):
        points = sorted(values.get(method, {}).items())
        seeds = [[fmean(tasks) for tasks in by_seed.values()] for _, by_seed in points]
        axis.plot([k for k, _ in points], list(map(fmean, seeds)), color=colour, linewidth=2.2, label=name)
        for (k, _), each in zip(points, seeds, strict=True):
            axis.scatter([k] * len(each), each, color=colour, s=22, zorder=3)
    axis.set_xlabel("demonstrations in the prompt (k)")
    axis.set_ylabel("mean macro-F1 (%)")
    axis.set_xticks([0, 2, 4, 8])
    axis.grid(color=theme.soft, linewidth=0.6)
    for part in (axis.xaxis.label, axis.yaxis.label, *axis.get_xticklabels(), *axis.get_yticklabels()):
        part.set_color(theme.ink)
    for spine in axis.spines.values():
        spine.set_color(theme.soft)
    axis.tick_params(colors=theme.ink)
    legend = axis.legend(frameon=False)
    for text in legend.get_texts():
        text.set_color(theme.ink)
    figure.tight_layout()
    save(figure, into / f"k_curve-{theme.name}.png", theme)


def save(figure: plt.Figure, path: Path, theme: Theme) -> None:
    """Write and close."""
    figure.savefig(path, dpi=130, facecolor=theme.paper)
    plt.close(figure)


def page(runs: Path, into: Path) -> None:
    """Screenshots of the report page of all runs, light and dark, at a desk's and a telephone's width."""
    folder = runs / "report"
    run("stage=report", f"runs=[{runs / 'sweep'}]", f"hydra.run.dir={folder}", f"results_root={runs}")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        print("no Chromium here: the page's screenshots are left as they are")
        return
    for theme in THEMES:
        for width in WIDTHS:
            picture = into / f"page-{theme.name}-{width}.png"
            subprocess.run(
                [
                    browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
                    "--hide-scrollbars", f"--window-size={width},{900 if width > 1000 else 844}",
                    *(["--blink-settings=preferredColorScheme=0"] if theme.name == "dark" else []),
                    f"--screenshot={picture}", (folder / "report.html").as_uri(),
                ],
                check=True, capture_output=True, timeout=120,
            )  # fmt: skip


if __name__ == "__main__":
    main()
