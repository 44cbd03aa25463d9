"""The command line's configs and runs from Python: `metashot.compose` and `metashot.evaluate`."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metashot.base.components.choices import CONFIG_FOLDER
from metashot.base.errors import ConfigError, MetashotError
from metashot.base.files import read_lines
from metashot.base.secrets import recorded_overrides, secrets_of, without_secrets
from metashot.engine.cells.results import RESULTS_FILE
from metashot.stages.command import register_resolvers
from metashot.stages.command_line import with_new_keys
from metashot.stages.composition_errors import explain
from metashot.stages.execution import execute
from metashot.stages.launch import LAUNCH, new_stamp
from metashot.stages.removed_nodes import check_nothing_is_removed
from metashot.stages.stage_table import check_stage


def compose(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The config that these words of the command line compose, resolved.

    Args:
        overrides: for example `["model=smollm2_135m", "prompt=chat", "k=4"]`.

    Raises:
        ConfigError: words that compose no config.
    """
    return _composed(overrides)[0]


def evaluate(overrides: Sequence[str] = (), output: str | Path | None = None) -> list[dict[str, Any]]:
    """Run the stages that these words name (`stage=evaluate` by default) and give the rows of `results.jsonl`.

    Args:
        overrides: words of the command line.
        output: the run's folder; by default a new one below `outputs/runs`.

    Raises:
        MetashotError: whatever ends a run of the command line with one line.
    """
    LAUNCH.stamp = new_stamp()
    folder = Path(f"outputs/runs/{LAUNCH.stamp}" if output is None else output)
    config, secrets = _composed(overrides)
    check_nothing_is_removed(config)
    check_stage(config)
    folder.mkdir(parents=True, exist_ok=True)
    execute(config, folder, recorded_overrides(list(overrides), secrets), without_secrets(config, secrets))
    path = folder / RESULTS_FILE
    return list(read_lines(path)) if path.is_file() else []


def _composed(overrides: Sequence[str]) -> tuple[dict[str, Any], set[str]]:
    """The config, and the secrets that it holds."""
    if isinstance(overrides, str):
        raise ConfigError("overrides", f"is one string, {overrides!r}", f"give a list: [{overrides!r}]")
    register_resolvers()
    try:
        with _apart(), hydra.initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
            composed = hydra.compose("config", with_new_keys(list(overrides)))
        resolved = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except MetashotError:
        raise
    except (OmegaConfBaseException, HydraException) as error:
        where, _, told = explain(error).partition(": ")
        problem, _, remedy = told.removesuffix(")").rpartition(" (")
        raise ConfigError(where, problem, remedy) from error
    config = cast("dict[str, Any]", resolved)
    return config, secrets_of(config, OmegaConf.to_container(composed, resolve=False))


@contextmanager
def _apart() -> Generator[None]:
    """Whatever configs the notebook itself composes with Hydra, put aside for a while."""
    held = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = held
