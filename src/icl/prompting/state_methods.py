"""Methods that read hidden states: `icl.scoring.hidden` and `icl.scoring.task_vector` compute them."""

from __future__ import annotations

from dataclasses import dataclass

from metashot.base.errors import ConfigError
from metashot.base.value_kinds import Positive
from metashot.engine.metrics.rules import Calibration
from metashot.icl.prompting.methods import Method
from metashot.icl.prompting.prompt import Objective


@dataclass(frozen=True, slots=True)
class StatesMethod(Method):
    """A method that reads hidden states and learns from labelled training examples."""

    per_label: Positive = 16
    """Most labelled training examples of each answer, none of which is a demonstration."""

    def __post_init__(self) -> None:
        """Refuse what states say nothing of.

        Raises:
            ConfigError: the channel objective, or a calibration of scores.
        """
        Method.__post_init__(self)
        if self.objective is Objective.CHANNEL or self.calibration is not Calibration.NONE:
            raise ConfigError(
                "method",
                f"{self.name!r} reads states at the answer, objective {self.objective.value!r} and calibration "
                f"{self.calibration.name!r} do not go with it",
                "use method.objective=direct and method.calibration=none",
            )

    @property
    def labelled_rows(self) -> int:
        """As `per_label` says."""
        return self.per_label


@dataclass(frozen=True, slots=True)
class HiddenMethod(StatesMethod):
    """Nearest centroid of the states at the answer."""


@dataclass(frozen=True, slots=True)
class TaskVectorMethod(StatesMethod):
    """A layer's state after demonstrations in the place of the demonstrations."""

    layer: Positive | None = None
    """Layer behind which the vector is taken and put, 1 for the first; null tries all on the labelled examples."""
