"""Components of one's own: a data module, a scorer, a scoring rule, a logger, methods and a family, each a few lines.

`conf/` beside this file makes them choices: see README.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from metashot.base.json_text import digest_of
from metashot.data.task import Example, TaskData, TaskType
from metashot.data.tasks.modules import DataModule
from metashot.engine.cells.family import CellKey, Family, Meter, Names, Work
from metashot.engine.cells.results import FinishedCell, Prediction, Result
from metashot.engine.metrics.rules import Lengths, Normalization
from metashot.engine.scoring.request import Request
from metashot.engine.tracking.tracker import NoTracker, RunLabel
from metashot.icl.prompting.methods import Method
from metashot.icl.prompting.prompt import Objective
from metashot.metaprompt.tuning.config import PromptMethod

if TYPE_CHECKING:
    from metashot.stages.context import RunContext

TASK = "parity"


class ParitySource:
    """Numbers and whether they are even: what evaluation asks of a source."""

    name = "parity"

    def __init__(self, size: int) -> None:
        self.size = size

    def tasks(self) -> list[str]:
        """The one task."""
        return [TASK]

    def load(self, task: str, *, k: int, seed: int, split: str = "test") -> TaskData:
        """K demonstrations drawn by the seed; the test numbers do not depend on it."""
        drawn = np.random.default_rng(seed).integers(100, 1000, size=k)
        demonstrations = tuple(_example(int(number)) for number in drawn)
        return TaskData(
            task, seed, TaskType.CLASSIFICATION, demonstrations, tuple(map(_example, range(self.size)))
        )

    def pool(self, task: str, *, size: int = 16384, seed: int = 100) -> list[Example]:
        """Numbers for meta-training."""
        return [_example(number) for number in range(1000, 1000 + min(size, 9000))]


def _example(number: int) -> Example:
    return Example(TASK, f"Number: {number}", ("even", "odd")[number % 2], ("even", "odd"))


@dataclass(frozen=True)
class ParityData:
    """The data module: `data=parity`.

    Attributes:
        size: test numbers.
        name: what results carry.
        tasks: which tasks; None for all.
    """

    size: int = 20
    name: str = "parity"
    tasks: list[str] | None = None

    def open(self) -> ParitySource:
        """The source itself."""
        return ParitySource(self.size)

    def targets(self, source: ParitySource) -> list[str]:
        """Tasks to evaluate."""
        return source.tasks()

    def training(self, source: ParitySource) -> list[str]:
        """Tasks to train on."""
        return []


class UniformScorer:
    """The scorer: every token costs the same, whatever the model says. A baseline that no model can fall below twice.

    Args:
        model: a transformers model; only the size of its vocabulary is used.
        scale: nats of a token are `scale * log(vocabulary)`.
    """

    def __init__(self, model: Any, scale: float = 1.0) -> None:
        self.nats = scale * math.log(model.config.vocab_size)

    def score(self, requests: Sequence[Request], on_progress: object = None) -> list[torch.Tensor]:
        """Per request the log-probabilities of its scored tokens, in nats."""
        return [torch.full((request.scored,), -self.nats) for request in requests]


def root_tokens() -> Normalization:
    """The scoring rule: summed NLL over the square root of the number of tokens."""

    def length(lengths: Lengths) -> np.ndarray:
        return np.sqrt(lengths.tokens)

    return Normalization("root_tokens", "square root of the scored target tokens", length)


class LinesLogger(NoTracker):
    """The logger: one line for each final figure, and how the run ended. What it does not override is dropped.

    Args:
        label: how the run is called.
        config: the resolved config.
        folder: the run's folder.
    """

    def __init__(self, label: RunLabel, config: Mapping[str, object], *, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "figures.txt"
        self._lines = [label.name]

    def summary(self, values: Mapping[str, object]) -> None:
        """Keep the final values."""
        self._lines += [f"{name}: {value}" for name, value in values.items()]

    def finish(self, status: str) -> None:
        """Write the file."""
        self._path.write_text("\n".join([*self._lines, status, ""]))


def first_guess(name: str, normalization: Normalization, shots: bool = False) -> Method:
    """The method: channel scoring under any rule, without demonstrations unless told otherwise."""
    return Method(name, Objective.CHANNEL, demonstrations=shots, normalization=normalization)


@dataclass(frozen=True)
class OwnTuning(PromptMethod):
    """The tuning method: prompt tuning under a name of one's own. A subclass of `Method` likewise scores in context."""


@dataclass(frozen=True)
class MajorityMethod:
    """The family: no model at all, every test example gets the most frequent answer of the demonstrations.

    Attributes:
        name: what results carry.
    """

    name: str = "majority"

    def cells(self, run: RunContext) -> MajorityCells:
        """Its cells in this run."""
        return MajorityCells(run.config.data, run.config.k, run.config.seeds)


class MajorityCells(Family):
    """What the driver asks for: what there is to do, the answers of some rows, and a finished cell.

    Args:
        data: the data module.
        k: demonstrations.
        seeds: demonstration seeds.
    """

    def __init__(self, data: DataModule, k: int, seeds: Sequence[int]) -> None:
        self.names = Names(data.name, "majority", "none")
        source = data.open()
        self._data = {
            self._key(cell): cell
            for task in data.targets(source)
            for seed in seeds
            for cell in (source.load(task, k=k, seed=seed),)
        }

    @staticmethod
    def _key(data: TaskData) -> CellKey:
        decides = {
            "family": "majority, 1",
            "cell": [asdict(one) for one in (*data.demonstrations, *data.test)],
        }
        return CellKey(data.task, data.seed, digest_of(decides), len(data.test))

    def work(self) -> Sequence[Work]:
        """A work for each (task, seed)."""
        return [Work((key,), key.n) for key in self._data]

    def compute(self, work: Work, rows: Sequence[int], meter: Meter) -> Sequence[str]:
        """The answer of each row."""
        outputs = [example.output for example in self._data[work.cells[0]].demonstrations]
        return [max(outputs, key=outputs.count)] * len(rows)

    def finish(self, work: Work, answers: Sequence[str]) -> Sequence[FinishedCell]:
        """Predictions and their share of right ones."""
        (key,) = work.cells
        data, k = self._data[key], len(self._data[key].demonstrations)
        rows = [
            Prediction(
                key.task, key.seed, index, one.output, answer, (), (), (), (), (), (), (), (), key.fingerprint
            )
            for index, (one, answer) in enumerate(zip(data.test, answers, strict=True))
        ]
        value = sum(row.gold == row.prediction for row in rows) / len(rows)
        result = Result(
            self.names.setting, self.names.method, self.names.model, key.task, key.seed, k, "accuracy", value, key.n,
            key.fingerprint, shown_mean=float(k), shown_least=k,
        )  # fmt: skip
        return [FinishedCell(result, tuple(rows))]
