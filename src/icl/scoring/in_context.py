"""The cells of the in-context methods, for the driver: what ranking options and generating answers have in common."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from statistics import fmean

from metashot.base.errors import ConfigError
from metashot.data.rows.apart import content_digest
from metashot.data.task import TaskData
from metashot.data.tasks.source import TaskSource
from metashot.engine.cells.family import CellKey, Family, Names, Work
from metashot.engine.cells.prompts import CellPrompt
from metashot.engine.cells.results import Result, with_cut_inputs
from metashot.engine.metrics.classification import AnyMetric
from metashot.engine.models.loading import LazyLanguageModel
from metashot.engine.scoring.dealing import deal
from metashot.engine.scoring.request import MakeScorer
from metashot.icl.scoring.cell import Cell, PromptRules, border_notes, build_cell, cut_note, shown_note
from metashot.icl.scoring.cell_data import cell_key, load_cells, shared_identity
from metashot.icl.scoring.evaluation_settings import EvaluateSettings, prompt_rules
from metashot.icl.scoring.preview import cell_prompt


class InContextCells(Family):
    """Cells (task, seed) whose test examples are answered after their demonstrations.

    Args:
        settings: what to evaluate.
        source: the tasks' data.
        model: its weights are loaded when the first rows have to be computed.
    """

    make_scorer: MakeScorer | None = None
    """What scores options, for families that do."""
    without_weights: bool = False
    """Set for a plan: nothing may load the model."""

    def __init__(self, settings: EvaluateSettings, source: TaskSource, model: LazyLanguageModel) -> None:
        self.names = Names(settings.setting, settings.method.name, model.name)
        self.settings, self.source, self.model = settings, source, model
        self.rules = prompt_rules(settings, model)
        self._data: dict[CellKey, TaskData] = {}
        self._built: tuple[Work, Cell] | None = None
        self._at_borders: dict[str, None] = {}

    def work(self) -> Sequence[Work]:
        """A work for each cell.

        Raises:
            DataError, ConfigError: bad data, see `load_cells`.
        """
        shared = shared_identity(self.settings, self.rules, self.model, self.make_scorer)
        self._data = {
            cell_key(data, self.rules, shared): data for data in load_cells(self.settings, self.source)
        }
        return [Work((key,), key.n) for key in self._data]

    def data(self, work: Work) -> TaskData:
        """The examples of a cell."""
        return self.data_of(work.cells[0])

    def data_of(self, key: CellKey) -> TaskData:
        """The examples of a cell, by its key."""
        return self._data[key]

    def cell(self, work: Work) -> Cell:
        """The prompts of a cell, written once while it is in work.

        Raises:
            DataError, ConfigError: see `build_cell`.
        """
        if self._built is None or self._built[0] != work:
            data = self.data(work)
            self._built = work, self.build(data)
            self._at_borders |= dict.fromkeys(border_notes(data.task, self._built[1], self.prompt_rules))
        return self._built[1]

    def build(self, data: TaskData) -> Cell:
        """The prompts of a cell.

        Raises:
            ConfigError: a choice that is left to the model, of a method that ranks no options.
        """
        if data.choice is not None:
            raise ConfigError(
                "selection",
                f"{data.choice.rule.value} has the model choose by the scores of options, and {self.names.method} ranks none",
                "use method=direct or channel, or another selection and order",
            )
        return build_cell(data, self.model.encode, self.prompt_rules)

    @cached_property
    def prompt_rules(self) -> PromptRules:
        """By which prompts are written."""
        return self.rules

    def unshared_tokens(self, work: Work) -> int | None:
        """Tokens that a method computes which runs its prompts one by one; None for those that share prefixes."""
        del work
        return None

    def pieces(self, work: Work, least: int) -> Sequence[Sequence[int]]:
        """Test examples in pieces, see `deal`."""
        return dealt(self.cell(work), least)

    def prompt(self, key: CellKey, result: Result) -> CellPrompt | None:
        """The demonstrations that every prompt held, and the test inputs."""
        return cell_prompt(self._data[key], self.rules, result.shown_least)

    def texts(self, work: Work, row: int) -> Sequence[tuple[str, str]] | None:
        """(context, target) of a row's requests as a task of its own wrote them; None where the run's format writes."""
        del work, row
        return None

    def notes(self, results: Sequence[Result]) -> Sequence[str]:
        """What there is to say of the format, of the data, of inputs that were cut and of dropped demonstrations."""
        limits, prompt = self.settings.prompt.limits, self.rules.prompt
        on_data = (note for data in self._data.values() for note in (*data.notes, *prompt.notes_on(data)))
        notes = dict.fromkeys((*prompt.notes, *on_data, *self._at_borders))
        cut = [
            cut_note(one.task, one.cut_inputs, one.n, one.cut_tokens, limits)
            for one in with_cut_inputs(results)
        ]
        return [*notes, *cut, *shown_notes(results)]

    def result(self, work: Work, metric: AnyMetric, value: float) -> Result:
        """The line of a cell in `results.jsonl`."""
        key, data, cell = work.cells[0], self.data(work), self.cell(work)
        return Result(
            setting=self.names.setting,
            method=self.names.method,
            model=self.names.model,
            task=key.task,
            seed=key.seed,
            k=data.shots,
            metric=metric.value,
            value=value,
            n=len(data.test),
            fingerprint=key.fingerprint,
            test_digest=content_digest(data),
            cut_inputs=sum(tokens > 0 for tokens in cell.lost),
            cut_tokens=sum(cell.lost),
            shown_mean=cell.shown_mean,
            shown_least=cell.shown_least,
            sampled_from=data.sampled_from,
        )


def dealt(cell: Cell, least: int = 1) -> list[list[int]]:
    """The test examples of a cell in pieces that are scored one by one, see `deal`."""
    rows = range(len(cell.lost))
    return deal([[cell.requests[place] for place in cell.places([row])] for row in rows], least)


def shown_notes(results: Sequence[Result]) -> list[str]:
    """One sentence for each task of which some prompt held fewer than k demonstrations."""
    tasks: dict[str, list[Result]] = {}
    for result in results:
        if result.shown_least is not None and result.shown_mean is not None:
            tasks.setdefault(result.task, []).append(result)
    return [
        shown_note(
            task,
            rows[0].k,
            fmean(one.shown_mean or 0 for one in rows),
            min(one.shown_least or 0 for one in rows),
        )
        for task, rows in tasks.items()
        if any((one.shown_least or 0) < one.k for one in rows)
    ]
