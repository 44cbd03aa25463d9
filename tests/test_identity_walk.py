"""Every component class that decides a stored value, every field: changing it changes the identity, or it is marked.

The values of the other side are made by the field's type, so a field of a kind that this test cannot change fails it.
"""

import inspect
from dataclasses import dataclass, fields, is_dataclass
from importlib import import_module
from pkgutil import walk_packages

import pytest

import metashot
from metashot.base.components.choices import choice_names, named
from metashot.base.identity import identity_of, marked
from metashot.data.preparation.task_files import Choice
from metashot.data.recipes.keys import Strict
from metashot.data.task import Example, TaskData, Wording
from metashot.data.text.corpus import CorpusSource
from metashot.data.text.sentences import SentenceRules
from metashot.engine.metrics.rules import Calibration, InputsFrom, Normalization
from metashot.engine.training.config import LoopConfig, LoraConfig, OptimizerConfig, TrainableConfig
from metashot.icl.learning.training_settings import EpisodeConfig, HeldOutConfig, MetaTrainSettings
from metashot.icl.prompting.bound import BoundPrompt
from metashot.icl.prompting.config import PromptConfig
from metashot.icl.prompting.frame import MetaiclFrame, TextFrame
from metashot.icl.prompting.methods import Method
from metashot.icl.scoring.evaluation_settings import EvaluateSettings
from metashot.metaprompt.clusters.clustering import ClusterConfig
from metashot.metaprompt.clusters.embedding import EncoderConfig
from metashot.metaprompt.meta.config import MetaConfig, RegularizerConfig
from metashot.metaprompt.tuning.config import TrainRules, TuneSettings
from metashot.metaprompt.tuning.tasks import PromptTask

ROOTS = [
    Choice, Example, TaskData, Wording, CorpusSource, SentenceRules, Calibration, InputsFrom, Normalization, LoopConfig, LoraConfig,
    OptimizerConfig, TrainableConfig, EpisodeConfig, HeldOutConfig, MetaTrainSettings, BoundPrompt, PromptConfig, MetaiclFrame,
    TextFrame, Method, EvaluateSettings, ClusterConfig, EncoderConfig, MetaConfig, RegularizerConfig, TrainRules,
    TuneSettings, PromptTask, Strict,
    *(type(named("method/extract", rule)) for rule in choice_names("method/extract")),
]  # fmt: skip
"""What the stored values are digests of; their subclasses in the package are walked too."""


def subclasses(kind):
    return {kind}.union(*(subclasses(child) for child in kind.__subclasses__()))


def walked():
    for module in walk_packages(metashot.__path__, "metashot."):
        if module.name.startswith(("metashot.icl", "metashot.metaprompt", "metashot.data")):
            import_module(module.name)
    kinds = {one for root in ROOTS for one in subclasses(root) if one.__module__.startswith("metashot.")}
    return sorted((one for one in kinds if not inspect.isabstract(one)), key=lambda one: one.__qualname__)


def names_of(kind):
    return [one.name for one in fields(kind)] if is_dataclass(kind) else list(kind.model_fields)


def blank(kind, values):
    """An object with these values, made without its checks."""
    made = object.__new__(kind)
    if not is_dataclass(kind):
        return kind.model_construct(**values)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


@pytest.mark.parametrize("kind", walked(), ids=lambda kind: kind.__qualname__)
def test_changing_any_field_changes_the_identity_or_it_is_marked(kind):
    names, silent = names_of(kind), marked(kind)
    base = {name: f"value of {name}" for name in names}
    before = identity_of(blank(kind, base))
    for name in names:
        after = identity_of(blank(kind, base | {name: "another"}))
        assert (after == before) is (name in silent), name
        assert name not in silent or silent[name].why


def test_a_key_that_is_added_to_prompt_tuning_is_in_its_identity():
    """The list of deciding names that used to stand beside the fingerprint forgot it."""
    grown = dataclass(frozen=True, kw_only=True)(
        type("Grown", (TuneSettings,), {"__annotations__": {"temperature": float}, "temperature": 1.0})
    )
    base = {name: name for name in names_of(TuneSettings)}
    one, other = (identity_of(blank(grown, base | {"temperature": value})) for value in (1.0, 2.0))
    assert one != other


def test_what_is_marked_is_named_here():
    """Marks are promises: a new one is looked at by whoever adds it to this list."""
    decided = {
        kind.__qualname__: sorted(name for name in names_of(kind) if name in marked(kind))
        for kind in (Method, EvaluateSettings, TuneSettings, TaskData, LoopConfig)
    }
    assert decided == {
        "Method": ["name", "row", "title"],
        "EvaluateSettings": ["k", "seeds", "setting", "split", "tasks"],
        "TuneSettings": [
            "data_root", "data_seeds", "data_source", "method", "pattern", "prompt_path", "regularizer_path", "setting", "tasks",
            "train_seeds", "transfer",
        ],
        "TaskData": ["notes", "only_by_task", "seed"],
        "LoopConfig": [
            "best_metric", "early_stop_evaluations", "log_every", "on_divergence", "progress", "resume", "rewind_steps",
            "save_every",
        ],
    }  # fmt: skip
