"""The keys of reports and comparisons."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from metashot.base.errors import ConfigError
from metashot.base.value_kinds import Count, InnerShare, Positive, Seed

FORMATS = ("console", "markdown", "latex", "csv", "plots", "html", "lm_eval")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportConfig:
    """`conf/config.yaml`, node `report`; the field names are its keys.

    Attributes:
        formats: any of `console`, `markdown`, `latex`, `csv`, `plots`, `html`, `lm_eval`.
        draws: bootstrap resamplings.
        permutations: sampled permutations of a paired test.
        level: confidence level.
        seed: of resampling and permutation.
        folder: where the report is written; None takes the run's folder.
    """

    formats: tuple[str, ...] = FORMATS
    draws: Positive = 1000
    permutations: Positive = 2000
    level: InnerShare = 0.95
    seed: Seed = 0
    folder: Path | None = None

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
    """`conf/config.yaml`, node `compare`; the field names are its keys.

    Attributes:
        flipped: how many flipped examples are listed.
        permutations: sampled permutations of a test.
        seed: of the permutations.
    """

    flipped: Count = 20
    permutations: Positive = 10_000
    seed: Seed = 0
