"""`InContextClassifier`: few-shot classification from Python, with the engine and the rules of `run.py`."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metashot.base.components.choices import named
from metashot.base.errors import ConfigError, DataError, suggestion
from metashot.data.task import Example, TaskData, TaskType
from metashot.engine.metrics.ranking import best_option
from metashot.engine.models.loading import LazyLanguageModel
from metashot.engine.models.sources import named_model
from metashot.engine.scoring.prefix import PrefixScorer
from metashot.icl.prompting.columns import answers, demonstration_pairs, option_texts, texts
from metashot.icl.prompting.config import MetaiclPrompt, PromptConfig
from metashot.icl.prompting.methods import Method, named_method
from metashot.icl.scoring.cell import PromptRules, Truncation, build_cell, cut_note, ranking_scores, read_back
from metashot.icl.scoring.trained_method import check_method, follow_checkpoint

_TASK = "in-context task"
_PARAMETERS = ("model", "method", "demonstrations", "truncation", "prompt")


class InContextClassifier:
    """Ranks options for inputs, given demonstrations in the prompt; no weight is changed.

    Follows the conventions of scikit-learn's estimators, so that its metrics and model selection work with it: `fit`
    stores demonstrations, `predict` and `predict_proba` then rank the answers that were seen (`classes_`).

    Inputs are lists, tuples, arrays, pandas Series, `datasets` columns, tables of one column, or generators of texts.

    Args:
        model: a model, loaded on first use.
        method: how options are scored.
        demonstrations: examples for the prompt, in order: mappings with `input` and `output`, pairs, `Example`s, or
            a table with these two columns. `fit` takes their place.
        truncation: how demonstrations are cut when they do not fit.
        prompt: how examples become a prompt.

    Attributes:
        classes_: the answers in sorted order [n_classes], after `fit`.
    """

    classes_: NDArray[Any]

    def __init__(
        self,
        model: LazyLanguageModel,
        method: Method | str = "direct",
        demonstrations: Any = (),
        truncation: Truncation = Truncation.SHARED,
        prompt: PromptConfig | None = None,
    ) -> None:
        self.model = model
        self.method = method
        self.demonstrations = demonstrations
        self.truncation = truncation
        self.prompt = prompt
        self._shown = _pairs(demonstrations)

    @classmethod
    def from_pretrained(
        cls,
        model: str,
        *,
        method: str | Method = "direct",
        demonstrations: Any = (),
        prompt: str | PromptConfig = "metaicl",
        **choices: Any,
    ) -> Self:
        """A classifier by names.

        Args:
            model: a name of `conf/model`, a folder, a GGUF file, or a hub id.
            method: a name of `conf/method`, or a `Method`.
            demonstrations: see the class.
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
        made = cls(LazyLanguageModel(spec), method, demonstrations, prompt=shown)
        if spec.checkpoint is not None:
            check_method(spec.checkpoint, chosen, len(made._shown), shown)
        return made

    def fit(self, X: Any, y: Any) -> Self:
        """Store demonstrations; nothing is trained.

        Args:
            X: their inputs.
            y: their answers, of any hashable type.

        Raises:
            DataError: none, unequally many, or a missing or wrong value, with its position.
        """
        inputs, outputs = texts("X", X), answers("y", y)
        if not inputs or len(inputs) != len(outputs):
            raise DataError(
                "fit", f"got {len(inputs)} inputs and {len(outputs)} answers", "give as many of each"
            )
        self.classes_ = _classes(outputs)
        self._shown = list(zip(inputs, outputs, strict=True))
        return self

    def scores(self, inputs: Any, options: Any = None) -> Tensor:
        """Score of every option for every input.

        Args:
            inputs: test inputs.
            options: candidate answers of any hashable type, the same for all inputs; by default those of the
                demonstrations, sorted.

        Returns:
            Float tensor [n_inputs, n_options], in nats, lower is better: the mean NLL of the target's tokens, less
            the null score where the method calibrates.

        Raises:
            DataError: an input that is no text, no options, repeated ones, or a demonstration with another output.

        Warns:
            UserWarning: inputs that are longer than an example may be, and were cut.
        """
        found = texts("inputs", inputs)
        candidates = self._options(options)
        shown = option_texts(candidates)
        demonstrations = self._examples(candidates, shown)
        if not found:
            return torch.zeros(0, len(shown))
        test = tuple(Example(_TASK, text, shown[0], tuple(shown)) for text in found)
        data = TaskData(_TASK, 0, TaskType.CLASSIFICATION, demonstrations, test)
        method, prompt = self._method, self.prompt or MetaiclPrompt()
        bound = prompt.bind(method, self.model.name, self.model.tokenizer)
        rules = PromptRules(method, bound, self.truncation, prompt.limits, self.model.context_length)
        cell = build_cell(data, self.model.encode, rules)
        if any(cell.lost):
            cut = sum(tokens > 0 for tokens in cell.lost)
            warnings.warn(cut_note(_TASK, cut, len(found), sum(cell.lost), prompt.limits), stacklevel=2)
        answered = read_back(cell, self._scorer.score(cell.requests))
        return torch.tensor(ranking_scores(answered, method))

    def predict(self, inputs: Any, options: Any = None) -> Any:
        """The best option for each input, as it was given; the first of equally good ones.

        Returns:
            A list; without `options`, after `fit`, an array of the answers' own type.
        """
        places = [best_option(row) for row in self.scores(inputs, options).tolist()]
        if options is None and hasattr(self, "classes_"):
            return self.classes_[places]
        candidates = self._options(options)
        return [candidates[place] for place in places]

    def predict_proba(self, inputs: Any, options: Any = None) -> NDArray[np.float64]:
        """Softmax over the options of the negative scores: [n_inputs, n_options], in the order of the options."""
        return torch.softmax(-self.scores(inputs, options).double(), dim=1).numpy()

    def score(self, X: Any, y: Any) -> float:
        """Share of inputs whose predicted answer is the right one, 0..1."""
        right = [one == other for one, other in zip(self.predict(X), answers("y", y), strict=True)]
        return float(np.mean(right))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments of the constructor."""
        del deep
        return {name: getattr(self, name) for name in _PARAMETERS}

    def set_params(self, **params: Any) -> Self:
        """Other arguments for the constructor.

        Raises:
            ConfigError: an argument that it does not have.
        """
        for name, value in params.items():
            if name not in _PARAMETERS:
                raise ConfigError(name, "is no parameter of the classifier", suggestion(name, _PARAMETERS))
            setattr(self, name, value)
        if "demonstrations" in params:
            self._shown = _pairs(params["demonstrations"])
        if "model" in params:
            self.__dict__.pop("_scorer", None)
        return self

    def __sklearn_clone__(self) -> Self:
        """The same parameters, unfitted; the model is shared, since it never changes."""
        return type(self)(**self.get_params())

    def __sklearn_tags__(self) -> Any:
        """A classifier of texts that needs `fit`."""
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(one_d_array=True, two_d_array=False, string=True),
        )

    @property
    def _method(self) -> Method:
        method = named_method(self.method) if isinstance(self.method, str) else self.method
        rule = method.calibration.name
        if method.calibration.from_training:
            raise ConfigError(
                "method.calibration",
                f"{rule!r} averages over unlabelled training inputs, which a classifier does not get",
                f"use {rule}_transductive, which averages over the inputs of the call, or contextual",
            )
        return method

    @cached_property
    def _scorer(self) -> PrefixScorer:
        """Probes the model once."""
        return PrefixScorer(self.model.load().model)

    def _options(self, options: Any) -> list[Hashable]:
        if options is not None:
            return answers("options", options)
        if hasattr(self, "classes_"):
            return self.classes_.tolist()
        if not self._shown:
            raise DataError(
                "options", "is not given, and there are no demonstrations", "give the candidate answers"
            )
        return _classes([output for _, output in self._shown]).tolist()

    def _examples(self, options: Sequence[Hashable], shown: Sequence[str]) -> tuple[Example, ...]:
        """The demonstrations that the method shows, each with one of the options."""
        known = set(options)
        for place, (_, output) in enumerate(self._shown):
            if output not in known:
                raise DataError(
                    f"demonstrations[{place}]",
                    f"output {output!r} is not among the options {list(options)!r}",
                    "correct it, or give the option",
                )
        kept = self._shown[: self._method.shots(len(self._shown))]
        return tuple(Example(_TASK, text, str(output), tuple(shown)) for text, output in kept)


def _pairs(demonstrations: Any) -> list[tuple[str, Hashable]]:
    examples = isinstance(demonstrations, list | tuple) and all(
        isinstance(one, Example) for one in demonstrations
    )
    if examples:
        return [(one.input, one.output) for one in demonstrations]
    return demonstration_pairs(demonstrations)


def _classes(outputs: Sequence[Hashable]) -> NDArray[Any]:
    """Distinct answers: sorted, or in order of appearance where they cannot be compared."""
    distinct: list[Any] = list(dict.fromkeys(outputs))
    with suppress(TypeError):
        distinct.sort()
    kinds = {type(one) for one in distinct}
    classes = np.empty(len(distinct), dtype=object)
    classes[:] = distinct
    return np.array(distinct) if len(kinds) == 1 and not kinds & {tuple, frozenset} else classes
