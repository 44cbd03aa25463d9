"""The scoring engine: every shared prefix once, logits only where they are wanted."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from metashot.engine.errors import ConfigError, ModelError
from metashot.engine.scoring.architecture import Architecture
from metashot.engine.scoring.execution import TriePass
from metashot.engine.scoring.plain import PlainScorer, check_finite, score_plain
from metashot.engine.scoring.plan import Plan, plan_requests
from metashot.engine.scoring.request import Progress, Request, check_requests
from metashot.engine.scoring.support import find_architecture
from metashot.engine.scoring.trie import build_trie

_logger = logging.getLogger(__name__)

_PROBE_TOKENS = 12
_PROBE_TOLERANCE_NATS = {torch.float32: 1e-3}
_PROBE_HALF_TOLERANCE_NATS = 1.0


class PrefixScorer:
    """Scores requests with exact prefix sharing.

    All requests of a call form a token trie; its rows are computed in depth-first batches without padding.
    What several requests share is computed once: demonstrations over all test inputs, a test input over its
    options, demonstrations and option over all test inputs, or nothing. Numbers equal those of `score_plain`
    up to rounding, whatever the order, grouping and batch size.

    Models that the engine does not know, or whose numbers it fails to match on a short probe, are scored by
    `score_plain`, which is said once in the log.

    Args:
        model: a transformers language model.
        memory_mb: MiB for activations and caches; None for 256 MiB on a CPU or half of the free
            memory of a GPU.
        force: refuse a model that the engine does not know instead of scoring it plainly.
        batch_size: sequences per batch of the plain scorer that may stand in.

    Raises:
        ConfigError: `force` and an unknown model.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        memory_mb: int | None = None,
        *,
        force: bool = False,
        batch_size: int = 8,
    ) -> None:
        self.model = model
        self.memory_budget_bytes = None if memory_mb is None else memory_mb << 20
        self._plain = PlainScorer(model, batch_size)
        found = find_architecture(model)
        reason = found if isinstance(found, str) else _probe(model, found)
        if reason is not None:
            if force:
                raise ConfigError("scorer", reason, "use scorer=plain, or a supported model")
            _logger.warning("scoring without prefix sharing: %s", reason)
        self._architecture = None if reason is not None or isinstance(found, str) else found

    @property
    def shares_prefixes(self) -> bool:
        """False where the plain scorer stands in."""
        return self._architecture is not None

    def plan(self, requests: Sequence[Request]) -> Plan:
        """Exact counts of what `score(requests)` computes."""
        return plan_requests(requests)

    @torch.inference_mode()
    def score(self, requests: Sequence[Request], on_progress: Progress | None = None) -> list[Tensor]:
        """Log-probabilities of all target tokens that have a predecessor.

        Args:
            requests: contexts and targets, in any order.
            on_progress: called with (tokens computed, tokens to compute) after each batch.

        Returns:
            Per request a float32 CPU tensor [request.scored] in nats, in request order.

        Raises:
            ConfigError: a request is longer than the model's positions.
            ModelError: a log-probability is NaN or infinite, or memory does not suffice for a single token.
        """
        if self._architecture is None:
            return self._plain.score(requests, on_progress)
        check_requests(self.model.config, requests)
        scores = _score_shared(
            self.model, self._architecture, requests, self.memory_budget_bytes, on_progress
        )
        return [check_finite(score, index) for index, score in enumerate(scores)]


def _score_shared(
    model: PreTrainedModel,
    architecture: Architecture,
    requests: Sequence[Request],
    budget: int | None,
    on_progress: Progress | None = None,
) -> list[Tensor]:
    trie = build_trie(requests)
    log_probs = TriePass(model, architecture, trie, budget).execute(on_progress)
    return [part.clone() for part in log_probs.split([request.scored for request in requests])]


@torch.inference_mode()
def _probe(model: PreTrainedModel, architecture: Architecture) -> str | None:
    """Why the walk does not do what the model does, by a short example; None if it does.

    Guards against versions of transformers and options of a config that the walk does not know.
    """
    vocabulary = int(model.config.vocab_size)
    tokens = tuple(7919 * (index + 1) % vocabulary for index in range(_PROBE_TOKENS))
    requests = [Request(tokens[:4], tokens[4:]), Request(tokens[:5], tokens[:5])]
    try:
        ours = torch.cat(_score_shared(model, architecture, requests, None))
    except (AttributeError, TypeError) as error:
        return f"{type(model).__name__} is built in a way that the engine does not know ({error})"
    try:
        plain = torch.cat(score_plain(model, requests))
    except ModelError:
        return None  # NaN weights: `score` says which request.
    difference = float((ours - plain).abs().max())
    if difference <= _PROBE_TOLERANCE_NATS.get(model.dtype, _PROBE_HALF_TOLERANCE_NATS):
        return None
    return f"on a probe the engine differs from {type(model).__name__} by {difference:.2g} nats"
