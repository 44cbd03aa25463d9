"""What is scored: token ids of a context and of the target that follows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from metashot.base.errors import ConfigError
from metashot.engine.models.sizes import context_length

if TYPE_CHECKING:
    from torch import Tensor

Progress = Callable[[int, int], None]
"""Called with (tokens done, tokens in all) after each batch."""


@dataclass(frozen=True, slots=True)
class Request:
    """One target to score after one context.

    A decoder predicts a token from the tokens before it. So the first target token after an *empty* context
    has no prediction and is not scored (as in the released code, which shifts labels by one), and a request
    may have no scored token at all.

    Attributes:
        context: ids that are only read.
        target: ids whose log-probabilities are wanted.
    """

    context: tuple[int, ...]
    target: tuple[int, ...]

    @property
    def length(self) -> int:
        """Tokens of context and target."""
        return len(self.context) + len(self.target)

    @property
    def scored(self) -> int:
        """Number of target tokens with a predecessor."""
        return max(len(self.target) - (not self.context), 0)


class Scorer(Protocol):
    """Anything that scores requests."""

    def score(self, requests: Sequence[Request], on_progress: Progress | None = None) -> list[Tensor]:
        """Per request a float32 CPU tensor [request.scored] of target log-probabilities in nats."""
        ...


@runtime_checkable
class SharingScorer(Scorer, Protocol):
    """A scorer that tells how it scores, and how much sharing leaves to compute."""

    @property
    def route(self) -> str:
        """The way that it takes."""
        ...

    @property
    def reason(self) -> str | None:
        """Why it takes no faster one; None for the fastest."""
        ...

    def tokens_computed(self, requests: Sequence[Request]) -> int:
        """Tokens of these requests that run through the model."""
        ...


@runtime_checkable
class CheckedScorer(Scorer, Protocol):
    """A scorer that can hold what it said to a few requests alone."""

    def check(self, requests: Sequence[Request], scores: Sequence[Tensor]) -> float:
        """The largest difference found, in nats at any token.

        Raises:
            ModelError: it is more than rounding.
        """
        ...


@runtime_checkable
class StatesScorer(Protocol):
    """A scorer whose pass also gives the states at the answers."""

    def score_with_states(
        self, requests: Sequence[Request], on_progress: Progress | None = None
    ) -> tuple[list[Tensor], Tensor]:
        """Log-probabilities as `score` gives them, and float32 [requests, d]: what the head reads at each answer."""
        ...


MakeScorer = Callable[[Any], Scorer]
"""Takes a transformers model, whose class would bring torch to every command."""


class BestScorer(Protocol):
    """A way of scoring that also tells whether greedy decoding would write the target."""

    def score_with_best(
        self, requests: Sequence[Request], on_progress: Progress | None = None
    ) -> list[Tensor]:
        """Per request a float32 CPU tensor [request.scored, 2] in nats.

        Column 0 is the target token's log-probability, column 1 that of the most probable token at its place.
        """
        ...


def targets_only(scores: Sequence[Tensor]) -> list[Tensor]:
    """The targets' log-probabilities [scored] of what a `BestScorer` gives."""
    return [score[:, 0] for score in scores]


def extremes(requests: Sequence[Request]) -> list[Request]:
    """The longest request with a scored token, the shortest, and the shortest of the long ones, which is padded more."""
    scored = sorted((request for request in requests if request.scored), key=lambda request: request.length)
    if not scored:
        return []
    longest = scored[-1]
    long = next(request for request in scored if 2 * request.length > longest.length)
    return list(dict.fromkeys((longest, long, scored[0])))


def check_requests(config: Any, requests: Sequence[Request], unread: int = 0) -> None:
    """Check that every request fits the model.

    Args:
        config: the model's.
        requests: to score.
        unread: tokens at the end of a request that take no position, since they predict nothing.

    Raises:
        ConfigError: a request is longer than the model's positions, or has a token that it does not know.
    """
    limit, vocabulary = context_length(config), int(config.get_text_config().vocab_size)
    for index, request in enumerate(requests):
        if request.length - unread > limit:
            raise ConfigError(
                "k",
                f"request {index} has {len(request.context)} context and {len(request.target)} target "
                f"tokens, {request.length} in all, but the model has {limit} positions",
                "use fewer or shorter demonstrations, a truncation, or a model with a longer context",
            )
        largest = max(max(request.context, default=0), max(request.target, default=0))
        if largest >= vocabulary:
            raise ConfigError(
                "model",
                f"request {index} has token {largest}, but the model knows {vocabulary} tokens",
                "use the model's own tokenizer",
            )
