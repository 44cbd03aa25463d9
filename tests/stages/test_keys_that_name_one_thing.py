"""Pairs of keys that name one thing twice: one line, before anything is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from metashot.base.errors import ConfigError
from metashot.stages.command import register_resolvers
from metashot.stages.components import make_run_config
from metashot.stages.stage_table import chosen_stages
from metashot.stages.task_source import choose_tasks

CONF = Path(__file__).resolve().parents[2] / "conf"


def config(*overrides: str) -> Any:
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("config", overrides=["model=tiny", "logger=none", *overrides])
    return make_run_config(OmegaConf.to_container(composed, resolve=True))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("stage", ["train", "[train,evaluate]", "[train,export]", "find_lr"])
def test_a_checkpoint_beside_a_training_is_refused(stage: str) -> None:
    with pytest.raises(ConfigError, match=r"^checkpoint: names a finished training, .* \(add stage=evaluate"):
        chosen_stages(config("method=metaicl", f"stage={stage}", "checkpoint=run1"))


@pytest.mark.parametrize("stage", ["evaluate", "plan", "export"])
def test_a_checkpoint_alone_is_what_is_evaluated_priced_and_exported(stage: str) -> None:
    assert chosen_stages(config("method=metaicl", f"stage={stage}", "checkpoint=run1"))


def test_a_prompt_method_has_no_use_for_a_checkpoint_of_meta_training() -> None:
    with pytest.raises(
        ConfigError, match=r"^checkpoint: is for methods that score .* \(set tuning.prompt_path"
    ):
        chosen_stages(config("method=soft_prompt", "checkpoint=run1"))


def test_training_tasks_are_named_by_the_setting_or_by_the_data(tmp_path: Path) -> None:
    given = ("setting=hr_to_lr", "data=jsonl", f"data.root={tmp_path}")
    with pytest.raises(
        ConfigError, match=r"^data.train_tasks: is set, and setting=... names the training tasks too"
    ):
        choose_tasks(config(*given, "data.train_tasks=[glue-sst2]"))
    assert len(choose_tasks(config(*given)).training) == 61
