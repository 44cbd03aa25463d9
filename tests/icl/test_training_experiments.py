"""Every experiment file of meta-training composes and builds; one runs from command line to evaluation."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict

from metashot.engine.training.optimizers import algorithm_name
from metashot.stages import command
from metashot.stages.components import make_run_config
from metashot.stages.icl_training import training_settings

ROOT = Path(__file__).parents[2]
METHODS = ("metaicl", "channel_metaicl", "multitask_zero", "channel_multitask_zero")
NAMES = sorted(
    path.stem
    for path in (ROOT / "conf" / "experiment").glob("*.yaml")
    if path.stem.startswith(METHODS) or path.stem == "metaicl_channel_hr_to_lr"
)


def composed(*overrides: str) -> Any:
    command.register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", overrides=[*overrides, "results_root=unused"], return_hydra_config=False)
    with open_dict(config):
        config.logger = {}  # only Hydra itself knows the output folder that it asks for
    return make_run_config(OmegaConf.to_container(config, resolve=True))


def test_every_method_has_an_experiment_for_every_setting() -> None:
    settings = {path.stem for path in (ROOT / "src/data/settings/definitions").glob("*.yaml")}
    assert {f"{method}_{setting}" for method in METHODS for setting in settings} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_builds_with_the_published_hyperparameters(name: str) -> None:
    config = (
        composed(f"experiment={name}", "data.root=unused")
        if "demo" not in name
        else composed(f"experiment={name}")
    )
    settings = training_settings(config)
    assert settings.method.trained
    assert config.stages == ("train", "evaluate")
    if "demo" in name:
        return
    assert (settings.loop.steps, settings.episodes.batch_size, settings.shots) == (
        30_000,
        8,
        0 if "zero" in name else 16,
    )
    optimizer = settings.optimizer
    assert (algorithm_name(optimizer.algorithm), optimizer.learning_rate) == ("AdamW8bit", 1e-5)
    assert optimizer.algorithm.keywords == {"betas": (0.9, 0.995), "eps": 1e-8}
    assert (optimizer.schedule, optimizer.warmup_steps, optimizer.clip_norm) == ("linear", 0, 1.0)
    shares = {"metaicl_hr_to_lr_inst_all": 0.1, "multitask_zero_hr_to_lr_inst_all": 0.5}
    assert settings.episodes.pool_fraction == shares.get(name.removeprefix("channel_"), 1.0)


def run(tmp_path: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    small = ["trainer.steps=4", "trainer.evaluate_every=0", "trainer.progress=false", "data.test_size=3",
             "data.target_tasks=2", "seeds=[100]", "trainer.pool_size=12", "trainer.batch_size=2",
             f"results_root={tmp_path}"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "run.py", "experiment=channel_metaicl_demo", *small, *overrides]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_one_command_trains_and_evaluates_and_a_contradicting_method_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "4 steps, finished" in done.stdout
    (folder,) = tmp_path.glob("runs/*/*/checkpoints/step-00000004")
    refused = run(tmp_path, "stage=evaluate", "method=metaicl", f"checkpoint={folder}")
    assert refused.returncode == 2
    assert "objective is 'channel' there, 'direct' here (use method=channel_metaicl)" in refused.stderr
