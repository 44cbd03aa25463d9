"""Configs and runs from Python, as the command line has them."""

import json

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

import metashot
from metashot.base.errors import ConfigError


@pytest.mark.parametrize("logger", ["jsonl", "wandb", "tensorboard"])
def test_hydra_composes_the_package(logger):
    """Every interpolation resolves, those that know the run's folder included."""
    with initialize_config_module("metashot.conf", version_base="1.3"):
        config = compose("config", overrides=["model=tiny", f"logger={logger}"])
        resolved = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        assert resolved["model"]["name"] == "tiny"
        (tracker,) = resolved["logger"]["trackers"].values()
        assert tracker["folder"].startswith("outputs/runs/")
        # Ours does not disturb a notebook that composes by itself.
        assert metashot.compose(["model=tiny", "prompt=chat"])["prompt"]["name"] == "chat"
        assert compose("config", overrides=["k=7"]).k == 7


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=tinny"], r"model: no choice 'tinny' \(did you mean 'tiny'\?\)"),
        (["modle=tiny"], r"modle: unknown key \(did you mean 'model'\?\)"),
        ("model=tiny", r"overrides: is one string"),
    ],
)
def test_mistakes_are_the_lines_of_the_command_line(overrides, message):
    with pytest.raises(ConfigError, match=message):
        metashot.compose(overrides)


def test_evaluate_gives_the_rows_of_the_results(tmp_path):
    words = ["model=tiny", "k=2", "seeds=[13]", "data.tasks=[demo-spam]", f"results_root={tmp_path}/store"]
    rows = metashot.evaluate(words, output=tmp_path / "run")
    assert [(row["task"], row["seed"], row["k"]) for row in rows] == [("demo-spam", 13, 2)]
    assert rows == [
        json.loads(line) for line in (tmp_path / "run" / "results.jsonl").read_text().splitlines()
    ]
    assert (tmp_path / "run" / "run.json").is_file()
