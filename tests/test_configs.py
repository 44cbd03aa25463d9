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


def test_a_choice_says_only_what_differs_from_what_it_builds_on(repository):
    """A key that repeats the value of the file below it is a second statement of it, which one may forget to change."""
    repeated = []
    for path in sorted((repository / "conf").rglob("*/*.yaml")):
        group = str(path.parent.relative_to(repository / "conf"))
        content = read(path) or {}
        below = {}
        for entry in content.pop("defaults", []) if "@package" not in path.read_text() else []:
            if isinstance(entry, str) and (path.parent / f"{entry}.yaml").is_file():
                inner, _, name = entry.rpartition("/")
                below = {**below, **leaves(choice_node(f"{group}/{inner}".rstrip("/"), name))}
        repeated += [
            f"{path.name}: {key}" for key, value in leaves(content).items() if below.get(key, ...) == value
        ]
    assert repeated == []


def leaves(node, prefix=""):
    """`{"a.b": 1}` for `{"a": {"b": 1}}`."""
    found = {}
    for key, value in node.items():
        found |= (
            leaves(value, f"{prefix}{key}.")
            if isinstance(value, dict) and value
            else {f"{prefix}{key}": value}
        )
    return found


def test_no_two_choices_of_a_group_share_half_of_what_they_say(repository):
    """Else one of them should build on the other (`defaults: [other]`), or both on a base file."""
    for group in sorted(path for path in (repository / "conf").rglob("*") if path.is_dir()):
        if group.name == "experiment":  # a record of what was run
            continue
        said = {path.stem: leaves(read(path) or {}).items() for path in group.glob("*.yaml")}
        said = {
            name: {(key, str(value)) for key, value in pairs}
            for name, pairs in said.items()
            if len(pairs) > 8
        }
        for name, one in said.items():
            for other, two in said.items():
                assert name >= other or len(one & two) * 2 <= min(len(one), len(two)), (group, name, other)
