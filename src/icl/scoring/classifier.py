"""`InContextClassifier`: few-shot classification from Python, with the engine and the rules of `run.py`."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metashot.base.components.choices import named
from metashot.base.errors import ConfigError, DataError, suggestion
from metashot.data.task import Example, TaskData, TaskType
from metashot.data.tasks.selected_source import Order, SelectedSource, Selection, Strategy
from metashot.engine.generation.prefix import PrefixGenerator
from metashot.engine.metrics.classification import Metric
from metashot.engine.metrics.generated import grade
from metashot.engine.metrics.held_out_calibration import fit_temperature
from metashot.engine.metrics.ranking import best_option
from metashot.engine.models.loading import LazyLanguageModel
from metashot.engine.models.sentence_encoder import load_keeping_encoder
from metashot.engine.models.sources import ModelConfig, named_model
from metashot.engine.scoring.kept import KEPT_MB
from metashot.engine.scoring.prefix import PrefixScorer
from metashot.icl.prompting.calibration_inputs import with_calibration_inputs
from metashot.icl.prompting.columns import (
    answers,
    check_lengths,
    column,
    demonstration_pairs,
    option_texts,
    texts,
)
from metashot.icl.prompting.config import MetaiclPrompt, PromptConfig
from metashot.icl.prompting.methods import Method, named_method
from metashot.icl.scoring.cell import (
    Cell,
    PromptRules,
    Truncation,
    build_cell,
    cut_note,
    ranking_scores,
    read_back,
)
from metashot.icl.scoring.classifier_files import read_classifier, write_classifier
from metashot.icl.scoring.classifier_parameters import DEFAULTS, checked
from metashot.icl.scoring.evaluation_settings import rules_for
from metashot.icl.scoring.generation import GenerateMethod, generate, with_room
from metashot.icl.scoring.model_choice import chosen
from metashot.icl.scoring.trained_method import check_method, follow_checkpoint
from metashot.icl.scoring.written_inputs import needs_written_inputs, with_written_inputs

_TASK = "in-context task"
_PARAMETERS = ("model", *DEFAULTS)


class InContextClassifier:
    """Ranks options for inputs, given demonstrations in the prompt; no weight is changed.

    Follows the conventions of scikit-learn's estimators, so that its metrics and model selection work with it: `fit`
    stores demonstrations, `predict` and `predict_proba` then rank the answers that were seen (`classes_`). With
    `method="generate"` the answer is written by the model, and `predict` gives texts.

    Inputs are lists, tuples, arrays, tensors, pandas Series, `datasets` or pyarrow columns, tables of one column, or
    generators of texts.

    Args:
        model: a model, loaded on first use, or a name as `from_pretrained` takes it.
        method: how options are scored, or a name of `conf/method`.
        demonstrations: examples for the prompt, in order: mappings with `input` and `output`, pairs, `Example`s, or
            a table with these two columns. `fit` takes their place.
        truncation: how demonstrations are cut when they do not fit: `shared` or `per_option`.
        prompt: how examples become a prompt, or a name of `conf/prompt`; None is `metaicl`.
        k: how many demonstrations a prompt shows, drawn from those that are given; None shows all in their order.
        selection: how the k are chosen: `protocol` and `random` (a draw of the seed), `balanced`, `nearest` (to each
            input), or a `Selection`.
        order: 0 keeps the order of the demonstrations, n is the n-th other one; or a word, see `selection.order`.
        seed: of the draw.
        keep_mb: MiB for the demonstrations' keys and values between calls, of a model in float32; 0 keeps nothing.

    Attributes:
        classes_: the answers in sorted order [n_classes], after `fit`.
        temperature_: by which scores are divided before they become probabilities, after `fit_temperature`.
        shown_: the fewest demonstrations that a prompt held whole, at `fit` (before a short input) and at the last call.
    """

    model: LazyLanguageModel
    method: Method | str
    demonstrations: Any
    truncation: Truncation
    prompt: PromptConfig | None
    k: int | None
    selection: Selection | Strategy
    order: int | Order
    seed: int
    keep_mb: int
    classes_: NDArray[Any]
    shown_: int
    temperature_: float

    def __init__(
        self,
        model: LazyLanguageModel | str,
        method: Method | str = "direct",
        demonstrations: Any = (),
        truncation: Truncation | str = Truncation.SHARED,
        prompt: PromptConfig | str | None = None,
        k: int | None = None,
        selection: Selection | str = Strategy.PROTOCOL,
        order: int | str = 0,
        seed: int = 100,
        keep_mb: int = KEPT_MB,
    ) -> None:
        given: dict[str, Any] = {
            "model": model, "method": method, "demonstrations": demonstrations, "truncation": truncation,
            "prompt": prompt, "k": k, "selection": selection, "order": order, "seed": seed, "keep_mb": keep_mb,
        }  # fmt: skip
        self._warned: set[str] = set()
        self.set_params(**given)

    @classmethod
    def from_pretrained(
        cls,
        model: str,
        *,
        method: str | Method = "direct",
        demonstrations: Any = (),
        prompt: str | PromptConfig = "metaicl",
        truncation: Truncation | str = Truncation.SHARED,
        k: int | None = None,
        selection: Selection | str = Strategy.PROTOCOL,
        order: int | str = 0,
        seed: int = 100,
        keep_mb: int = KEPT_MB,
        **choices: Any,
    ) -> Self:
        """A classifier by names.

        Args:
            model: a name of `conf/model`, a folder, a GGUF file, or a hub id.
            method: a name of `conf/method`, or a `Method`.
            demonstrations: see the class, as for all that follow.
            prompt: a name of `conf/prompt`, or for example a `TemplatePrompt`.
            truncation: `shared` or `per_option`.
            k: demonstrations of a prompt.
            selection: how they are chosen.
            order: their order.
            seed: of the draw.
            keep_mb: what is kept between calls.
            choices: keys of the model's YAML to change, for example `dtype="bfloat16"`.

        Raises:
            ConfigError: an unknown name, or a method that contradicts a trained checkpoint.
            DataError: a demonstration without `input` or `output`.
        """
        spec = named_model(model, **choices)
        chosen = named_method(method) if isinstance(method, str) else method
        shown: PromptConfig = named("prompt", prompt) if isinstance(prompt, str) else prompt
        if spec.checkpoint is not None:
            shown = follow_checkpoint(spec.checkpoint, shown)
        made = cls(
            LazyLanguageModel(spec),
            method,
            demonstrations,
            truncation,
            shown,
            k,
            selection,
            order,
            seed,
            keep_mb,
        )
        if spec.checkpoint is not None:
            check_method(spec.checkpoint, chosen, len(made._given), shown)
        return made

    def fit(self, X: Any, y: Any) -> Self:
        """Store demonstrations; nothing is trained.

        Args:
            X: their inputs.
            y: their answers, of any hashable type.

        Raises:
            DataError: none, unequally many, or a missing or wrong value, with its position.

        Warns:
            UserWarning: demonstrations that do not fit into a prompt, or a prompt of one answer only.
        """
        inputs, outputs = texts("X", X), answers("y", y)
        check_lengths("fit", len(inputs), len(outputs))
        if not inputs:
            raise DataError("fit", "got no examples", "give some inputs and their answers")
        self.classes_ = _classes(outputs)
        self._given = list(zip(inputs, outputs, strict=True))
        self._warned.clear()
        self.__dict__.pop("temperature_", None)
        if self._method.shots(1):
            self._written(["text"], [self.classes_.tolist()])
        return self

    def scores(self, inputs: Any, options: Any = None) -> Tensor:
        """Score of every option for every input.

        Args:
            inputs: test inputs.
            options: candidate answers of any hashable type, the same for all inputs, or a list of lists, one for each
                input; by default those of the demonstrations, sorted.

        Returns:
            Float tensor [n_inputs, n_options], in nats, lower is better: the mean NLL of the target's tokens, less
            the null score where the method calibrates. Where inputs have options of their own, rows with fewer end
            with infinity.

        Raises:
            DataError: an input that is no text, no options, repeated ones, or a demonstration with another output.
            ConfigError: a method that writes answers, and scores none.

        Warns:
            UserWarning: inputs that were cut, demonstrations that were dropped, or a prompt of one answer only.
        """
        found = texts("inputs", inputs)
        return self._scores(found, self._options(options, len(found)))

    def predict(self, inputs: Any, options: Any = None) -> Any:
        """The best option for each input, as it was given; the first of equally good ones.

        Returns:
            A list; without `options`, after `fit`, an array of the answers' own type. With `method="generate"` a list
            of the texts that the model writes.
        """
        found = texts("inputs", inputs)
        if isinstance(self._method, GenerateMethod):
            if options is not None:
                raise ConfigError(
                    "options",
                    "are given, but method='generate' ranks none",
                    "leave them out, or use a method that ranks",
                )
            return self._generated(found)
        candidates = self._options(options, len(found))
        places = [best_option(row) for row in self._scores(found, candidates).tolist()]
        if options is None and hasattr(self, "classes_"):
            return self.classes_[places]
        own = candidates if len(candidates) > 1 or not found else candidates * len(found)
        return [row[place] for row, place in zip(own, places, strict=False)]

    def predict_proba(self, inputs: Any, options: Any = None) -> NDArray[np.float64]:
        """Softmax over the options of the negative scores: [n_inputs, n_options], in the order of the options."""
        return torch.softmax(-self.scores(inputs, options).double() / self._temperature, dim=1).numpy()

    def predict_log_proba(self, inputs: Any, options: Any = None) -> NDArray[np.float64]:
        """Logarithms of `predict_proba`, in nats."""
        return torch.log_softmax(-self.scores(inputs, options).double() / self._temperature, dim=1).numpy()

    def fit_temperature(self, X: Any, y: Any) -> Self:
        """Divide scores in `predict_proba` and `predict_log_proba` by what makes the answers to these inputs likeliest.

        No prediction changes. `fit` forgets it.

        Args:
            X: inputs that are no demonstrations.
            y: their answers, each one of `classes_`.

        Raises:
            DataError: unequally many, none, or an answer that was not seen.
        """
        inputs, right = texts("X", X), answers("y", y)
        check_lengths("fit_temperature", len(inputs), len(right))
        classes = self._options(None, len(inputs))[0]
        unknown = next((place for place, one in enumerate(right) if one not in classes), None)
        if not inputs or unknown is not None:
            found = (
                "got no inputs" if unknown is None else f"y[{unknown}] {right[unknown]!r} is no answer of fit"
            )
            raise DataError("fit_temperature", found, f"give inputs with answers of {classes!r}")
        gold = np.array([classes.index(one) for one in right])
        self.temperature_ = fit_temperature(self.scores(inputs).double().numpy(), gold)
        return self

    @property
    def _temperature(self) -> float:
        return getattr(self, "temperature_", 1.0)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Share of inputs whose predicted answer is the right one, 0..1; generated ones are graded by the method's metric.

        Args:
            X: inputs.
            y: right answers.
            sample_weight: [n_inputs] weight of each input.

        Raises:
            DataError: unequally many, or weights that are none.
        """
        inputs, right = texts("X", X), answers("y", y)
        check_lengths("score", len(inputs), len(right))
        if not inputs:
            raise DataError("score", "got no inputs", "give some inputs and their answers")
        weights = None if sample_weight is None else np.asarray(column("sample_weight", sample_weight), float)
        if weights is not None and (
            len(weights) != len(inputs) or not weights.sum() > 0 or (weights < 0).any()
        ):
            raise DataError(
                "sample_weight",
                f"got {len(weights)} numbers for {len(inputs)} inputs, of the sum {weights.sum():g}",
                "give one number of 0 or more for each input, not all 0",
            )
        method, found = self._method, self.predict(inputs)
        if isinstance(method, GenerateMethod):
            points = [
                grade(Metric(method.metric), one, [str(other)])
                for one, other in zip(found, right, strict=True)
            ]
        else:
            points = [float(one == other) for one, other in zip(found, right, strict=True)]
        return float(np.average(points, weights=weights))

    def free(self) -> None:
        """Give back the memory of what is kept between calls; the next call computes it again."""
        if "_scorer" in self.__dict__:
            self._scorer.free()

    def save(self, path: str | Path) -> None:
        """Write parameters, demonstrations and answers as JSON; the model's weights stay where they are.

        Raises:
            DataError: an answer that JSON does not hold (texts, numbers and booleans it does).
        """
        held = {
            "given": self._given,
            "classes": self.classes_.tolist() if hasattr(self, "classes_") else None,
            "temperature": self._temperature,
        }
        parameters = {name: value for name, value in self.get_params().items() if name != "demonstrations"}
        write_classifier(Path(path), {**parameters, "model": self.model.spec}, held)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """What `save` wrote.

        Raises:
            DataError: not such a file.
            ConfigError: a class in it that is not trusted.
        """
        parameters, held = read_classifier(Path(path))
        spec: ModelConfig = parameters.pop("model")
        given = [(str(text), answer) for text, answer in held["given"]]
        made = cls(LazyLanguageModel(spec), demonstrations=given, **parameters)
        if held["classes"] is not None:
            made.classes_ = _classes(held["classes"])
        if held.get("temperature", 1.0) != 1.0:
            made.temperature_ = float(held["temperature"])
        return made

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments of the constructor."""
        del deep
        return {name: getattr(self, name) for name in _PARAMETERS}

    def set_params(self, **params: Any) -> Self:
        """Other arguments for the constructor; names become what they name.

        Raises:
            ConfigError: an argument that it does not have, or a value that it cannot take.
        """
        for name, value in params.items():
            if name not in _PARAMETERS:
                raise ConfigError(name, "is no parameter of the classifier", suggestion(name, _PARAMETERS))
            setattr(self, name, checked(name, value))
        if "demonstrations" in params:
            self._given = _pairs(self.demonstrations)
        self.__dict__.pop("_rules", None)
        if "model" in params or "keep_mb" in params:
            self.__dict__.pop("_scorer", None)
        return self

    def __repr__(self) -> str:
        """The constructor's arguments that are not the defaults."""
        shown = [repr(self.model.name)]
        for name, default in DEFAULTS.items():
            value = getattr(self, name)
            if name == "demonstrations":
                shown += [f"demonstrations=<{len(self._given)} examples>"] if self._given else []
            elif value != default:
                text = getattr(value, "name", None) if name in ("method", "prompt") else None
                shown.append(f"{name}={text or str(value) if isinstance(value, str) else text or value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

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

    def _scores(self, inputs: Sequence[str], options: Sequence[Sequence[Hashable]]) -> Tensor:
        """As `scores`; `options` is one row for all inputs, or one for each."""
        method = self._method
        if isinstance(method, GenerateMethod):
            raise ConfigError(
                "method",
                "'generate' writes answers and scores no options",
                "use predict, or a method that ranks",
            )
        if method.labelled_rows:
            raise ConfigError(
                "method",
                f"{method.name!r} learns from labelled examples besides the demonstrations",
                "evaluate it with run.py or metashot.evaluate, or use another method here",
            )
        if not inputs:
            return torch.zeros(0, max(map(len, options), default=0))
        cell = self._written(inputs, options)[1]
        scored = ranking_scores(read_back(cell, self._scorer.score(cell.requests)), method)
        widest = max(map(len, scored))
        return torch.tensor([[*row, *[float("inf")] * (widest - len(row))] for row in scored])

    def _generated(self, inputs: Sequence[str]) -> list[str]:
        method = self._method
        assert isinstance(method, GenerateMethod)
        if not inputs:
            return []
        data, cell = self._written(inputs, [("",)])
        generator = PrefixGenerator(self.model.load().model, self.model.load().tokenizer, method.batch_size)
        found = generate(data, cell, range(len(inputs)), self._rules, method, generator)
        return [method.judged([one.text for one in row], [""])[0] for row in found]

    def _written(self, inputs: Sequence[str], options: Sequence[Sequence[Hashable]]) -> tuple[TaskData, Cell]:
        """The prompts of a call, and what there is to warn of."""
        shown = [tuple(option_texts(row)) for row in options]
        rows = shown if len(shown) > 1 else shown * len(inputs)
        test = tuple(Example(_TASK, text, row[0], row) for text, row in zip(inputs, rows, strict=True))
        given = TaskData(_TASK, self.seed, TaskType.CLASSIFICATION, self._examples(options), test)
        data = self._chosen(given)
        method, rules = self._method, self._rules
        if isinstance(method, GenerateMethod):
            rules, data = with_room(rules, method), method.prompted(data)
        elif data.choice is not None:
            data = chosen(data, rules, self._scorer.score, self.model.encode)
        data = with_calibration_inputs(data, method, _Fitted(given), self.k or 0)
        if needs_written_inputs(data, rules):
            loaded = self.model.load()
            generator = PrefixGenerator(loaded.model, loaded.tokenizer)
            data = with_written_inputs(data, rules, generator, self.model.encode)
        cell = build_cell(data, self.model.encode, rules)
        self._warn(data, cell, rules)
        return data, cell

    def _warn(self, data: TaskData, cell: Cell, rules: PromptRules) -> None:
        notes = [*rules.prompt.notes, *rules.prompt.notes_on(data)]
        if any(cell.lost):
            cut = sum(tokens > 0 for tokens in cell.lost)
            notes.append(cut_note(_TASK, cut, len(data.test), sum(cell.lost), rules.limits))
        self.shown_ = cell.shown_least
        lists = data.neighbours or (data.demonstrations,)
        if data.shots and cell.shown_least < min(map(len, lists)):
            notes.append(
                f"prompts hold {cell.shown_least} of {min(map(len, lists))} demonstrations, the last ones; the others do "
                "not fit: lower k, raise prompt.max_length, or use a model with a longer context"
            )
        held = [{one.output for one in row[len(row) - cell.shown_least :]} for row in lists]
        if len({output for _, output in self._given}) > 1 and all(len(outputs) == 1 for outputs in held):
            notes.append(
                f"the demonstrations in the prompt have one answer only, {next(iter(held[0]))!r}: shuffle them, or use "
                "selection='balanced' with k"
            )
        for note in notes:
            if note not in self._warned:
                self._warned.add(note)
                warnings.warn(note, stacklevel=5)

    def _chosen(self, data: TaskData) -> TaskData:
        """The cell with the demonstrations that `k`, `selection` and `order` choose."""
        selection = self.selection
        if not isinstance(selection, Selection):
            strategy = Strategy(selection)
            if strategy is Strategy.PROTOCOL and self.k is not None:
                strategy = Strategy.RANDOM
            selection = Selection(strategy)
        if self.order:
            order = Order(self.order) if isinstance(self.order, str) else self.order
            selection = replace(selection, order=order)
        if selection.changes_nothing or not data.demonstrations:
            return data
        k = self.k
        if k is None and selection.strategy is not Strategy.PROTOCOL:
            if selection.strategy is not Strategy.FIXED:
                raise ConfigError(
                    "k", f"is None, but selection={selection.strategy.value!r} chooses k", "set k"
                )
            k = len(selection.indices)
        embed = load_keeping_encoder(selection.encoder) if selection.needs_encoder else None
        source = SelectedSource(_Fitted(data), selection, embed)
        k = len(data.demonstrations) if k is None else self._method.shots(k)
        return replace(source.load(_TASK, k=k, seed=self.seed), notes=())

    @property
    def _method(self) -> Method:
        return named_method(self.method) if isinstance(self.method, str) else self.method

    @cached_property
    def _rules(self) -> PromptRules:
        """Method and prompt made ready for the model."""
        return rules_for(self._method, self.prompt or MetaiclPrompt(), self.truncation, self.model)

    @cached_property
    def _scorer(self) -> PrefixScorer:
        """Probes the model once."""
        return PrefixScorer(self.model.load().model, keep_mb=self.keep_mb)

    def _options(self, options: Any, inputs: int) -> list[list[Hashable]]:
        """One row of options for all inputs, or one for each."""
        if options is not None:
            members = column("options", options)
            if members and all(isinstance(one, list | np.ndarray) for one in members):
                check_lengths("options", inputs, len(members))
                return [answers(f"options[{place}]", one) for place, one in enumerate(members)]
            return [answers("options", members)]
        if hasattr(self, "classes_"):
            return [self.classes_.tolist()]
        if not self._given:
            raise DataError(
                "options", "is not given, and there are no demonstrations", "give the candidate answers"
            )
        return [_classes([output for _, output in self._given]).tolist()]

    def _examples(self, options: Sequence[Sequence[Hashable]]) -> tuple[Example, ...]:
        """The demonstrations that the method shows; where all inputs have the same options, each has one of them."""
        if not self._method.shots(1):
            return ()
        shared = len(options) == 1 and self._method.ranks_options
        known = set(options[0])
        for place, (_, output) in enumerate(self._given if shared else ()):
            if output not in known:
                raise DataError(
                    f"demonstrations[{place}]",
                    f"output {output!r} is not among the options {list(options[0])!r}",
                    "correct it, or give the option",
                )
        shown = tuple(option_texts(options[0])) if shared else ()
        return tuple(Example(_TASK, text, str(output), shown) for text, output in self._given)


class _Fitted:
    """The examples of a classifier as a source of demonstrations."""

    name = _TASK

    def __init__(self, data: TaskData) -> None:
        self._data = data

    def tasks(self) -> list[str]:
        return [_TASK]

    def pool(self, task: str, *, size: int = 16384, seed: int = 100) -> list[Example]:
        del task, size, seed
        return list(self._data.demonstrations)

    def load(self, task: str, *, k: int, seed: int, split: str = "test") -> TaskData:
        if split != "test":
            raise DataError(task, f"a classifier has no {split} rows", "give fit more examples than k")
        return self._data if k else replace(self._data, demonstrations=())


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
    plain = len(kinds) == 1 and issubclass(next(iter(kinds)), str | int | float | np.number | np.bool_)
    return np.array(distinct) if plain else classes
