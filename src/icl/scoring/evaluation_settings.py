"""What an evaluation is told, and the prompt rules that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from metashot.base.errors import ConfigError
from metashot.base.identity import NoEffect
from metashot.engine.models.loading import LazyLanguageModel
from metashot.icl.prompting.config import PromptConfig
from metashot.icl.prompting.methods import Method
from metashot.icl.scoring.cell import PromptRules, Truncation

_ROWS = NoEffect("the rows of a cell are in its identity")


@dataclass(frozen=True, slots=True)
class EvaluateSettings:
    """What to evaluate.

    Attributes:
        setting: name that results carry.
        tasks: task names.
        seeds: demonstration seeds.
        k: demonstrations asked for; zero-shot methods use none.
        split: `test` or `dev`.
        method: how options are scored.
        truncation: how demonstrations are cut.
        prompt: how examples become a prompt.
    """

    setting: Annotated[str, NoEffect("what results carry")]
    tasks: Annotated[tuple[str, ...], _ROWS]
    seeds: Annotated[tuple[int, ...], _ROWS]
    k: Annotated[int, _ROWS]
    split: Annotated[str, _ROWS]
    method: Method
    truncation: Truncation
    prompt: PromptConfig

    def __post_init__(self) -> None:
        """Refuse empty lists and repeated entries.

        Raises:
            ConfigError: no task or no seed, one of them twice, or a negative k.
        """
        if self.k < 0:
            raise ConfigError("k", f"must be 0 or more, got {self.k}", "0 is zero-shot")
        for key, values in (("data.tasks", self.tasks), ("seeds", self.seeds)):
            if not values:
                raise ConfigError(key, "is empty", "name at least one")
            if len(set(values)) < len(values):
                repeated = next(value for value in values if values.count(value) > 1)
                raise ConfigError(key, f"{repeated!r} stands twice", "keep one of them")


def prompt_rules(settings: EvaluateSettings, model: LazyLanguageModel) -> PromptRules:
    """The rules that turn this run's examples into ids."""
    return rules_for(settings.method, settings.prompt, settings.truncation, model)


def rules_for(
    method: Method, prompt: PromptConfig, truncation: Truncation, model: LazyLanguageModel
) -> PromptRules:
    """The rules that turn examples into ids of a model."""
    bound = prompt.bind(method, model.name, model.tokenizer)
    return PromptRules(method, bound, truncation, prompt.limits, model.context_length)
