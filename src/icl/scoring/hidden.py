"""Hidden calibration (Cho et al. 2024): the answer whose centroid of states the test input's state is nearest to.

Token probabilities read the state at the answer along a few vocabulary directions that nobody chose for the task. The
mean state of labelled examples of each answer, behind the same demonstrations, is a direction that is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from metashot.base.errors import ConfigError
from metashot.data.task import TaskData
from metashot.engine.cells.family import Meter, Work
from metashot.engine.metrics.classification import Floats
from metashot.engine.scoring.request import StatesScorer
from metashot.icl.scoring.cell import Cell, OptionScores, read_rows
from metashot.icl.scoring.ranking import RankedCells


class HiddenCells(RankedCells):
    """Cells whose test examples are ranked by the distance of their state to each answer's centroid."""

    def pieces(self, work: Work, least: int) -> Sequence[Sequence[int]]:
        """All rows at once: centroids are everyone's."""
        del least
        return [range(work.rows)]

    def build(self, data: TaskData) -> Cell:
        """The prompts of the test examples; a plan counts those of the labelled examples too."""
        return super().build(replace(data, test=data.test + data.labelled) if self.without_weights else data)

    def compute(self, work: Work, rows: Sequence[int], meter: Meter) -> Sequence[Any]:
        """The scores of each row's options as `RankedCells` has them, and the distances by which they are ranked.

        Raises:
            ConfigError: a scorer that gives no states.
        """
        scorer = self._scorer
        if not isinstance(scorer, StatesScorer):
            raise ConfigError(
                "scorer", f"{type(scorer).__name__} gives no states", "use scorer=prefix or scorer=plain"
            )
        data, cell = self.data(work), self.cell(work)
        learned = self.build(replace(data, test=data.labelled))
        requests = (*cell.requests, *learned.requests)
        scores, states = scorer.score_with_states(requests, meter.at)
        values = states.double().numpy()
        own = values[[one[0] for one in cell.index[0]]]
        shown = values[[len(cell.requests) + one[0] for one in learned.index[0]]]
        centroids = centroids_of(shown, [example.output for example in data.labelled])
        found = read_rows(cell, rows, [scores[place] for place in cell.places(rows)])
        meter.cost.tokens_naive += sum(request.length for request in requests)
        self._count(requests, meter)
        return [
            asdict(answer) | {"nll": distances(own[row], centroids, data.test[row].options)}
            for row, answer in zip(rows, found, strict=True)
        ]

    def ranked(self, answers: Sequence[Any], scores: Sequence[OptionScores]) -> list[list[float]]:
        """The distances."""
        del scores
        return [list(answer["nll"]) for answer in answers]


def centroids_of(states: Floats, answers: Sequence[str]) -> dict[str, Floats]:
    """Mean state [d] of each answer.

    Args:
        states: [n, d].
        answers: [n] of the examples that they belong to.
    """
    names = np.array(answers)
    return {name: states[names == name].mean(axis=0) for name in dict.fromkeys(answers)}


def distances(state: Floats, centroids: Mapping[str, Floats], options: Sequence[str]) -> list[float]:
    """Euclidean distance of a state [d] to each option's centroid."""
    return [float(np.linalg.norm(state - centroids[option])) for option in options]
