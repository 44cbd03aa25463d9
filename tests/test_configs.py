"""Every config file composes, binds to the code that reads it, and agrees with the Python names."""

from dataclasses import replace

import pytest
import yaml

from metashot.data.settings import diversity_names, setting_names
from metashot.engine.errors import ConfigError
from metashot.engine.models.loading import ModelSpec, named_model
from metashot.icl.methods import NAMED_METHODS, Method
from metashot.stages.nodes import build, check_targets


def read(path):
    return yaml.safe_load(path.read_text())


def test_method_files_are_the_methods_of_the_python_api(repository):
    files = {path.stem: read(path) for path in (repository / "conf" / "method").glob("*.yaml")}
    in_context = {name: node for name, node in files.items() if "objective" in node}
    assert set(in_context) == set(NAMED_METHODS)
    for name, node in in_context.items():
        assert replace(build(Method, node, "method"), layout="auto") == NAMED_METHODS[name]


def test_the_model_files_are_the_models_of_the_python_api(repository):
    files = {path.stem for path in (repository / "conf" / "model").glob("*.yaml")}
    for name in files - {"hf", "local"}:
        node = read(repository / "conf" / "model" / f"{name}.yaml")
        assert build(ModelSpec, node, "model") == named_model(name)


def test_there_is_a_file_for_every_setting(repository):
    files = {path.stem for path in (repository / "conf" / "setting").glob("*.yaml")}
    assert {*setting_names(), *diversity_names()} <= files
    for name in files - {"custom"}:
        assert read(repository / "conf" / "setting" / f"{name}.yaml") == {"name": name}


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (
            {"_target_": "torch.optim.Adam", "lrr": 0.1},
            r"optimizer\.lrr: torch\.optim\.Adam takes no argument 'lrr'",
        ),
        ({"_target_": "torch.nn.Linear", "in_features": 1}, "also needs out_features"),
        ({"_target_": "torch.nn.ReLUU"}, r"_target_: cannot import 'torch\.nn\.ReLUU'"),
    ],
)
def test_a_target_is_held_to_its_signature(node, message):
    with pytest.raises(ConfigError, match=message):
        check_targets({"optimizer": node})


def test_a_partial_target_may_lack_arguments():
    check_targets({"optimizer": {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 0.1}})
