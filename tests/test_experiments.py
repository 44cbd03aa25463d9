"""Every file of `conf/experiment` composes, binds to the code, and runs two steps on random weights."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from metashot.metaprompt.tuning.config import PromptMethod
from metashot.stages import command
from metashot.stages.components import make_run_config
from metashot.stages.icl_training import training_settings
from metashot.stages.metaprompt_settings import meta_settings, tune_settings
from metashot.stages.stage_table import chosen_stages
from metashot.stages.tracking import run_label

REPOSITORY = Path(__file__).resolve().parents[1]
EXPERIMENTS = sorted(path.stem for path in (REPOSITORY / "conf" / "experiment").glob("*.yaml"))


@pytest.fixture(scope="module")
def program():
    """The module behind `run.py`."""
    command.register_resolvers()
    return command


SWEPT = [
    name for name in EXPERIMENTS if "sweeper:" in (REPOSITORY / f"conf/experiment/{name}.yaml").read_text()
]


def root_of(name):
    """What an experiment over prepared files is told on its command line."""
    text = (REPOSITORY / f"conf/experiment/{name}.yaml").read_text()
    return ["data.root=nowhere"] if "data.root=<folder>" in text else []


def composed(*overrides):
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        config = compose("config", overrides=list(overrides))
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_composes_and_binds(program, tmp_path, name):
    config = composed(
        f"experiment={name}", *root_of(name), "logger=none", f"results_root={tmp_path}",
        "tuning.data_root=nowhere", "tuning.prompt_path=nowhere",
    )  # fmt: skip
    run = make_run_config(config)
    assert chosen_stages(run)
    assert run_label(run, []).name
    if isinstance(run.method, PromptMethod):
        meta_settings(run.supmer)
        tune_settings(run)
    elif run.prompt.max_length != "model":  # which is for evaluation alone
        settings = training_settings(run)
        assert settings.method == run.method
        assert "train" not in run.stages or settings.method.trained


def test_every_table_of_the_paper_has_an_experiment():
    raw = {f"table{number}_raw" for number in (5, 7, 8, 10, 11, 13)}
    trained = {f"table{number}_trained" for number in (5, 7, 8, 13)}
    assert raw | trained | {"trained", "figure1_raw", "figure2", "metaicl_channel_hr_to_lr"} <= set(
        EXPERIMENTS
    )


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_names_its_command(name):
    head = (REPOSITORY / f"conf/experiment/{name}.yaml").read_text().split("defaults:")[0]
    assert head.startswith("# @package _global_\n")
    assert re.search(rf"python run.py (-m )?experiment={name}\b", head)


@pytest.mark.parametrize("name", SWEPT)
def test_every_swept_value_of_an_experiment_composes(program, name):
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        arguments = [f"experiment={name}", *root_of(name)]
        sweeper = compose("config", overrides=arguments, return_hydra_config=True).hydra.sweeper
    rows = [[f"{key}={value}"] for key, values in sweeper.params.items() for value in values.split(",")]
    for row in [*rows, *sweeper.get("runs", [])]:
        assert composed(*arguments, "logger=none", *row)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_runs_two_steps(program, tmp_path, name):
    overrides = [f"experiment={name}", "debug=smoke", "logger=none", f"results_root={tmp_path}"]
    if name.startswith("metaicl_real"):  # the tiny model has fewer layers than the ten that it updates
        overrides.append("trainer.lora.last_layers=null")
    if name == "word_problems":  # rows that are made have no reasons
        overrides.append("method.reasoning=''")
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
    if "evaluate" not in config["stage"] and "tuning" not in config["method"]:
        expected = {"run.json"}
    assert expected <= left
    if "train" in config["stage"]:
        assert list(tmp_path.rglob("step-*/*model.safetensors"))
