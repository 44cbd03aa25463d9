"""Config nodes of the prompt methods into the frozen settings of each stage; every fault names its key."""

from __future__ import annotations

from pathlib import Path

from metashot.base.components.values import fields_of, part_of
from metashot.base.errors import ConfigError
from metashot.engine.training.checkpoint import best_checkpoint
from metashot.metaprompt.meta.config import MetaConfig, SupmerConfig
from metashot.metaprompt.tuning.config import PromptMethod, TuneSettings, TuningMethod
from metashot.stages.run_config import RunConfig


def meta_settings(supmer: SupmerConfig) -> MetaConfig:
    """The node `supmer` without `loop` and `checkpoints`, which belong to the loop."""
    return part_of(MetaConfig, supmer)


def checkpoint_root(supmer: SupmerConfig) -> Path:
    """The folder of meta-training's checkpoints, `supmer.checkpoints`."""
    return supmer.checkpoints.expanduser()


def tune_settings(config: RunConfig, *, started: bool = True) -> TuneSettings:
    """The node `tuning` with `method`, `k`, `seeds` (data seeds) and the switches of `supmer`.

    `supmer` without `tuning.prompt_path` starts from the best checkpoint below `supmer.checkpoints`; with
    `started=False` there need be none yet.

    Raises:
        ConfigError: a contradiction, or no checkpoint yet.
    """
    tuning, supmer, method = config.tuning, config.supmer, config.method
    assert isinstance(method, PromptMethod)
    keys = fields_of(tuning)
    keys["prompt_path"] = _prompt_path(tuning.prompt_path, method.tuning, supmer, started=started)
    return TuneSettings(
        **keys,
        method=method.name,
        tuning=method.tuning,
        k=config.k,
        data_seeds=config.seeds,
        as_released=supmer.as_released,
        switches=supmer.switches,
        component=method,
    )


def _prompt_path(given: str | None, tuning: str, supmer: SupmerConfig, *, started: bool) -> str | None:
    if given is not None or tuning != TuningMethod.SUPMER:
        return given
    best = best_checkpoint(checkpoint_root(supmer), higher_is_better=False)
    if best is None and not started:
        return str(checkpoint_root(supmer))
    if best is None:
        raise ConfigError(
            "supmer.checkpoints",
            f"no checkpoint in {str(checkpoint_root(supmer))!r}",
            "run stage=train first, or set tuning.prompt_path",
        )
    return str(best)
