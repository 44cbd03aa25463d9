"""Task vectors (Hendel et al. 2023): the state that demonstrations leave at the answer, in a prompt without them.

The vector of a layer is its mean output at the answer, over prompts that end in a training input behind the
demonstrations. Test examples are then scored without demonstrations, with the vector in the place of that layer's output
at the answer. The layer, unless it is given, is the one that answers most of the labelled training examples so (the
first of equal ones).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from metashot.base.errors import ConfigError
from metashot.data.task import Example, TaskData
from metashot.engine.cells.family import Meter, Work
from metashot.engine.metrics.ranking import best_option
from metashot.engine.scoring.makers import loads_itself
from metashot.engine.scoring.request import Request
from metashot.icl.prompting.state_methods import TaskVectorMethod
from metashot.icl.scoring.cell import Cell, build_cell, ranking_scores, read_back, read_rows
from metashot.icl.scoring.ranking import RankedCells

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class TaskVectorCells(RankedCells):
    """Cells whose test examples are scored without demonstrations, with the task vector of these."""

    def pieces(self, work: Work, least: int) -> Sequence[Sequence[int]]:
        """All rows at once: the vector is everyone's."""
        del least
        return [range(work.rows)]

    def unshared_tokens(self, work: Work) -> int:
        """Prompts of the labelled examples behind demonstrations, and prompts without them.

        These are the test examples' once, and the labelled examples' for every layer that is tried.
        """
        data, method = self.data(work), self.settings.method
        assert isinstance(method, TaskVectorMethod)
        shown = super().build(replace(data, test=data.labelled))
        vectors = sum(len(shown.requests[row[0]].context) for row in shown.index[0])
        config: Any = self.model.spec.read_sizes()
        tried = 0 if method.layer else int(config.get_text_config().num_hidden_layers)
        return (
            vectors
            + _tokens(self._bare(data, data.test).requests)
            + tried * _tokens(self._bare(data, data.labelled).requests)
        )

    def compute(self, work: Work, rows: Sequence[int], meter: Meter) -> Sequence[Any]:
        """The scores of each row's options, as the mapping of an `OptionScores`.

        Raises:
            ConfigError: an engine of its own holds the weights, no demonstrations, or a layer that the model lacks.
        """
        from metashot.engine.scoring.states import layer_states, score_with_state

        data, method = self.data(work), self.settings.method
        assert isinstance(method, TaskVectorMethod)
        if loads_itself(self._make_scorer):
            raise ConfigError(
                "scorer", "holds the weights elsewhere, and states are put in", "use scorer=prefix"
            )
        if not data.demonstrations:
            raise ConfigError("k", "is 0, but a task vector is made of demonstrations", "set k=1 or more")
        model = self.model.load().model
        shown = self.build(replace(data, test=data.labelled))
        places = [shown.requests[one[0]] for one in shown.index[0]]
        vectors = layer_states(model, places).mean(dim=0)
        layer = method.layer or self._best_layer(model, data, vectors)
        if layer > len(vectors):
            raise ConfigError("method.layer", f"{layer}, but the model has {len(vectors)} layers", "lower it")
        cell = self._bare(data, data.test)
        scores = score_with_state(model, cell.requests, layer, vectors[layer - 1])
        meter.cost.route = "plain"
        meter.cost.tokens_computed += self.unshared_tokens(work)
        meter.cost.tokens_naive += self.unshared_tokens(work)
        return [asdict(answer) for answer in read_rows(cell, rows, [scores[at] for at in cell.places(rows)])]

    def _bare(self, data: TaskData, rows: Sequence[Example]) -> Cell:
        """Prompts without demonstrations."""
        bare = replace(data, demonstrations=(), test=tuple(rows))
        return build_cell(bare, self.model.encode, self.prompt_rules)

    def _best_layer(self, model: PreTrainedModel, data: TaskData, vectors: Tensor) -> int:
        """The layer whose vector answers most labelled examples, 1 for the first."""
        from metashot.engine.scoring.states import score_with_state

        cell = self._bare(data, data.labelled)
        right: list[int] = []
        for layer in range(1, len(vectors) + 1):
            scores = score_with_state(model, cell.requests, layer, vectors[layer - 1])
            ranked = ranking_scores(read_back(cell, scores), self.settings.method)
            chosen = [
                example.options[best_option(row)] for example, row in zip(data.labelled, ranked, strict=True)
            ]
            right.append(
                sum(one == example.output for one, example in zip(chosen, data.labelled, strict=True))
            )
        return 1 + max(range(len(right)), key=lambda place: (right[place], -place))


def _tokens(requests: Sequence[Request]) -> int:
    return sum(request.length for request in requests)
