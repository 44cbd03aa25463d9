"""Config nodes of the prompt methods into the frozen settings of each stage; every fault names its key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metashot.data.corpus import CorpusSpec
from metashot.data.sentences import SentenceRules
from metashot.engine.errors import ConfigError
from metashot.engine.training.checkpoint import best_checkpoint
from metashot.engine.training.loop import LoopSettings
from metashot.engine.training.optimizers import OptimizerSettings
from metashot.metaprompt.clusters.clustering import ClusterSpec
from metashot.metaprompt.clusters.embedding import EncoderSpec
from metashot.metaprompt.clusters.store import PrepareSettings
from metashot.metaprompt.meta.regularizer import RegularizerConfig
from metashot.metaprompt.meta.settings import MetaSettings
from metashot.metaprompt.tuning.loop import TrainRules
from metashot.metaprompt.tuning.settings import TuneSettings
from metashot.metaprompt.tuning.tunable import PromptMethod, TuningMethod
from metashot.stages.nodes import build, convert
from metashot.stages.run_config import RunConfig

_LOOP = "supmer.loop"


def prepare_settings(corpus: Mapping[str, Any]) -> PrepareSettings:
    """The group `corpus`: where text comes from, and `sentences`, `encoder` and `clusters` below it."""
    return PrepareSettings(
        corpus=build(CorpusSpec, _without(corpus, "sentences", "encoder", "clusters"), "corpus"),
        sentences=build(SentenceRules, corpus.get("sentences"), "corpus.sentences"),
        encoder=build(EncoderSpec, corpus.get("encoder"), "corpus.encoder"),
        clusters=build(ClusterSpec, corpus.get("clusters"), "corpus.clusters"),
    )


def meta_settings(supmer: Mapping[str, Any]) -> MetaSettings:
    """The group `supmer` without `loop` and `checkpoints`, which belong to the trainer."""
    nested = ("regularizer", "prompt_optimizer", "regularizer_optimizer")
    optimizers = {
        key: build(OptimizerSettings, supmer.get(key), f"supmer.{key}")
        for key in nested
        if key != "regularizer"
    }
    return build(
        MetaSettings,
        _without(supmer, *nested, "loop", "checkpoints"),
        "supmer",
        regularizer=build(RegularizerConfig, supmer.get("regularizer"), "supmer.regularizer"),
        **optimizers,
    )


def loop_settings(supmer: Mapping[str, Any]) -> LoopSettings:
    """The node `supmer.loop`."""
    return build(LoopSettings, supmer.get("loop"), _LOOP, config_node=_LOOP)


def checkpoint_root(supmer: Mapping[str, Any]) -> Path:
    """The folder of meta-training's checkpoints, `supmer.checkpoints`."""
    return Path(convert(str, supmer.get("checkpoints"), "supmer.checkpoints")).expanduser()


def tune_settings(config: RunConfig) -> TuneSettings:
    """The group `tuning` with `method`, `k`, `seeds` (data seeds) and the switches of `supmer`.

    `supmer` without `tuning.prompt_path` starts from the best checkpoint below `supmer.checkpoints`.

    Raises:
        ConfigError: a fault in a key, or no checkpoint yet.
    """
    tuning, supmer, method = config.tuning, config.supmer, config.method
    assert isinstance(method, PromptMethod)
    train = tuning.get("train") or {}
    optimizer = build(OptimizerSettings, train.get("optimizer"), "tuning.train.optimizer")
    return build(
        TuneSettings,
        _without(tuning, "train", "prompt_path"),
        "tuning",
        train=build(TrainRules, _without(train, "optimizer"), "tuning.train", optimizer=optimizer),
        method=method.name,
        tuning=method.tuning,
        k=config.k,
        data_seeds=config.seeds,
        prompt_path=_prompt_path(tuning.get("prompt_path"), method.tuning, supmer),
        as_released=convert(bool, supmer["as_released"], "supmer.as_released"),
        switches=convert(dict[str, bool | None], supmer["switches"], "supmer.switches"),
    )


def _prompt_path(given: str | None, tuning: str, supmer: Mapping[str, Any]) -> str | None:
    if given is not None or tuning != TuningMethod.SUPMER:
        return given
    best = best_checkpoint(checkpoint_root(supmer), higher_is_better=False)
    if best is None:
        raise ConfigError(
            "supmer.checkpoints",
            f"no checkpoint in {str(checkpoint_root(supmer))!r}",
            "run stage=train first, or set tuning.prompt_path",
        )
    return str(best)


def _without(node: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key not in keys}
