"""Paths stay where the command was started; a config that lost a node is refused."""

import pytest

from metashot.base.errors import ConfigError
from metashot.stages.removed_nodes import check_nothing_is_removed
from metashot.stages.shared_paths import anchored


def test_relative_paths_belong_to_the_starting_folder(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "gpt2").mkdir()
    config = {
        "results_root": "outputs",
        "data": {"root": "data", "name": "gpt2"},
        "model": {"path": "openai/gpt2", "folder": "/abs"},
        "runs": ["data", "elsewhere"],
        "seeds": [1],
    }
    assert anchored(config, tmp_path) == {
        "results_root": str(tmp_path / "outputs"),
        "data": {"root": str(tmp_path / "data"), "name": "gpt2"},
        "model": {"path": "openai/gpt2", "folder": "/abs"},
        "runs": [str(tmp_path / "data"), "elsewhere"],
        "seeds": [1],
    }


def test_a_node_that_was_taken_out_is_named(composed_config):
    check_nothing_is_removed(composed_config)
    for name in ("method", "k", "logger"):
        with pytest.raises(ConfigError, match=rf"{name}: was taken out, and is needed \(leave ~{name} out"):
            check_nothing_is_removed({key: value for key, value in composed_config.items() if key != name})


@pytest.fixture
def composed_config():
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from metashot.base.components.choices import CONFIG_FOLDER

    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        return OmegaConf.to_container(compose("config", ["debug=smoke"]))
