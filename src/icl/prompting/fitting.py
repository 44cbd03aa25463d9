"""Which demonstrations fit: the prompts of a cell under the sequence limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from metashot.base.errors import ConfigError, DataError
from metashot.engine.scoring.request import Request
from metashot.icl.prompting.pieces import Prompt
from metashot.icl.prompting.prompt import Ids, LengthLimits, OverlongShots, drop_left, sequence_limit

_S = TypeVar("_S")
_T = TypeVar("_T")
OptionGrid = tuple[tuple[tuple[_T, ...], ...], ...]
"""[1 + n_null][n_test][n_options] values; the first layer is the real test input."""
MORE_ROOM = "lower k, raise prompt.max_length, or use a model with a longer context"


class Truncation(StrEnum):
    """What happens to demonstrations that do not fit."""

    SHARED = "shared"
    """Cut once per cell, so that the longest test example fits and all see the same demonstrations."""
    PER_OPTION = "per_option"
    """Released code: every (test example, option) drops its own left part."""


@dataclass(frozen=True, slots=True)
class FittedPrompt:
    """One prompt after the cut.

    Attributes:
        request: context and target.
        text: the target's text without separators.
        shown: demonstrations in front of the query, counting those that a cut of tokens may have removed.
        kept_tokens: tokens of demonstrations that are left.
        held: demonstrations that are left whole.
    """

    request: Request
    text: str
    shown: int
    kept_tokens: int
    held: int


@dataclass(frozen=True, slots=True)
class Fitting:
    """How the prompts of one cell are cut.

    Attributes:
        task: for errors.
        k: demonstrations asked for.
        limits: token limits.
        context_length: positions of the model.
        truncation: for all prompts alike, or for each by itself.
        whole: demonstrations are dropped whole instead of token by token.
        opening: tokens of the text in front of every prompt.
        begin: what stands in front of a target that nothing else precedes.
    """

    task: str
    k: int
    limits: LengthLimits
    context_length: int
    truncation: Truncation
    whole: bool
    opening: int
    begin: Ids = ()

    def fit(self, write: Callable[[int], OptionGrid[Prompt]]) -> OptionGrid[FittedPrompt]:
        """The prompts with as many demonstrations as fit.

        Args:
            write: all prompts with the last n demonstrations.

        Raises:
            ConfigError: a query that is too long by itself, no room for a single demonstration, or not for all where
                they must fit.
        """
        fitted = self._fit(write)
        held = min(values(fitted, lambda prompt: prompt.held))
        if held < self.k and self.limits.overlong_shots is OverlongShots.REFUSE:
            raise ConfigError(
                "prompt.overlong_shots",
                f"is refuse, and task {self.task!r} has room for {held} of k={self.k} demonstrations",
                MORE_ROOM,
            )
        return fitted

    def _fit(self, write: Callable[[int], OptionGrid[Prompt]]) -> OptionGrid[FittedPrompt]:
        queries = write(self.k)
        longest = max(values(queries, lambda prompt: prompt.fixed))
        # Without demonstrations the released limit is that of an example, which knows no opening text.
        limit = self.limits.sequence if self.k else self.limits.per_example + self.opening
        limit = min(limit, self.context_length)
        if longest > limit:
            raise ConfigError(
                "model",
                f"task {self.task!r} has a test example of {longest} tokens, the sequence limit is {limit}",
                "lower prompt.max_length_per_example, raise prompt.max_length, or use a model with a longer context",
            )
        room = limit - longest
        if self.whole:
            return self._whole(queries, write, room)
        if self.truncation is Truncation.PER_OPTION and self.k:
            return self._tokens_each(queries)
        return self._tokens(queries, room)

    def _tokens(self, queries: OptionGrid[Prompt], room: int) -> OptionGrid[FittedPrompt]:
        """Keep the last `room` tokens of the demonstrations, at least a whole one."""
        if self.k and any(values(queries, lambda p: min(p.demonstration_tokens, room) < _shortest(p))):
            raise self._too_many(queries, room)
        return mapped(queries, lambda p: self._fitted(p, drop_left(_joined(p), max(0, room)) + p.head))

    def _tokens_each(self, queries: OptionGrid[Prompt]) -> OptionGrid[FittedPrompt]:
        """Released code: demonstrations and query lose their left part so that the target fits."""
        limit = min(sequence_limit(self.k, self.limits), self.context_length)

        def fit(prompt: Prompt) -> FittedPrompt:
            room = limit - len(prompt.front) - len(prompt.target)
            return self._fitted(prompt, drop_left(_joined(prompt) + prompt.head, room))

        return mapped(queries, fit)

    def _whole(
        self, queries: OptionGrid[Prompt], write: Callable[[int], OptionGrid[Prompt]], room: int
    ) -> OptionGrid[FittedPrompt]:
        """Keep the most of the last demonstrations with which every prompt fits, found by bisection."""
        if self.truncation is Truncation.PER_OPTION and self.k:
            raise ConfigError(
                "truncation", "per_option cuts inside demonstrations, which only prompt=metaicl allows",
                "use truncation=shared",
            )  # fmt: skip
        low, high, tried, kept = 0, self.k, self.k, queries
        while low < high:
            prompts = queries if tried == self.k else write(tried)
            if max(values(prompts, lambda prompt: prompt.demonstration_tokens)) <= room:
                low, kept = tried, prompts
            else:
                high = tried - 1
            tried = (low + high + 1) // 2
        if self.k and not low:
            raise self._too_many(queries, room)
        return mapped(kept, lambda p: self._fitted(p, _joined(p) + p.head, low))

    def _fitted(self, prompt: Prompt, left: Ids, shown: int | None = None) -> FittedPrompt:
        kept = max(0, len(left) - len(prompt.head))
        context = prompt.front + left
        if not prompt.target or not (context or self.begin):
            raise self._not_scorable(prompt)
        request = Request(context or self.begin, prompt.target)
        shown = self.k if shown is None else shown
        return FittedPrompt(request, prompt.text, shown, kept, _whole_within(prompt, kept))

    def _not_scorable(self, prompt: Prompt) -> DataError:
        """The error for a target without a token to score, of which a ranking could only be chance."""
        if prompt.target:
            problem = f"the prompt of {prompt.text!r} is empty, and the tokenizer has no token to begin with"
        else:
            problem = f"the scored text {prompt.text!r} has no token"
        return DataError(
            f"task {self.task!r}",
            problem,
            "take rows with empty inputs or options out, or use another layout",
        )

    def _too_many(self, queries: OptionGrid[Prompt], room: int) -> ConfigError:
        tokens = max(values(queries, lambda prompt: prompt.demonstration_tokens))
        longest = max(values(queries, lambda prompt: prompt.fixed))
        return ConfigError(
            "k",
            f"k={self.k} is too large for the context: task {self.task!r} has {tokens} tokens of demonstrations, and "
            f"the limit of {room + longest} less the longest test example ({longest}) leaves {room}, not one whole "
            "demonstration",
            MORE_ROOM,
        )


def mapped(layers: OptionGrid[_S], value: Callable[[_S], _T]) -> OptionGrid[_T]:
    """`value` of each place."""
    return tuple(tuple(tuple(map(value, row)) for row in layer) for layer in layers)


def values(layers: OptionGrid[_S], value: Callable[[_S], _T]) -> list[_T]:
    """`value` of each place, in one list."""
    return [value(one) for layer in layers for row in layer for one in row]


def _joined(prompt: Prompt) -> Ids:
    return tuple(token for piece in prompt.shown for token in piece)


def _shortest(prompt: Prompt) -> int:
    """Tokens of the shortest demonstration, or 0 without any."""
    pairs = zip(prompt.shown[::2], prompt.shown[1::2], strict=True)
    return min((len(first) + len(second) for first, second in pairs), default=0)


def _whole_within(prompt: Prompt, tokens: int) -> int:
    """How many of the last demonstrations lie whole within that many tokens at the end."""
    held = 0
    for first, second in zip(prompt.shown[-2::-2], prompt.shown[::-2], strict=True):
        tokens -= len(first) + len(second)
        if tokens < 0:
            break
        held += 1
    return held
