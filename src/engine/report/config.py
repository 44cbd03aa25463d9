"""The keys of reports and comparisons."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from metashot.engine.errors import ConfigError

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
    draws: int = 1000
    permutations: int = 2000
    level: float = 0.95
    seed: int = 0
    folder: Path | None = None

    def __post_init__(self) -> None:
        """Check values.

        Raises:
            ConfigError: an unknown format, or a number out of range.
        """
        unknown = [name for name in self.formats if name not in FORMATS]
        if unknown:
            raise ConfigError(
                "report.formats", f"unknown format {unknown[0]!r}", f"any of {', '.join(FORMATS)}"
            )
        if not 0 < self.level < 1:
            raise ConfigError("report.level", f"must lie between 0 and 1, got {self.level}", "use 0.95")
        for name, value in (("draws", self.draws), ("permutations", self.permutations)):
            if value < 1:
                raise ConfigError(f"report.{name}", f"must be at least 1, got {value}", "use 1000")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareConfig:
    """`conf/config.yaml`, node `compare`; the field names are its keys.

    Attributes:
        flipped: how many flipped examples are listed.
        permutations: sampled permutations of a test.
        seed: of the permutations.
    """

    flipped: int = 20
    permutations: int = 10_000
    seed: int = 0
