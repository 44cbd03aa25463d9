"""The keys of prompt tuning and of its methods. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal

from metashot.base.components.values import hold_to_choices
from metashot.base.errors import ConfigError
from metashot.base.identity import NoEffect
from metashot.base.value_kinds import Count, Dropout, GivenLine, Line, Name, Positive, Seed, Signed
from metashot.engine.training.config import OptimizerConfig
from metashot.metaprompt.meta.config import Rescale
from metashot.metaprompt.meta.released_behaviour import ReleasedBehaviour, released_behaviour
from metashot.metaprompt.prompt_starts import GivenStart

if TYPE_CHECKING:
    from metashot.metaprompt.backbone import Backbone
    from metashot.metaprompt.tuning.starting_point import StartingPoint
    from metashot.metaprompt.tuning.tunable import Tunable


class TuningMethod(StrEnum):
    """What is tuned; `method.tuning` in YAML."""

    SOFT_PROMPT = "soft_prompt"
    """A soft prompt, from vocabulary, random or a file."""
    SUPMER = "supmer"
    """A meta-learned soft prompt whose gradient passes the meta-learned regularizer."""
    FULL = "full"
    """All weights, no prompt."""
    PEFT_PROMPT = "peft_prompt_tuning"
    """The soft prompt through PEFT's own forward pass, for comparison."""
    PEFT_P_TUNING = "peft_p_tuning"
    """P-tuning: a small network that makes the soft prompt is trained, through PEFT."""
    LORA = "lora"
    """A LoRA adapter through PEFT."""


@dataclass(frozen=True, slots=True)
class PromptMethod:
    """A file of `conf/method` that tunes something on k examples a label."""

    name: Annotated[Name, NoEffect("what results carry")]
    """The name that results carry."""
    tuning: TuningMethod
    """What is tuned."""
    title: Annotated[Line, NoEffect("what tables show")] = ""
    """Name in tables; empty is `name`."""
    row: Annotated[Signed, NoEffect("what tables show")] = 100
    """Place among the rows of a table."""

    def tunable(
        self, settings: TuneSettings, backbone: Backbone, start: StartingPoint, seed: int
    ) -> Tunable | None:
        """What one cell trains; None for what `tuning` names. A method of one's own makes its own here."""
        del settings, backbone, start, seed
        return None


class SelectOn(StrEnum):
    """Which set chooses the step whose weights predict."""

    DEV = "dev"
    """The development set: accuracy, then loss; the earliest of equals."""
    TEST = "test"
    """The test set itself, as the released code does."""
    LAST = "last"
    """No choice: the last step."""


@dataclass(frozen=True, slots=True)
class TrainRules:
    """How a cell is trained; keys of `conf/tuning/*.yaml`."""

    steps: Positive
    """Optimizer steps."""
    batch_size: Positive
    """Examples of a step."""
    max_batch_tokens: Positive
    """Padded tokens of one forward pass."""
    evaluate_every: Positive
    """Steps between looks at the selection set."""
    select_on: SelectOn
    """Which set chooses the step whose weights predict."""
    predict_over: Literal["verbalizers", "vocabulary"]
    """Which tokens may be the answer: the verbalizers, or every token of the vocabulary (released code)."""
    dropout: bool
    """Run the model with its dropout in training."""
    optimizer: OptimizerConfig
    """With its schedule and clipping."""

    def __post_init__(self) -> None:
        """Raise ConfigError for a value outside its rule."""
        hold_to_choices(self, "tuning.train")


