"""Every key of every config, set to what it cannot mean: one line that names it, and nothing written.

Each leaf of the composed config is replaced by values that are wrong, too small, too large, no number, empty, or carry
control characters; a rule says which of them no leaf of its type may take. The rest may pass or not, but never as
anything else than a checked config or one line.
"""

import math
import random
from pathlib import Path
from typing import Any, get_args

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from metashot.base.components.binding import Call, bind_call, types_of
from metashot.base.errors import MetashotError
from metashot.stages.command import register_resolvers
from metashot.stages.components import make_run_config
from metashot.stages.removed_nodes import check_nothing_is_removed
from metashot.stages.run_config import RunConfig
from metashot.stages.stage_table import check_stage

BASES = (
    (),
    ("method=supmer", "data=jsonl", "data.root=tasks", "model=local", "model.path=weights", "prompt=template", "scorer=plain",
     "corpus=text", "corpus.path=text", "trainer.lora={r: 8}"),
    ("method=generate", "data=synthetic", "model=tiny", "prompt=chat", "optimizer=adafactor", "tuning=full_finetune"),
    ("data=hub", "data.root=tasks", "model=hf", "model.path=a/b", "prompt=lm_eval", "supmer=as_released"),
    ("data=lm_eval", "data.tasks=[arc_easy]", "model=gpt2", "trainer=metaicl", "corpus=openwebtext"),
)  # fmt: skip
VALUES: dict[str, Any] = {
    "word": "zzz", "negative": -1, "fraction": 0.5, "huge": 1e20, "huge whole": 10**30, "not a number": math.nan,
    "infinite": math.inf, "empty": "", "null": None, "true": True, "list": ["a"], "list of no number": [math.nan],
    "mapping": {"a": 1}, "control": "a\x1b]0;x\x07", "nul": "\0", "half a character": "\ud800", "climbing": "../../x",
    "blank": " ", "zero": 0, "one": 1,
}  # fmt: skip
NEVER = {"not a number", "infinite", "huge whole", "list of no number", "control", "nul", "half a character"}
"""What no key takes, whatever its type."""
NO_NUMBER = {"word", "empty", "huge", "true", "list", "mapping", "climbing", "blank"}
NO_SWITCH = {"word", "empty", "huge", "list", "mapping", "climbing", "blank", "negative", "fraction"}
NO_TEXT = {"negative", "fraction", "huge", "true", "list", "mapping", "zero", "one"}


@pytest.fixture(scope="module")
def configs(repository):
    """Composed configs, each with the type of every leaf."""
    register_resolvers()
    found = []
    with initialize_config_dir(str(repository / "conf"), version_base="1.3"):
        for overrides in BASES:
            tree = OmegaConf.to_container(compose("config", overrides=list(overrides)), resolve=True)
            make_run_config(tree)
            found.append((tree, dict(_leaves(bind_call(RunConfig, tree, "")))))
    return found


def _leaves(call):
    kinds = types_of(call.target)
    for name, value in call.values.items():
        if isinstance(value, Call):
            yield from _leaves(value)
        else:
            yield (f"{call.where}.{name}" if call.where else name), kinds.get(name, Any)


def _changed(tree, path, value):
    if not path:
        return value
    return {**tree, path[0]: _changed(tree[path[0]], path[1:], value)}


def _parts(kind):
    """A type and everything it is made of."""
    return [kind, *(part for inner in get_args(kind) for part in _parts(inner))]


def must_be_refused(name, kind, label):
    """Whether no sensible key of this name and type takes the value, as far as a rule can say."""
    if label in NEVER:
        return True
    parts = _parts(kind)
    if Any in parts or object in parts:
        return False
    takes = {plain for plain in (bool, int, float, str, Path) if plain in parts}
    compound = any(
        str(part).startswith(("tuple", "list", "dict", "collections", "typing.Map")) for part in parts
    )
    if label == "null":
        return type(None) not in parts
    if takes and takes <= {int, float}:
        return label in NO_NUMBER
    if takes == {bool} and not compound:
        return label in NO_SWITCH
    if takes in ({str}, {Path}) and not compound:
        named = name.rpartition(".")[2] == "name" and name != "name" and not name.startswith("setting")
        return (
            label in NO_TEXT
            or (takes == {Path} and label == "empty")
            or (named and label in {"empty", "blank", "climbing"})
        )
    return False


def _check(config):
    check_nothing_is_removed(config)
    check_stage(config)
    make_run_config(config)


