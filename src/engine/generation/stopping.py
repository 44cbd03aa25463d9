"""When a generated answer ends."""

from __future__ import annotations

from dataclasses import dataclass

from metashot.base.errors import ConfigError


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
