"""Every experiment file of meta-training composes and builds; one runs from command line to evaluation."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from metashot.engine.training.optimizers import algorithm_name
from metashot.stages import command
from metashot.stages.components import make_run_config
from metashot.stages.icl_training import training_settings

ROOT = Path(__file__).parents[3]
METHODS = ("metaicl", "channel_metaicl", "multitask_zero", "channel_multitask_zero")
PUBLISHED = [
    "metaicl_channel_hr_to_lr",
    "figure2",
    "table5_trained",
    "table7_trained",
    "table8_trained",
    "table13_trained",
]


def composed(*overrides: str) -> Any:
    command.register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", overrides=[*overrides, "results_root=unused"], return_hydra_config=False)
    return make_run_config(OmegaConf.to_container(config, resolve=True))


def has_published_hyperparameters(config: Any) -> None:
    settings = training_settings(config)
    assert settings.method.trained
    assert config.stages == ("train", "evaluate")
    assert (settings.loop.steps, settings.episodes.batch_size) == (30_000, 8)
    assert settings.shots == (16 if settings.method.demonstrations else 0)
    optimizer = settings.optimizer
    assert (algorithm_name(optimizer.algorithm), optimizer.learning_rate) == ("AdamW8bit", 1e-5)
    assert optimizer.algorithm.keywords == {"betas": (0.9, 0.995), "eps": 1e-8}
    assert (optimizer.schedule, optimizer.warmup_steps, optimizer.clip_norm) == ("linear", 0, 1.0)


@pytest.mark.parametrize("method", METHODS)
def test_one_file_serves_every_setting_and_method(method: str) -> None:
    config = composed("experiment=trained", "setting=qa_to_qa", f"method={method}", "data.root=unused")
    has_published_hyperparameters(config)
    assert (config.setting.name, config.method.name, config.model.name) == ("qa_to_qa", method, "gpt2_large")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_table_has_the_published_hyperparameters(name: str) -> None:
    has_published_hyperparameters(composed(f"experiment={name}", "data.root=unused"))


def test_all_instructions_keep_the_released_shares_of_the_pools() -> None:
    table = yaml.safe_load((ROOT / "conf/experiment/table8_trained.yaml").read_text())
    rows = [dict(word.split("=") for word in row) for row in table["hydra"]["sweeper"]["runs"]]
    assert len(rows) == 3 * len(METHODS)
    for row in rows:
        share = "0.5" if "zero" in row["method"] else "0.1"
        assert row.get("trainer.pool_fraction") == (share if row["setting"].endswith("all") else None)


def run(tmp_path: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    small = ["trainer.steps=4", "trainer.evaluate_every=0", "trainer.progress=false", "data.test_size=3",
             "data.target_tasks=2", "seeds=[100]", "trainer.pool_size=12", "trainer.batch_size=2",
             f"results_root={tmp_path}"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "run.py",
        "experiment=metaicl_demo",
        "method=channel_metaicl",
        *small,
        *overrides,
    ]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.slow
def test_one_command_trains_and_evaluates_and_a_contradicting_method_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "4 steps, finished" in done.stdout
    (folder,) = tmp_path.glob("runs/*/*/checkpoints/step-00000004")
    refused = run(tmp_path, "stage=evaluate", "method=metaicl", f"checkpoint={folder}")
    assert refused.returncode == 2
    assert "objective is 'channel' there, 'direct' here (use method=channel_metaicl)" in refused.stderr