def _faults(configs, count, seed):
    rng = random.Random(seed)
    cases = [
        (tree, name, kind, label) for tree, leaves in configs for name, kind in leaves.items() for label in VALUES
    ]  # fmt: skip
    for tree, name, kind, label in rng.sample(cases, min(count, len(cases))):
        what = f"{name}: {label}"
        try:
            _check(_changed(tree, name.split("."), VALUES[label]))
        except MetashotError as error:
            said = str(error)
            if "\n" in said.replace(repr(VALUES[label]), ""):
                yield f"{what}: several lines: {said!r}"
            said.encode("utf-8")
        except Exception as error:
            yield f"{what}: {type(error).__name__}: {error}"
        else:
            if must_be_refused(name, kind, label):
                yield f"{what} is accepted as {kind}"


@pytest.mark.parametrize(
    "count", [pytest.param(150, id="some"), pytest.param(1500, id="many", marks=pytest.mark.slow)]
)
def test_no_key_takes_what_it_cannot_mean(configs, tmp_path, monkeypatch, count):
    monkeypatch.chdir(tmp_path)
    assert list(_faults(configs, count, seed=count)) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("supmer.inner_lr", 1e20, "supmer.inner_lr: must be 1,000 or less, got 1e+20 (give 0 or more and 1,000 or less)"),
        ("supmer.inner_lr", -0.1, "supmer.inner_lr: must be 0 or more, got -0.1 (give 0 or more and 1,000 or less)"),
        ("supmer.coefficient_weight", -1, "supmer.coefficient_weight: must be 0 or more, got -1"),
        ("optimizer.clip_norm", -1, "optimizer.clip_norm: must be 0 or more, got -1"),
        ("optimizer.algorithm.eps", 1e20, "optimizer.algorithm.eps: must be 1 or less, got 1e+20"),
        ("optimizer.algorithm.betas", [0.9, 1.5], "optimizer.algorithm.betas.1: must be below 1, got 1.5"),
        ("optimizer.learning_rate", True, "optimizer.learning_rate: takes no true or false, got True"),
        ("supmer.prompt_optimizer.learning_rate", 0, "supmer.prompt_optimizer.learning_rate: must be above 0, got 0"),
        ("trainer.log_every", -1, "trainer.log_every: must be 1 or more, got -1"),
        ("trainer.held_out.test_examples", 0, "trainer.held_out.test_examples: must be 1 or more, got 0"),
        ("tuning.lora_dropout", 1e20, "tuning.lora_dropout: must be below 1, got 1e+20"),
        ("tuning.train.steps", 1e20, "tuning.train.steps: "),
        ("report.draws", 0, "report.draws: must be 1 or more, got 0"),
        ("prepare.workers", 0, "prepare.workers: must be 1 or more, got 0 (give 1 or more and 1,024 or less)"),
        ("prepare.roles", ["tset"], "prepare.roles.0: input should be 'train' or 'test', got 'tset'"),
        ("trainer.steps", 0, "trainer.steps: must be 1 or more, got 0"),
        ("trainer.save_every", -1, "trainer.save_every: must be 0 or more, got -1"),
        ("selection.order", -1, "selection.order: must be 0 or more, got -1"),
        ("selection.order", 10**4, "selection.order: must be below 10,000, got 10000"),
        ("report.draws", "abc", "report.draws: input should be a valid integer"),
        ("report.level", 95, "report.level: must be below 1, got 95 (give above 0 and below 1)"),
        ("selection.label_noise", 1.5, "selection.label_noise: must be 1 or less, got 1.5"),
        ("method.name", "\0", "method.name: holds the control character '\\x00'"),
        ("method.name", "../../x", "method.name: must be a name, no path, got '../../x'"),
        ("condition", [math.nan], "condition[0]: nan is no number"),
        ("condition", "a\nb", "condition: must be one line of printable text, got 'a\\nb'"),
        ("results_root", [math.nan], "results_root[0]: nan is no number"),
        ("results_root", "", "results_root: is an empty text, which names no path"),
        ("tags", 0, "tags: input should be a valid string"),
        ("tags", None, "tags: input should be a valid string, got None"),
        ("stage", {"a": 1}, "stage: unknown stage"),
        ("method.calibration", ["pmi"], "method.calibration: unknown rule ['pmi']"),
        ("scorer._partial_", "yes", "scorer._partial_: must be true"),
        ("model.device", "zzz", "model.device: must be auto, cpu, cuda"),
        ("k", 10**400, "k: is a number beyond 64 bits"),
    ],
)  # fmt: skip
def test_a_value_outside_its_rule_is_one_line(configs, key, value, message):
    with pytest.raises(MetashotError) as caught:
        _check(_changed(configs[0][0], key.split("."), value))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("key", "value"), [("supmer.inner_lr", 0), ("supmer.interpolate", False), ("supmer.regularize", False)]
)
def test_the_ablations_that_the_readme_names_are_values(configs, key, value):
    _check(_changed(configs[0][0], key.split("."), value))
