"""Every file of `conf/experiment` composes, binds to the code, and runs two steps on random weights."""

import importlib.util
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from engine.config import build
from engine.models import ModelSpec
from engine.run_context import tracker_spec
from icl.methods import Method
from icl.training_stage import training_settings
from metaprompt.settings import loop_settings, meta_settings, prepare_settings, tune_settings

REPOSITORY = Path(__file__).resolve().parents[1]
EXPERIMENTS = sorted(path.stem for path in (REPOSITORY / "conf" / "experiment").glob("*.yaml"))


@pytest.fixture(scope="module")
def program():
    """`run.py` as a module."""
    specification = importlib.util.spec_from_file_location("run_program", REPOSITORY / "run.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    module.register_resolvers()
    return module


def composed(*overrides):
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        config = compose("config", overrides=list(overrides))
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_composes_and_binds(program, tmp_path, name):
    config = composed(
        f"experiment={name}", "data.root=nowhere", f"logger.folder={tmp_path}", f"results_root={tmp_path}",
        "tuning.data_root=nowhere", "tuning.prompt_path=nowhere",
    )  # fmt: skip
    assert program.chosen_stages(config)
    assert tracker_spec(config).name
    build(ModelSpec, config["model"], "model")
    if "tuning" in config["method"]:
        meta_settings(config["supmer"])
        loop_settings(config["supmer"])
        prepare_settings(config["corpus"])
        tune_settings(config)
    else:
        method = build(Method, config["method"], "method")
        settings = training_settings(config)
        assert settings.method == method
        assert "train" not in config["stage"] or method.trained


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_runs_two_steps(program, tmp_path, name):
    overrides = [f"experiment={name}", "debug=smoke", f"logger.folder={tmp_path}", f"results_root={tmp_path}"]
    config = composed(*overrides)
    if "tuning" in config["method"]:
        config["stage"] = ["prepare", "train"]
    output = tmp_path / "output"
    output.mkdir()
    program.execute(config, output, overrides)
    left = {path.name for path in output.iterdir()}
    expected = (
        {"run.json", "clusters.json"} if "tuning" in config["method"] else {"results.jsonl", "summary.json"}
    )
    assert expected <= left
    if "train" in config["stage"]:
        assert list(tmp_path.rglob("step-*/model.safetensors"))
