"""Few-shot tuning of one cell: train on K examples per label, choose a step, predict the test set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from metashot.base.errors import ModelError
from metashot.engine.models.loading import LanguageModel
from metashot.engine.training.optimizers import Updater, build_optimizer
from metashot.metaprompt.backbone import target_loss
from metashot.metaprompt.batch import PromptBatch, PromptExample, bucket_by_length, collate
from metashot.metaprompt.meta.steps.inner_loop import pad_id
from metashot.metaprompt.tuning.config import TrainRules
from metashot.metaprompt.tuning.tunable import Tunable

_DROPOUT_STREAM, _ORDER_STREAM = 6, 7


@dataclass(frozen=True, slots=True)
class LabelScores:
    """Predictions on one set.

    Attributes:
        nll: negative log-probability of each verbalizer at the answer position, [n, labels], in nats.
        top: id with the highest logit in the whole vocabulary, [n].
        gold: gold label of each example.
        label_ids: id of each verbalizer.
    """

    nll: Tensor
    top: Tensor
    gold: tuple[int, ...]
    label_ids: tuple[int, ...]

    def predicted(self, over: str) -> list[int]:
        """Label of each example; -1 where the whole-vocabulary argmax is no verbalizer."""
        if over == "verbalizers":
            return self.nll.argmin(dim=1).tolist()
        lookup = {token: label for label, token in enumerate(self.label_ids)}
        return [lookup.get(token, -1) for token in self.top.tolist()]

    def accuracy(self, over: str) -> float:
        """Share of right answers."""
        hits = [p == g for p, g in zip(self.predicted(over), self.gold, strict=True)]
        return sum(hits) / len(hits)

    def loss(self) -> float:
        """Mean NLL of the gold verbalizer, in nats."""
        return float(self.nll[torch.arange(len(self.gold)), torch.tensor(self.gold)].mean())


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """Rendered examples with their labels."""

    examples: tuple[PromptExample, ...]
    labels: tuple[int, ...]
    label_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The state after `step` steps: training loss since the last point, and the selection set."""

    step: int
    train_loss: float
    select_accuracy: float | None
    select_loss: float | None
    coefficient: float | None


@dataclass(frozen=True, slots=True)
class TunedCell:
    """What tuning one cell gives.

    Attributes:
        tests: answers on each test set.
        curve: points along training.
        chosen_step: whose weights predicted.
        weights: the tuned parameters at that step (for a prompt: the prompt).
    """

    tests: dict[str, LabelScores]
    curve: tuple[CurvePoint, ...]
    chosen_step: int
    weights: dict[str, Tensor]

    def curve_rows(self) -> list[dict[str, float | int | None]]:
        """The curve as JSON rows."""
        return [asdict(point) for point in self.curve]


def tune(
    tunable: Tunable,
    language_model: LanguageModel,
    *,
    train: LabelledSet,
    dev: LabelledSet,
    tests: Mapping[str, LabelledSet],
    rules: TrainRules,
    seed: int,
    at: Callable[[int, int], None] | None = None,
) -> TunedCell:
    """Train on `train`, keep the step that is best on the selection set, and predict every test set.

    Args:
        tunable: what is trained.
        language_model: for device and padding.
        train: training examples.
        dev: development examples.
        tests: test sets by task name; the first is the selection set for `select_on=test`.
        rules: steps, batches, selection.
        seed: of the order of examples and of dropout.
        at: told (steps done, steps in all) after each.

    Raises:
        ModelError: the training loss is not finite.
    """
    parameters = tunable.named_parameters()
    updater = Updater(
        [p for _, p in parameters],
        build_optimizer(parameters, rules.optimizer),
        rules.optimizer,
        rules.steps,
    )
    select = {"dev": dev, "test": next(iter(tests.values())), "last": None}[rules.select_on]
    order = example_order(len(train.examples), rules.steps * rules.batch_size, seed)
    torch.manual_seed(int(np.random.default_rng([seed, _DROPOUT_STREAM]).integers(2**62)))
    curve: list[CurvePoint] = []
    best: tuple[float, float] | None = None
    chosen, weights, window = 0, _snapshot(parameters), []
    for step in range(rules.steps):
        batch = [train.examples[i] for i in order[step * rules.batch_size : (step + 1) * rules.batch_size]]
        loss, coefficient = _train_step(tunable, language_model, batch, rules, updater, step)
        window.append(loss)
        if at is not None:
            at(step + 1, rules.steps)
        if (step + 1) % rules.evaluate_every and step + 1 != rules.steps:
            continue
        answers = None if select is None else answer(tunable, language_model, select, rules.max_batch_tokens)
        score = None if answers is None else (answers.accuracy(rules.predict_over), -answers.loss())
        curve.append(
            CurvePoint(
                step + 1,
                float(np.mean(window)),
                None if score is None else score[0],
                None if score is None else -score[1],
                coefficient,
            )
        )
        window = []
        if score is None or best is None or score > best:
            best, chosen, weights = score, step + 1, _snapshot(parameters)
    _restore(parameters, weights)
    found = {
        name: answer(tunable, language_model, test, rules.max_batch_tokens) for name, test in tests.items()
    }
    return TunedCell(found, tuple(curve), chosen, weights)


