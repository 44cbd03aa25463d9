"""A scoring method as a composition of orthogonal choices; one file of `conf/method` each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import PlainValidator

from metashot.base.components.choices import named
from metashot.base.errors import ConfigError
from metashot.base.identity import NoEffect
from metashot.base.value_kinds import Line, Name, Positive, Signed
from metashot.data.task import TaskData
from metashot.engine.metrics.rules import CONTENT_FREE, Calibration, Normalization
from metashot.engine.metrics.rules import calibration as find_calibration
from metashot.engine.metrics.rules import normalization as find_normalization
from metashot.icl.prompting.prompt import Layout, Objective, choose_layout


@dataclass(frozen=True, slots=True)
class Method:
    """How options are scored."""

    name: Annotated[Name, NoEffect("what results carry")]
    """The name that results carry."""
    objective: Objective = Objective.DIRECT
    """Direct or channel."""
    demonstrations: bool = True
    """False for the zero-shot methods, which ignore k."""
    calibration: Annotated[Calibration, PlainValidator(find_calibration)] = Calibration.NONE
    """What option scores are compared with."""
    null_inputs: tuple[str, ...] = field(default=())
    """Content-free inputs of the calibration, in place of the test input; for `domain` the premise."""
    calibration_inputs: Positive = 16
    """Most inputs that a calibration averages over which takes, makes or writes its own."""
    probes: bool = False
    """Score content-free inputs and random words of the task beside, for the report's diagnosis; no answer changes."""
    normalization: Annotated[Normalization, PlainValidator(find_normalization)] = Normalization.TOKEN_MEAN
    """What summed NLLs are divided by."""
    layout: Literal["auto", "newline", "space"] = "auto"
    """`auto` applies the released rule, or `newline` / `space`."""
    trained: bool = False
    """True for models meta-trained with this method."""
    title: Annotated[Line, NoEffect("what tables show")] = ""
    """Name in tables; empty is `name`."""
    row: Annotated[Signed, NoEffect("where tables show it")] = 100
    """Place among the rows of a table."""

    def __post_init__(self) -> None:
        """Find rules that are given by their names, and refuse contradictions.

        Raises:
            ConfigError: no such rule, a calibration without a null input, or one that channel scoring has no use for.
        """
        object.__setattr__(self, "calibration", find_calibration(self.calibration))
        object.__setattr__(self, "normalization", find_normalization(self.normalization))
        rule = self.calibration
        plain = rule is Calibration.NONE and not self.null_inputs and self.objective is Objective.DIRECT
        if self.probes and not (plain and self.ranks_options):
            raise ConfigError(
                "method.probes",
                f"goes with ranked options, the direct objective and no calibration, got {self.objective.value!r} and "
                f"{rule.name!r} in {self.name!r}",
                "set it for method=direct; the report shows its answers under every calibration",
            )
        if rule.inputs is not None and self.null_inputs:
            source = "inputs that the model writes" if rule.written else "unlabelled training inputs"
            raise ConfigError(
                "method.null_inputs",
                f"calibration {rule.name!r} takes {source}, got {len(self.null_inputs)} strings",
                "leave the list empty, or use method.calibration=contextual",
            )
        if rule.inputs is None and len(self.null_inputs) < rule.fewest:
            raise ConfigError(
                "method.null_inputs",
                f"calibration {rule.name!r} has no content-free input",
                "give a list of strings, for example ['N/A']",
            )
        if rule.needs_null_inputs and rule.most is not None and len(self.null_inputs) > rule.most:
            raise ConfigError(
                "method.null_inputs",
                f"calibration {rule.name!r} takes one string, got {len(self.null_inputs)}",
                "give one, or use method.calibration=contextual",
            )
        if rule.needs_null_inputs and self.objective is Objective.CHANNEL:
            raise ConfigError(
                "method.calibration",
                f"{rule.name!r} replaces the test input, which is the target of the channel objective",
                "use method.objective=direct, or method.calibration=none",
            )
        if rule.written and not self.demonstrations:
            raise ConfigError(
                "method.calibration",
                f"{rule.name!r} has the model write inputs after demonstrations, and {self.name!r} shows none",
                "set method.demonstrations=true, or use method.calibration=contextual",
            )

    @property
    def content_free(self) -> tuple[str, ...]:
        """Inputs in place of the test input that are scored besides those that a cell holds."""
        return CONTENT_FREE if self.probes else self.null_inputs

    def shots(self, k: int) -> int:
        """Demonstrations in the prompt when `k` are asked for."""
        return k if self.demonstrations else 0

    @property
    def ranks_options(self) -> bool:
        """Whether a task needs options."""
        return True

    @property
    def labelled_rows(self) -> int:
        """Most labelled training examples of each answer that the method learns from, besides the demonstrations."""
        return 0

    def prompted(self, data: TaskData) -> TaskData:
        """The cell as its prompts are written."""
        return data

    def layout_for(self, model_name: str) -> Layout:
        """The layout used with a model of this name."""
        if self.layout == "auto":
            return choose_layout(model_name, trained=self.trained)
        return Layout(self.layout)


def named_method(name: str) -> Method:
    """The in-context method that a file of `conf/method` makes.

    Raises:
        ConfigError: no such file, or one of a method that tunes prompts.
    """
    method = named("method", name)
    if not isinstance(method, Method):
        raise ConfigError(
            "method", f"{name!r} does not score options in context", "tune it with stage=evaluate"
        )
    return method
