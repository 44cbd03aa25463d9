"""Every file of conf/experiment composes and binds; sweeps of experiment files compose job by job; smoke runs."""

import os
import re
from pathlib import Path

import pytest
import run
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

ROOT = Path(__file__).parents[1]
EXPERIMENTS = sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml"))
SWEPT = [name for name in EXPERIMENTS if "sweeper:" in (ROOT / f"conf/experiment/{name}.yaml").read_text()]


@pytest.fixture(autouse=True)
def _hydra():
    run.register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield


def composed(*overrides, hydra=False):
    config = compose("config", overrides=list(overrides), return_hydra_config=hydra)
    return config


def resolved(*overrides):
    config = composed("data.root=data", "logger.folder=folder", *overrides)
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_and_names_its_command(name):
    from data.selected_source import Selection
    from engine.config import build, check_targets
    from engine.models import ModelSpec
    from icl.methods import Method

    config = resolved(f"experiment={name}")
    check_targets(config)
    run.chosen_stages(config)
    build(Selection, config["selection"], "selection")
    build(ModelSpec, config["model"], "model")
    if config["method"]["name"] not in ("supmer", "soft_prompt"):
        build(Method, config["method"], "method")
    head = (ROOT / f"conf/experiment/{name}.yaml").read_text().split("defaults:")[0]
    assert head.startswith("# @package _global_\n")
    assert re.search(rf"python run.py (-m )?experiment={name}\b", head), "the command stands at the top"


@pytest.mark.parametrize("name", SWEPT)
def test_every_swept_value_of_an_experiment_composes(name):
    sweeper = composed(f"experiment={name}", "data.root=data", hydra=True).hydra.sweeper
    rows = [[f"{key}={value}"] for key, values in sweeper.params.items() for value in values.split(",")]
    for row in [*rows, *sweeper.runs]:
        resolved(f"experiment={name}", *row)


def test_every_table_of_the_paper_has_an_experiment():
    trained = {
        name
        for name in EXPERIMENTS
        if name.startswith(("metaicl", "channel_metaicl", "multitask", "channel_m"))
    }
    tables = {
        "table5_raw",
        "table7_raw",
        "table8_raw",
        "table10_raw",
        "table11_raw",
        "table13_raw",
        "figure1_raw",
    }
    assert tables <= set(EXPERIMENTS)
    for setting in ("hr_to_lr", "class_to_class", "qa_to_qa", "hr_to_lr_diverse", "hr_to_lr_inst"):
        assert f"metaicl_{setting}" in trained


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if not name.startswith("supmer")])
def test_every_experiment_runs_two_steps(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    overrides = [f"experiment={name}", "debug=smoke", f"results_root={tmp_path}", f"logger.folder={tmp_path}"]
    config = OmegaConf.to_container(composed(*overrides), resolve=True)
    run.execute(config, tmp_path / "run", overrides)
    assert (tmp_path / "run" / "results.jsonl").is_file()