_ROWS = NoEffect("the task, rows and seeds of a cell are in its identity")
_START = NoEffect("what a cell starts from is in its identity by its content")


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningConfig:
    """`conf/tuning/*.yaml`; the field names are its keys."""

    setting: Annotated[Name, NoEffect("what results carry")]
    """Name of the task list in results."""
    tasks: Annotated[tuple[GivenLine, ...], _ROWS]
    """Task names or YAML files."""
    transfer: Annotated[Mapping[str, Sequence[str]], _ROWS]
    """Further test tasks of a training task, with the same labels: `{SST-2: [mr, cr]}` tunes on one, tests on all."""
    pattern: Annotated[Count, _ROWS]
    """Which pattern of each task file, 0 being the published default."""
    data_source: Annotated[Literal["folder", "hub"], _ROWS]
    """Where the rows come from: `<data_root>/<task>/{train,test}.json`, or the hub."""
    data_root: Annotated[GivenLine | None, _ROWS]
    """Folder of the task folders."""
    train_seeds: Annotated[tuple[Seed, ...], _ROWS]
    """Seeds of prompt start, order and dropout."""
    max_tokens: Positive
    """Context limit, soft prompt not counted."""
    test_limit: Count
    """Test examples per task, taken from the front; 0 takes all."""
    prompt_length: Positive
    """Virtual tokens of a new prompt."""
    prompt_init: GivenStart
    """How a new prompt starts."""
    prompt_path: Annotated[GivenLine | None, _START]
    """A checkpoint folder of meta-training, a prompt file, or None for a new prompt (supmer: the best of
    `supmer.checkpoints`)."""
    regularizer_path: Annotated[GivenLine | None, _START]
    """A checkpoint folder, a published `gradient_edit_*.pt`, or None for that of `prompt_path`."""
    rescale: Rescale | None
    """Overrides psi's rescale variant, or None."""
    lora_rank: Positive
    """Rank of LoRA."""
    lora_alpha: Positive
    """Scale of LoRA."""
    lora_dropout: Dropout
    """Dropout of LoRA."""
    train: TrainRules
    """Steps, batches, selection, optimizer."""

    def __post_init__(self) -> None:
        """Raise ConfigError for a value outside its rule."""
        hold_to_choices(self, "tuning")
        if not self.tasks or not self.train_seeds:
            raise ConfigError("tuning", "tasks or train_seeds is empty", "give at least one of each")


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneSettings(TuningConfig):
    """Everything that tuning needs besides the model.

    Attributes:
        method: name that results carry.
        tuning: what is tuned, a `TuningMethod`.
        k: training examples per label (as many again for development).
        data_seeds: seeds of the K-per-label sample.
        as_released: do all as the released code.
        switches: single oddities on or off; null follows `as_released`.
        component: the method itself, whose class, fields and source (of one of a user's own) decide.
    """

    method: Annotated[str, NoEffect("what results carry")]
    tuning: str
    k: int
    data_seeds: Annotated[tuple[int, ...], _ROWS]
    as_released: bool
    switches: Mapping[str, bool | None]
    component: PromptMethod | None = None

    def __post_init__(self) -> None:
        """Raise ConfigError for a value outside its rule or a contradiction."""
        TuningConfig.__post_init__(self)
        if self.tuning not in tuple(TuningMethod):
            raise ConfigError(
                "method.tuning", f"unknown value {self.tuning!r}", f"one of {', '.join(TuningMethod)}"
            )
        if self.tuning == TuningMethod.SUPMER and not self.prompt_path:
            raise ConfigError(
                "tuning.prompt_path",
                "is not set, but supmer starts from a meta-learned prompt",
                "run stage=train first, or give a checkpoint folder or a prompt file",
            )
        if self.k < 1 or not self.data_seeds:
            raise ConfigError("k", "k is 0 or seeds is empty", "give k >= 1 and at least one seed")

    def tested(self, rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """The test rows that are evaluated."""
        return rows[: self.test_limit or None]

    def behaviour(self) -> ReleasedBehaviour:
        """The oddities that are on."""
        return released_behaviour(self.as_released, self.switches)

    def train_rules(self) -> TrainRules:
        """Training rules, with the released selection where that oddity is on."""
        return replace(self.train, select_on=SelectOn.TEST) if self.behaviour().test_selection else self.train
