"""The family that ranks options: the model scores each, the method's rules say which is best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Any

from metashot.data.task import TaskData
from metashot.data.tasks.source import TaskSource
from metashot.engine.cells.family import CellKey, Meter, Work
from metashot.engine.cells.prompts import CellPrompt
from metashot.engine.cells.results import FinishedCell, Prediction, Result
from metashot.engine.generation.request import Generator
from metashot.engine.metrics.classification import metric_of, score
from metashot.engine.metrics.ranking import OptionCounts, best_option
from metashot.engine.models.loading import LazyLanguageModel
from metashot.engine.scoring.makers import generator_of, loads_itself, scorer_of
from metashot.engine.scoring.request import CheckedScorer, MakeScorer, Request, Scorer, SharingScorer
from metashot.icl.scoring.cell import Cell, OptionScores, ranking_scores, read_rows
from metashot.icl.scoring.evaluation_settings import EvaluateSettings
from metashot.icl.scoring.in_context import InContextCells
from metashot.icl.scoring.model_choice import chosen, first_choice
from metashot.icl.scoring.preview import cell_prompt
from metashot.icl.scoring.written_inputs import needs_written_inputs, with_stand_ins, with_written_inputs

if TYPE_CHECKING:
    from torch import Tensor

_WRITTEN_AT_ONCE = 16
"""Inputs that the model writes at a time."""


class RankedCells(InContextCells):
    """Cells whose test examples choose one of their options.

    Args:
        settings: what to evaluate.
        source: the tasks' data.
        model: loaded when the first rows have to be computed.
        make_scorer: the scoring engine for the loaded model.
    """

    def __init__(
        self,
        settings: EvaluateSettings,
        source: TaskSource,
        model: LazyLanguageModel,
        make_scorer: MakeScorer,
    ) -> None:
        super().__init__(settings, source, model)
        self._make_scorer = self.make_scorer = make_scorer
        self._chosen: dict[tuple[str, int], TaskData] = {}
        self._first: list[Sequence[Request]] = []

    def build(self, data: TaskData) -> Cell:
        """The prompts of a cell, with what the model chooses for them, or writes for a calibration."""
        rules, encode = self.prompt_rules, self.model.encode
        if data.choice is not None and self.without_weights:
            data = first_choice(data)
        elif data.choice is not None:
            place = data.task, data.seed
            data = self._chosen[place] = chosen(data, rules, self._scored_first, encode)
        if needs_written_inputs(data, rules):
            if self.without_weights:
                data = with_stand_ins(data, rules)
            else:
                data = with_written_inputs(data, rules, self._generator, encode)
        return super().build(data)

    @cached_property
    def _scorer(self) -> Scorer:
        """Made when the first rows are scored."""
        return scorer_of(self._make_scorer, self.model)

    @cached_property
    def _generator(self) -> Generator:
        """The engine that scores where it writes too, so that there is one of it; else the loaded model."""
        if loads_itself(self._make_scorer) and isinstance(self._scorer, Generator):
            return self._scorer
        return generator_of(self._make_scorer, self.model, _WRITTEN_AT_ONCE)

    def _scored_first(self, requests: Sequence[Request]) -> list[Tensor]:
        """Scores by which the model chooses; their tokens are counted with those of the cell."""
        self._first.append(requests)
        return self._scorer.score(requests)

    def prompt(self, key: CellKey, result: Result) -> CellPrompt | None:
        """See `InContextCells`; None where the model chose in an earlier run, and what is not kept."""
        data = self.data_of(key)
        if data.choice is None:
            return super().prompt(key, result)
        made = self._chosen.get((key.task, key.seed))
        return None if made is None else cell_prompt(made, self.rules, result.shown_least)

    def compute(self, work: Work, rows: Sequence[int], meter: Meter) -> Sequence[Any]:
        """The scores of each row's options, as the mapping of an `OptionScores`.

        Raises:
            ModelError: NaN logits, or scores that are not those of a request alone.
        """
        cell = self.cell(work)
        requests = tuple(cell.requests[place] for place in cell.places(rows))
        scores = self._scorer.score(requests, on_progress=meter.at)
        if isinstance(self._scorer, CheckedScorer):
            meter.cost.checked(self._scorer.check(requests, scores))
        answers = read_rows(cell, rows, scores)
        for first in self._first:
            meter.cost.tokens_naive += sum(request.length for request in first)
            self._count(first, meter)
        self._first.clear()
        meter.cost.tokens_naive += cell.tokens_of(rows)
        self._count(requests, meter)
        return [asdict(answer) for answer in answers]

    def _count(self, requests: Sequence[Request], meter: Meter) -> None:
        scorer, cost = self._scorer, meter.cost
        if isinstance(scorer, SharingScorer):
            cost.route, cost.route_reason = scorer.route, scorer.reason
            cost.tokens_computed += scorer.tokens_computed(requests)
        else:
            cost.route = "plain"
            cost.tokens_computed += sum(request.length for request in requests)

    def finish(self, work: Work, answers: Sequence[Any]) -> Sequence[FinishedCell]:
        """Rank the options and measure the cell."""
        data, scores = self.data(work), [_option_scores(answer) for answer in answers]
        predictions = tuple(
            predict(example.output, example.options, answer, nll, work.cells[0], index)
            for index, (example, answer, nll) in enumerate(
                zip(data.test, scores, self.ranked(answers, scores), strict=True)
            )
        )
        metric = metric_of(data.task_type, data.metric)
        value = score(metric, [row.gold for row in predictions], [row.prediction for row in predictions])
        return [FinishedCell(self.result(work, metric, value), predictions)]

    def ranked(self, answers: Sequence[Any], scores: Sequence[OptionScores]) -> list[list[float]]:
        """Scores by which options are ranked, [examples][options], lower is better: of the answers as `compute` gave them."""
        del answers
        return ranking_scores(scores, self.settings.method)


def _option_scores(answer: Any) -> OptionScores:
    """An answer as it was computed, or read again."""
    return OptionScores(
        tuple(map(tuple, answer["sum_nll"])),
        tuple(tuple(OptionCounts(**count) for count in row) for row in answer["counts"]),
    )


def predict(
    gold: str,
    options: tuple[str, ...],
    answer: OptionScores,
    nll: Sequence[float],
    key: CellKey,
    index: int,
) -> Prediction:
    """One test example's line of `predictions.jsonl`."""
    counts = answer.counts[0]
    return Prediction(
        task=key.task,
        seed=key.seed,
        index=index,
        gold=gold,
        prediction=options[best_option(nll)],
        options=options,
        nll=tuple(nll),
        sum_nll=answer.sum_nll[0],
        n_tokens=tuple(count.tokens for count in counts),
        n_chars=tuple(count.chars for count in counts),
        n_bytes=tuple(count.bytes for count in counts),
        null_sum_nll=answer.sum_nll[1:],
        null_n_tokens=tuple(tuple(count.tokens for count in row) for row in answer.counts[1:]),
        fingerprint=key.fingerprint,
    )
