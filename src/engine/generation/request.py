"""What is generated: the nouns of generation, and what anything that generates promises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from metashot.base.errors import ConfigError

Ids = tuple[int, ...]
Progress = Callable[[int, int], None]
"""Called with (answers done, answers in all) after each batch."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One answer that is wanted; several with one prompt are several samples.

    Attributes:
        prompt: token ids that the answer follows; never empty.
        seed: of this answer's random numbers, below 2 ** 60; greedy decoding uses none.
    """

    prompt: Ids
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Generated:
    """One answer.

    Attributes:
        text: up to the first stop string, without special tokens; white space is kept.
        tokens: that the model wrote, with the one that ended the answer.
    """

    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Stopping:
    """When an answer ends.

    Attributes:
        max_new_tokens: most tokens of an answer.
        stop: strings that end an answer; the first of them and all that follows is cut off.
    """

    max_new_tokens: int = 64
    stop: tuple[str, ...] = ("\n",)

    def __post_init__(self) -> None:
        """Check both.

        Raises:
            ConfigError: no token to generate, or an empty stop string.
        """
        if self.max_new_tokens < 1:
            raise ConfigError(
                "method.max_new_tokens", f"{self.max_new_tokens} is not positive", "give at least 1"
            )
        if "" in self.stop:
            raise ConfigError("method.stop", "holds an empty string, which ends every answer", "leave it out")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: logits are divided by it; 0 takes the most probable token (greedy).
        top_p: only the most probable tokens that together have this probability (Holtzman et al. 2020); 1 is all.
    """

    temperature: float = 0.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        """Check both.

        Raises:
            ConfigError: a temperature below 0, or a probability outside 0..1.
        """
        if self.temperature < 0:
            raise ConfigError(
                "method.temperature",
                f"{self.temperature} is negative",
                "0 is greedy, 1 the model's own distribution",
            )
        if not 0 < self.top_p <= 1:
            raise ConfigError(
                "method.top_p",
                f"{self.top_p} is no probability above 0",
                "give one up to 1, which is all tokens",
            )

    @property
    def greedy(self) -> bool:
        """Whether no random number is drawn."""
        return self.temperature == 0


GREEDY = Sampling()


@runtime_checkable
class Generator(Protocol):
    """Anything that generates: the model here, or an engine or server that holds the weights."""

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        stopping: Stopping,
        sampling: Sampling = GREEDY,
        on_progress: Progress | None = None,
    ) -> list[Generated]:
        """An answer to each request, in their order.

        A sampled answer is a function of prompt, seed, stopping and sampling: neither the other requests nor their
        order decide it, up to rounding.

        Raises:
            ConfigError: a prompt that is empty, or leaves no room for `max_new_tokens` in the model's context.
        """
        ...


def cut_at_stop(text: str, stop: Sequence[str]) -> str:
    """`text` up to the first occurrence of any stop string."""
    places = [place for word in stop if (place := text.find(word)) >= 0]
    return text[: min(places)] if places else text
