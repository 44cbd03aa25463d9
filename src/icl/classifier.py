"""`InContextClassifier`: few-shot classification from Python, with the engine and the rules of `run.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from metashot.data.errors import DataError
from metashot.data.task import Example, TaskData, TaskType
from metashot.engine.components.choices import named
from metashot.engine.metrics.ranking import best_option
from metashot.engine.models.loading import LazyLanguageModel
from metashot.engine.models.sources import named_model
from metashot.engine.scoring import PrefixScorer
from metashot.icl.cell import PromptRules, Truncation, build_cell, ranking_scores, read_back
from metashot.icl.methods import Method, named_method
from metashot.icl.prompting.config import MetaiclPrompt, PromptConfig
from metashot.icl.trained_method import check_method, follow_checkpoint

_TASK = "in-context task"


class InContextClassifier:
    """Ranks options for inputs, given demonstrations in the prompt; no weight is changed.

    Args:
        model: a model, loaded on first use.
        method: how options are scored.
        demonstrations: examples for the prompt, in order.
        truncation: how demonstrations are cut when they do not fit.
        prompt: how examples become a prompt.
    """

    def __init__(
        self,
        model: LazyLanguageModel,
        method: Method,
        demonstrations: Sequence[Example] = (),
        truncation: Truncation = Truncation.SHARED,
        prompt: PromptConfig | None = None,
    ) -> None:
        self.model = model
        self.method = method
        self.demonstrations = tuple(demonstrations[: method.shots(len(demonstrations))])
        self.truncation = truncation
        self.prompt = prompt or MetaiclPrompt()

    @classmethod
    def from_pretrained(
        cls,
        model: str,
        *,
        method: str | Method = "direct",
        demonstrations: Sequence[Mapping[str, str]] = (),
        prompt: str | PromptConfig = "metaicl",
        **choices: Any,
    ) -> InContextClassifier:
        """A classifier by names.

        Args:
            model: a name of `conf/model`, a folder, a GGUF file, or a hub id.
            method: a name of `conf/method`, or a `Method`.
            demonstrations: mappings with `input` and `output`.
            prompt: a name of `conf/prompt`, or for example a `TemplatePrompt`.
            choices: keys of the model's YAML to change, for example `dtype="bfloat16"`.

        Raises:
            ConfigError: an unknown method, or one that contradicts a trained checkpoint.
            DataError: a demonstration without `input` or `output`.
        """
        spec = named_model(model, **choices)
        chosen = named_method(method) if isinstance(method, str) else method
        shown: PromptConfig = named("prompt", prompt) if isinstance(prompt, str) else prompt
        if spec.checkpoint is not None:
            shown = follow_checkpoint(spec.checkpoint, shown)
            check_method(spec.checkpoint, chosen, len(demonstrations), shown)
        examples = [_example(one, number) for number, one in enumerate(demonstrations, start=1)]
        return cls(LazyLanguageModel(spec), chosen, examples, prompt=shown)

    @cached_property
    def _scorer(self) -> PrefixScorer:
        """Probes the model once."""
        return PrefixScorer(self.model.load().model)

    def scores(self, inputs: Sequence[str], options: Sequence[str]) -> Tensor:
        """Score of every option for every input.

        Args:
            inputs: test inputs.
            options: candidate answers, the same for all inputs.

        Returns:
            Float tensor [n_inputs, n_options], in nats, lower is better: the mean NLL of the target's tokens, less
            the null score where the method calibrates. An empty input scores 0 for all options in channel scoring.

        Raises:
            DataError: a string in place of a list, no options, or repeated ones.
        """
        _check(inputs, options)
        if not inputs:
            return torch.zeros(0, len(options))
        test = tuple(Example(_TASK, text, options[0], tuple(options)) for text in inputs)
        data = TaskData(_TASK, 0, TaskType.CLASSIFICATION, self.demonstrations, test)
        rules = PromptRules(
            self.method,
            self.prompt.bind(self.method, self.model.name, self.model.tokenizer),
            self.truncation,
            self.prompt.limits,
            self.model.context_length,
        )
        cell = build_cell(data, self.model.encode, rules)
        answers = read_back(cell, self._scorer.score(cell.requests))
        return torch.tensor(ranking_scores(answers, self.method))

    def predict(self, inputs: Sequence[str], options: Sequence[str]) -> list[str]:
        """The best option for each input; the first of equally good ones."""
        return [options[best_option(row)] for row in self.scores(inputs, options).tolist()]


def _example(demonstration: Mapping[str, str], number: int) -> Example:
    missing = [key for key in ("input", "output") if not isinstance(demonstration.get(key), str)]
    if missing:
        raise DataError(
            f"demonstrations[{number - 1}]",
            f"has no text {' and '.join(missing)}",
            'give {"input": ..., "output": ...}',
        )
    return Example(_TASK, demonstration["input"], demonstration["output"])


def _check(inputs: Sequence[str], options: Sequence[str]) -> None:
    for name, value in (("inputs", inputs), ("options", options)):
        if isinstance(value, str):
            raise DataError(name, f"is one string, {value!r}", f"give a list: [{value!r}]")
    if not options:
        raise DataError("options", "is empty", "give the candidate answers")
    if len(set(options)) < len(options):
        raise DataError("options", f"holds an answer twice: {list(options)!r}", "list every option once")
