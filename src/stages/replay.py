"""`stage=rerun`: a recorded run composed again, with today's files and further overrides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf

from metashot.base.errors import ConfigError
from metashot.base.terminal import printable
from metashot.engine.cells.config_difference import config_changes
from metashot.engine.cells.record import read_run


def replay(composed: DictConfig, overrides: list[str]) -> tuple[DictConfig, list[str]]:
    """The config of `run=<folder>` composed again from its overrides, with today's files and further overrides.

    Prints in which keys it differs from what the run recorded.

    Raises:
        ConfigError: no `run`, or a run that was itself a replay without overrides of its own.
        OutputError: the folder holds no run.
    """
    if composed.run is None:
        raise ConfigError("run", "is not set", "stage=rerun run=<output folder of a run>")
    saved = read_run(Path(composed.run))
    further = [text for text in overrides if text.partition("=")[0] not in ("stage", "run")]
    again = [*saved.overrides, *further]
    config = compose("config", overrides=again)
    today: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # pyright: ignore[reportAssignmentType]
    changes = config_changes(saved.config, today, ignore=("results_root", "logger"))
    if changes:
        print(
            "the config differs from the recorded one (then -> today):",
            *map(printable, map(str, changes)),
            sep="\n  ",
        )
    else:
        print("the config is the same as then")
    return config, again
