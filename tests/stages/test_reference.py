"""The reference of keys is made from the declarations, is whole, and is what the repository holds."""

import ast
import re
import subprocess
import sys

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from metashot.base.components.choices import CONFIG_FOLDER, choice_names, choice_node
from metashot.base.errors import ConfigError
from metashot.engine.metrics.rules import CALIBRATIONS, NORMALIZATIONS
from metashot.metaprompt.prompt_starts import STARTS
from metashot.stages.command import register_resolvers
from metashot.stages.reference.environment import VARIABLES
from metashot.stages.reference.keys import group, group_names, help_keys, node_names, plain_keys, topics
from metashot.stages.reference.pages import pages


def every_key():
    kinds = [kind for name in (*group_names(), *node_names()) for kind in group(name).kinds]
    return [*plain_keys(), *(key for kind in kinds for key in kind.keys)]


def test_the_pages_in_the_repository_are_the_generated_ones(repository):
    """`make reference` writes them."""
    folder = repository / "docs" / "reference"
    assert {path.name: path.read_text("utf-8") for path in folder.glob("*.md")} == pages()


def test_every_key_says_what_it_is_in_a_sentence():
    silent = [key.name for key in every_key() if not re.match(r"([A-Z0-9`']|true|false).*[.)`]$", key.text)]
    assert silent == []


def test_every_choice_says_what_it_is():
    silent = [(name, one.name) for name in group_names() for one in group(name).choices if not one.text]
    assert silent == []


def test_every_key_of_every_choice_has_an_entry():
    """But the arguments of components (`optimizer.algorithm.eps`) and the free keys of maps."""
    known = {key.name for key in every_key()}
    free = ("logger.trackers", "supmer.switches", "tuning.transfer", "data.task_types", "prompt.labels")
    for name in (name for name in group_names() if name not in ("experiment", "debug")):
        for choice in choice_names(name):
            node = choice_node(name, choice)
            said = leaves(node if "@package" in first_line(name, choice) else {name: node})
            assert {key for key in said if key not in known and not key.startswith(free)} == set(), choice


def first_line(name, choice):
    return (CONFIG_FOLDER / name / f"{choice}.yaml").read_text("utf-8").partition("\n")[0]


def leaves(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, dict) and "_target_" in value and prefix:
            continue
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        elif key != "_target_" and key != "_partial_":
            yield f"{prefix}{key}"


@pytest.mark.parametrize("name", ["trainer", "corpus", "report", "selection", "prepare"])
def test_what_is_printed_is_the_config_itself_with_comments(repository, name):
    """A group that makes one class: the printed YAML is what the default choice composes, key by key."""
    register_resolvers()
    printed = yaml.safe_load(help_keys(name))[name]
    with initialize_config_dir(str(repository / "conf"), version_base="1.3"):
        composed = OmegaConf.to_container(compose("config"))[name]
    composed.pop("_target_", None)
    assert printed == composed


def test_a_group_that_is_not_there_is_refused():
    with pytest.raises(
        ConfigError, match=r"--help-keys: no group or node 'trainers' \(did you mean 'trainer'\?\)"
    ):
        help_keys("trainers")


def test_the_command_prints_it_without_torch(repository, tmp_path):
    script = "import sys; from metashot.stages.command import main; main(); assert 'torch' not in sys.modules"
    words = [sys.executable, "-c", script, "--help-keys", "method"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "objective: direct" in done.stdout
    wrong = [sys.executable, str(repository / "run.py"), "--help-keys", "nothing"]
    done = subprocess.run(wrong, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr[:32]) == (2, "error: --help-keys: no group or ")


def test_every_environment_variable_that_is_read_is_listed(repository):
    read = set()
    for path in (repository / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            where = key = None
            if isinstance(node, ast.Subscript):
                where, key = node.value, node.slice
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                where, key = node.func.value, node.args[0]
            elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
                where, key = node.comparators[0], node.left
            if where is not None and ast.unparse(where) == "os.environ" and isinstance(key, ast.Constant):
                read.add(key.value)
    for path in (repository / "conf").rglob("*.yaml"):
        read |= set(re.findall(r"oc\.env:(\w+)", path.read_text("utf-8")))
    assert {"METASHOT_CACHE", "WORLD_SIZE"} <= read
    assert read <= set(VARIABLES)


def test_every_topic_can_be_asked_for():
    assert {"data", "method", "trainer", "report", "selection"} <= set(topics())
    for topic in topics():
        assert help_keys(topic)


def test_a_key_that_takes_a_registered_object_shows_the_names_that_are_registered():
    for node, key, names in (
        ("method", "method.calibration", CALIBRATIONS),
        ("method", "method.normalization", NORMALIZATIONS),
        ("tuning", "tuning.prompt_init", STARTS),
    ):
        shown = [one for kind in group(node).kinds for one in kind.keys if one.name.startswith(key)]
        assert {one.name for one in shown} == {
            key,
            *({"method.calibration_inputs"} & {one.name for one in shown}),
        }
        assert all(one.takes == " | ".join(names) for one in shown if one.name == key)
