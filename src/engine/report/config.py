"""The keys of reports and comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from metashot.base.components.values import hold_to_choices
from metashot.base.value_kinds import Count, InnerShare, Positive, Seed

Format = Literal["console", "markdown", "latex", "csv", "plots", "html", "lm_eval"]
FORMATS: tuple[Format, ...] = get_args(Format)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportConfig:
    """Keys of reports."""

    formats: tuple[Format, ...] = FORMATS
    """What is written; `lm_eval` is the results format of the harness."""
    draws: Positive = 1000
    """Bootstrap resamplings."""
    permutations: Positive = 2000
    """Sampled permutations of a paired test."""
    level: InnerShare = 0.95
    """Confidence level."""
    coverage: InnerShare = 0.9
    """Share of right options that conformal sets are to hold."""
    answered: InnerShare = 0.5
    """Share of the surest answers of which the table of confidence gives the accuracy."""
    seed: Seed = 0
    """Seed of resampling and permutation."""
    names: Mapping[str, str] = field(default_factory=dict[str, str])
    """Short names for what rows differ in: `'report.names={prompt.max_length: room, prompt=chat: chat}'`."""
    folder: Path | None = None
    """Where the report is written; None takes the run's folder."""

    def __post_init__(self) -> None:
        """Raise ConfigError for an unknown format."""
        hold_to_choices(self, "report")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareConfig:
    """Keys of comparisons."""

    flipped: Count = 20
    """How many flipped examples are listed."""
    permutations: Positive = 10_000
    """Sampled permutations of a test."""
    seed: Seed = 0
    """Seed of the permutations."""
