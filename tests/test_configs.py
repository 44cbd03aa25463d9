"""Every config file composes, binds to the code that reads it, and means the same from Python."""

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from metashot.base.components.choices import choice_names, choice_node, named
from metashot.data.settings import diversity_names, setting_names
from metashot.engine.models.sources import named_model
from metashot.stages import command


def read(path):
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("group", ["method", "model", "prompt"])
def test_a_choice_is_the_same_from_python_as_from_the_command_line(repository, group):
    command.register_resolvers()
    names = [
        name for name in choice_names(group) if name not in ("hf", "local", "adapter")
    ]  # these want a path
    with initialize_config_dir(str(repository / "conf"), version_base="1.3"):
        overrides = [f"+{group}@every.{name}={name}" for name in names]
        composed = OmegaConf.to_container(compose("config", overrides=overrides).every)
    for name in names:
        assert choice_node(group, name) == composed[name]
        assert named(group, name).name == name


def test_models_without_a_file_are_folders_or_hub_ids(tmp_path):
    assert named_model(str(tmp_path)) == named("model", "local", name=tmp_path.name, path=str(tmp_path))
    assert named_model("someone/x", dtype="bfloat16") == named(
        "model", "hf", name="someone/x", path="someone/x", dtype="bfloat16"
    )


def test_there_is_a_file_for_every_setting(repository):
    files = {path.stem for path in (repository / "conf" / "setting").glob("*.yaml")}
    assert {*setting_names(), *diversity_names()} <= files
    for name in files - {"custom"}:
        assert read(repository / "conf" / "setting" / f"{name}.yaml") == {"name": name}
