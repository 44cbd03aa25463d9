"""`prompt=set` in the stages: a run of its own for each format, below the folder of the run that names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from rich.table import Table

from metashot.engine.cells.results import FinishedCell
from metashot.engine.cells.summary import outcomes_of
from metashot.engine.metrics.prompt_spread import PromptSpread, prompt_spread
from metashot.engine.tracking.tracker import NoTracker
from metashot.icl.prompting.prompt_set import PromptSet
from metashot.stages.context import RunContext
from metashot.stages.families import kind_of

SPREAD_FILE = "prompts.json"


def parts_of(run: RunContext) -> dict[str, RunContext]:
    """A run for each format of a set, by its name; empty where the run has one format, or reads none."""
    prompts = run.config.prompt
    if not isinstance(prompts, PromptSet) or "prompt" in kind_of(run.config.method).unused:
        return {}
    nodes: Mapping[str, Any] = run.record.config["prompt"]["prompts"]
    found: dict[str, RunContext] = {}
    for name, prompt in prompts.members.items():
        folder = f"prompt={name}"
        record = run.record.part(folder, {"prompt": {**nodes[name], "name": name}})
        config = replace(run.config, prompt=prompt)
        found[name] = replace(
            run, config=config, output=run.output / folder, tracker=NoTracker(), record=record
        )
    return found


def spread_of(cells: Mapping[str, Sequence[FinishedCell]]) -> PromptSpread | None:
    """Figures over the formats of a set; None of a single one."""
    return prompt_spread({name: outcomes_of(one) for name, one in cells.items()}) if len(cells) > 1 else None


def spread_table(spread: PromptSpread) -> Table:
    """What the run prints: each format, then all of them, in percent."""
    table = Table("prompt", "mean", title="over prompts (percent)", title_justify="left")
    for name, value in spread.values.items():
        table.add_row(name, f"{100 * value:.1f}")
    table.add_section()
    mean = spread.mean
    interval = f"{100 * mean.low:.1f} to {100 * mean.high:.1f}"
    table.add_row("all, interval over prompts x seeds x examples", f"{100 * mean.value:.1f} ({interval})")
    return table


def spread_lines(spread: PromptSpread) -> tuple[str, ...]:
    """What belongs below the table."""
    seeds = "" if spread.over_seeds is None else f", over seeds {100 * spread.over_seeds:.1f}"
    most = ", ".join(f"{task} ({100 * width:.1f})" for task, width in list(spread.ranges.items())[:3])
    return (
        f"standard deviation over prompts {100 * spread.over_prompts:.1f} points{seeds} (per task, averaged)",
        f"tasks that the prompt moves most (highest less lowest prompt): {most}",
    )


def spread_content(spread: PromptSpread) -> dict[str, Any]:
    """The content of `prompts.json`, 0..1."""
    return {"unit": "share", **asdict(spread)}
