"""The scoring rules: what a summed NLL is divided by, and what an option's score is compared with.

Each rule stands once, as a function of whole arrays, and is found by name; evaluation, classifier, held-out evaluation
and the report all use it from here. A rule of one's own is one more object: `register` it, or name a function that
returns it as `_target_` of `method.normalization` or `method.calibration`. A calibration of ours is a file of
`calibrations/`.

Scores are negative log-likelihoods in nats, lower is better. The last axis is the options of a test example, the
axis before it the test examples of a cell (task, seed) that have equally many options.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from metashot.base.errors import ConfigError, suggestion
from metashot.base.identity import NoEffect

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Lengths:
    """The lengths of option targets, each [examples, options].

    Attributes:
        tokens: scored target tokens.
        chars: characters of the target text.
        bytes: UTF-8 bytes of the target text.
    """

    tokens: Floats
    chars: Floats
    bytes: Floats


@dataclass(frozen=True, slots=True)
class Normalization:
    """What an option's summed NLL is divided by.

    Attributes:
        name: in configs, results and reports.
        title: one line on what it is.
        length: the divisor [examples, options].
    """

    TOKEN_MEAN: ClassVar[Normalization]
    SUM: ClassVar[Normalization]
    CHARACTERS: ClassVar[Normalization]
    BYTES: ClassVar[Normalization]

    name: str
    title: Annotated[str, NoEffect("what reports show")]
    length: Callable[[Lengths], Floats]


@dataclass(frozen=True, slots=True)
class InputsFrom:
    """Where a calibration's inputs come from, in place of strings that the method names.

    Attributes:
        name: `training` for unlabelled training inputs themselves, `written` for what the model writes; rules with one
            name are shown beside each other in reports, since one run has scored what both need.
        draw: makes inputs of a task's unlabelled training inputs: (these, how many, seed) to texts; None where the model
            writes them after the demonstrations.
        unseen: whether what a demonstration or a test example holds is left out.
    """

    name: str
    draw: Callable[[Sequence[str], int, int], Sequence[str]] | None
    unseen: bool = True


@dataclass(frozen=True, slots=True)
class Calibration:
    """What an option's score is compared with.

    Attributes:
        name: in configs, results and reports.
        title: one line on what it is.
        combine: normalized scores [examples, options] and those after each content-free input
            [n_null, examples, options] to calibrated scores [examples, options].
        fewest: content-free inputs that it needs.
        most: content-free inputs that it takes, or None for any number.
        row_from: content-free inputs from which the report shows it as a row of its own; None where another rule
            with the same numbers stands for it.
        inputs: where its inputs come from, or None for those that the method names.
    """

    NONE: ClassVar[Calibration]
    PMI: ClassVar[Calibration]
    DOMAIN: ClassVar[Calibration]
    CONTEXTUAL: ClassVar[Calibration]
    BATCH: ClassVar[Calibration]
    PRIOR: ClassVar[Calibration]
    BATCH_TRANSDUCTIVE: ClassVar[Calibration]
    PRIOR_TRANSDUCTIVE: ClassVar[Calibration]

    name: str
    title: Annotated[str, NoEffect("what reports show")]
    combine: Callable[[Floats, Floats], Floats]
    fewest: int = 0
    most: int | None = 0
    row_from: Annotated[int | None, NoEffect("which rows reports show")] = 0
    inputs: InputsFrom | None = None

    @property
    def written(self) -> bool:
        """Whether the model writes its inputs."""
        return self.inputs is not None and self.inputs.draw is None

    @property
    def needs_null_inputs(self) -> bool:
        """Whether the model must also score the options after content-free inputs."""
        return self.fewest > 0


CONTENT_FREE = ("N/A", "", "[MASK]")
"""Inputs that say nothing (Zhao et al. 2021)."""

NORMALIZATIONS: dict[str, Normalization] = {}
"""Every normalization by name."""
CALIBRATIONS: dict[str, Calibration] = {}
"""Every calibration by name."""

Rule = TypeVar("Rule", Normalization, Calibration)


def register(rule: Rule) -> Rule:
    """Make a rule known by its name.

    Raises:
        ValueError: another rule has that name.
    """
    known: dict[str, Any] = NORMALIZATIONS if isinstance(rule, Normalization) else CALIBRATIONS
    if rule.name in known:
        raise ValueError(f"a rule called {rule.name!r} is there already")
    known[rule.name] = rule
    return rule


def normalization(rule: Any) -> Normalization:
    """A rule by its name; a rule is itself.

    Raises:
        ConfigError: no such rule.
    """
    return rule if isinstance(rule, Normalization) else _find("normalization", rule, NORMALIZATIONS)


def calibration(rule: Any) -> Calibration:
    """A rule by its name; a rule is itself.

    Raises:
        ConfigError: no such rule.
    """
    return rule if isinstance(rule, Calibration) else _find("calibration", rule, CALIBRATIONS)


def _find(key: str, name: Any, known: dict[str, Rule]) -> Rule:
    if not isinstance(name, str) or name not in known:
        raise ConfigError(f"method.{key}", f"unknown rule {name!r}", suggestion(str(name), known))
    return known[name]


def log_softmax(values: Floats) -> Floats:
    """Over the options: [..., options]."""
    shifted = values - values.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def contextual(plain: Floats, nulls: Floats) -> Floats:
    """-log(p_i / p_cf_i), with p the softmax over options and p_cf its mean over content-free inputs."""
    content_free = log_softmax(-nulls)
    top = content_free.max(axis=0)
    return top + np.log(np.exp(content_free - top).mean(axis=0)) - log_softmax(-plain)


Normalization.TOKEN_MEAN = register(
    Normalization(
        "token_mean", "scored target tokens (released MetaICL code)", lambda lengths: lengths.tokens
    )
)
Normalization.SUM = register(
    Normalization(
        "sum",
        "nothing: the plain conditional probability, as the MetaICL paper writes it",
        lambda lengths: np.ones_like(lengths.tokens),
    )
)
Normalization.CHARACTERS = register(
    Normalization("characters", "characters of the target text", lambda lengths: lengths.chars)
)
Normalization.BYTES = register(
    Normalization("bytes", "UTF-8 bytes of the target text", lambda lengths: lengths.bytes)
)

Calibration.NONE = register(Calibration("none", "nothing", lambda plain, nulls: plain))
Calibration.PMI = register(
    Calibration(
        "pmi",
        "minus the score after a null input (MetaICL's PMI; the null input is a key of the method)",
        lambda plain, nulls: plain - nulls[0],
        fewest=1,
        most=1,
        row_from=1,
    )
)
Calibration.DOMAIN = register(
    Calibration(
        "domain",
        "minus the score after a domain premise (Holtzman et al. 2021, domain-conditional PMI)",
        Calibration.PMI.combine,
        fewest=1,
        most=1,
        row_from=None,
    )
)
Calibration.CONTEXTUAL = register(
    Calibration(
        "contextual",
        "divided by the mean probability after content-free inputs (Zhao et al. 2021); with one, it ranks as pmi",
        contextual,
        fewest=1,
        most=None,
        row_from=2,
    )
)


def _transductive(combine: Callable[[Floats, Floats], Floats]) -> Callable[[Floats, Floats], Floats]:
    """The rule with the cell's own test inputs in place of others: every option's scores after all of them."""

    def own(plain: Floats, nulls: Floats) -> Floats:
        del nulls
        return combine(plain, plain[:, None, :])

    return own


_ROUNDS = 100
_CLOSE = 1e-6


def _prior(plain: Floats, nulls: Floats) -> Floats:
    """Scores shifted option by option until every option has the same mean probability over the inputs `nulls`."""
    shift = np.zeros(nulls.shape[1:])
    for _ in range(_ROUNDS):
        log_p = log_softmax(-(nulls + shift))
        excess = np.log(np.exp(log_p).mean(axis=0) * nulls.shape[-1])
        shift = shift + excess
        if np.abs(excess).max() < _CLOSE:
            break
    return plain + shift


def _as_they_are(texts: Sequence[str], n: int, seed: int) -> Sequence[str]:
    """The first n."""
    del seed
    return texts[:n]


TRAINING_INPUTS = InputsFrom("training", _as_they_are)

Calibration.BATCH = register(
    Calibration(
        "batch",
        "divided by the option's mean probability over unlabelled training inputs (after Zhou et al. 2024)",
        contextual,
        fewest=1,
        most=None,
        row_from=1,
        inputs=TRAINING_INPUTS,
    )
)
Calibration.PRIOR = register(
    Calibration(
        "prior",
        "shifted so that all options have the same mean probability over unlabelled training inputs",
        _prior,
        fewest=1,
        most=None,
        row_from=1,
        inputs=TRAINING_INPUTS,
    )
)
Calibration.BATCH_TRANSDUCTIVE = register(
    Calibration(
        "batch_transductive",
        "divided by the option's mean probability over the test inputs, whose labels are not looked at (Zhou et al. 2024)",
        _transductive(contextual),
    )
)
Calibration.PRIOR_TRANSDUCTIVE = register(
    Calibration(
        "prior_transductive",
        "shifted so that all options have the same mean probability over the test inputs, labels unseen",
        _transductive(_prior),
    )
)

for _file in iter_modules([str(Path(__file__).with_name("calibrations"))]):
    import_module(f"{__package__}.calibrations.{_file.name}")