def example_order(count: int, needed: int, seed: int) -> list[int]:
    """`needed` indices: full permutations of `count` one after the other, a pure function of the seed."""
    generator = np.random.default_rng([seed, _ORDER_STREAM])
    rounds = -(-needed // count)
    return np.concatenate([generator.permutation(count) for _ in range(rounds)])[:needed].tolist()


def _train_step(
    tunable: Tunable,
    language_model: LanguageModel,
    examples: Sequence[PromptExample],
    rules: TrainRules,
    updater: Updater,
    step: int,
) -> tuple[float, float | None]:
    """One optimizer step: gradients over micro-batches, psi, clipping, update."""
    language_model.model.train(rules.dropout)
    total, states = 0.0, None
    for batch, _ in _batches(tunable, language_model, examples, rules.max_batch_tokens):
        logits, state = tunable.logits(batch)
        loss = target_loss(logits, batch).sum() / len(examples)
        loss.backward()
        total += float(loss.detach())
        if state is not None:
            part = state.sum(dim=0) / len(examples)
            states = part if states is None else states + part
    language_model.model.eval()
    if not np.isfinite(total):
        raise ModelError(
            "tuning",
            f"the training loss is {total} at step {step}",
            "lower tuning.train.optimizer.learning_rate",
        )
    coefficient = tunable.regularize(states)
    updater.apply(step)
    return total, coefficient


def answer(
    tunable: Tunable, language_model: LanguageModel, data: LabelledSet, max_batch_tokens: int
) -> LabelScores:
    """Scores of all verbalizers on a set, in its order."""
    language_model.model.eval()
    position = 1 if language_model.is_seq2seq else 0
    nll = torch.empty(len(data.examples), len(data.label_ids))
    top = torch.empty(len(data.examples), dtype=torch.long)
    with torch.no_grad():
        for batch, rows in _batches(tunable, language_model, data.examples, max_batch_tokens):
            logits = tunable.logits(batch)[0][:, position]
            nll[rows] = -torch.log_softmax(logits, dim=-1)[:, list(data.label_ids)].cpu()
            top[rows] = logits.argmax(dim=-1).cpu()
    return LabelScores(nll, top, data.labels, data.label_ids)


def _batches(
    tunable: Tunable, language_model: LanguageModel, examples: Sequence[PromptExample], max_tokens: int
) -> list[tuple[PromptBatch, list[int]]]:
    lengths = [tunable.virtual_tokens + len(example.input_ids) for example in examples]
    padding = pad_id(language_model.tokenizer.pad_token_id)
    return [
        (collate([examples[i] for i in rows], pad_id=padding, device=language_model.device), rows)
        for rows in bucket_by_length(lengths, max_tokens)
    ]


def _snapshot(parameters: Sequence[tuple[str, torch.nn.Parameter]]) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in parameters}


def _restore(parameters: Sequence[tuple[str, torch.nn.Parameter]], weights: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in parameters:
            parameter.copy_(weights[name])
