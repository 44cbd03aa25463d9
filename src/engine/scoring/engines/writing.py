"""What answers of an engine have in common with those of the loaded model: checked room, texts by one tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metashot.base.errors import ConfigError
from metashot.engine.generation.request import Generated, GenerationRequest, Sampling, Stopping, cut_at_stop


def wanted_answers(
    requests: Sequence[GenerationRequest], stopping: Stopping, sampling: Sampling, limit: int
) -> list[GenerationRequest]:
    """The requests to ask an engine for, each once, those with a common beginning together; greedy ones without seed.

    Raises:
        ConfigError: a prompt that is empty, or leaves no room for `max_new_tokens` in the engine's `limit`.
    """
    for place, request in enumerate(requests):
        if not request.prompt:
            raise ConfigError("data", f"prompt {place} has no token", "an answer needs a text to follow")
        if len(request.prompt) + stopping.max_new_tokens > limit:
            raise ConfigError(
                "method.max_new_tokens",
                f"prompt {place} has {len(request.prompt)} tokens, which with {stopping.max_new_tokens} new ones "
                f"is over the engine's {limit} positions",
                "lower it, start the engine with more, or use fewer or shorter demonstrations",
            )
    return sorted({asked(request, sampling) for request in requests}, key=lambda one: (one.prompt, one.seed))


def asked(request: GenerationRequest, sampling: Sampling) -> GenerationRequest:
    """The request with its seed, where one is used."""
    return GenerationRequest(request.prompt) if sampling.greedy else request


def answer_of(ids: Sequence[int], tokenizer: Any, stopping: Stopping) -> Generated:
    """An answer's ids, the one that ended it included, as a text."""
    text = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Generated(cut_at_stop(str(text), stopping.stop), len(ids))
