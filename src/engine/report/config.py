"""The keys of reports and comparisons."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from metashot.base.errors import ConfigError
from metashot.base.value_kinds import Count, InnerShare, Positive, Seed

FORMATS = ("console", "markdown", "latex", "csv", "plots", "html", "lm_eval")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportConfig:
    """`conf/config.yaml`, node `report`; the field names are its keys."""

    formats: tuple[str, ...] = FORMATS
    """Any of `console`, `markdown`, `latex`, `csv`, `plots`, `html`, `lm_eval`."""
    draws: Positive = 1000
    """Bootstrap resamplings."""
    permutations: Positive = 2000
    """Sampled permutations of a paired test."""
    level: InnerShare = 0.95
    """Confidence level."""
    seed: Seed = 0
    """Seed of resampling and permutation."""
    folder: Path | None = None
    """Where the report is written; None takes the run's folder."""

    def __post_init__(self) -> None:
        """Check the formats.

        Raises:
            ConfigError: an unknown one.
        """
        unknown = [name for name in self.formats if name not in FORMATS]
        if unknown:
            raise ConfigError(
                "report.formats", f"unknown format {unknown[0]!r}", f"any of {', '.join(FORMATS)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareConfig:
    """`conf/config.yaml`, node `compare`; the field names are its keys."""

    flipped: Count = 20
    """How many flipped examples are listed."""
    permutations: Positive = 10_000
    """Sampled permutations of a test."""
    seed: Seed = 0
    """Seed of the permutations."""
