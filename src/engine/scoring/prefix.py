"""The scoring engine: every shared prefix once, logits only where they are wanted."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from metashot.base.errors import ConfigError
from metashot.engine.models.exclusive import exclusive
from metashot.engine.models.sizes import longrope_length
from metashot.engine.scoring.borders import chooses_tokens
from metashot.engine.scoring.cascade import CascadeScorer
from metashot.engine.scoring.interception import UnsharedAttentionError
from metashot.engine.scoring.kept import KeptPrefixes
from metashot.engine.scoring.plain import check_finite, difference_to_alone
from metashot.engine.scoring.plan import ScoringPlan, plan_requests
from metashot.engine.scoring.precision import float32_between_products
from metashot.engine.scoring.probe import self_check
from metashot.engine.scoring.request import Progress, Request, check_requests, extremes, targets_only
from metashot.engine.scoring.routes import Route, RouteName, choose_route, slower_route
from metashot.engine.scoring.states import answer_states

_logger = logging.getLogger(__name__)


class PrefixScorer:
    """Scores requests with exact prefix sharing, for any language model of transformers.

    All requests of a call form a token trie; its rows are computed in depth-first batches without padding.
    What several requests share is computed once: demonstrations over all test inputs, a test input over its
    options, demonstrations and option over all test inputs, or nothing. Numbers equal those of `score_plain`
    up to rounding, whatever the order, grouping and batch size.

    Threads may share a model, with a scorer each or one for all: one call at a time runs (see `models.exclusive`).

    The model's own forward pass runs on those rows, with the engine in the place of its attention. A probe
    decides whether that does what the model does. Where it does not, the common prefix's cache is computed once
    and copied, and where even that differs, every request runs alone; encoder-decoder models encode each
    context once. `route` and `reason` say what was taken, and so does the log, once.

    Args:
        model: a transformers language model in eval mode.
        memory_mb: MiB for activations and caches; None for 256 MiB on a CPU or half of the free memory of a GPU.
        force: refuse a model that cannot share all prefixes.
        batch_size: sequences per batch of the other ways of scoring.
        keep_mb: MiB for keys and values of prefixes that later calls are likely to share, 0 for none; only of shared
            prefixes in float32. `free` gives them back.

    Raises:
        ConfigError: `force` and a model that cannot share all prefixes.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        memory_mb: int | None = None,
        *,
        force: bool = False,
        batch_size: int = 8,
        keep_mb: int = 0,
    ) -> None:
        self.model = model
        self._keep_bytes = keep_mb << 20
        self.memory_budget_bytes = None if memory_mb is None else memory_mb << 20
        self._batch_size = batch_size
        self._force = force
        self._told_longrope = False
        with exclusive(model), float32_between_products(model):
            self._take(choose_route(model, self.memory_budget_bytes, batch_size))

    def free(self) -> None:
        """Give back the prefixes that are kept between calls."""
        with exclusive(self.model):
            if isinstance(self._route.scorer, CascadeScorer) and self._route.scorer.kept is not None:
                self._route.scorer.kept.clear()

    @property
    def route(self) -> str:
        """`shared_prefixes`, `cached_prefix`, `shared_encoder` or `plain`."""
        return self._route.name.value

    @property
    def reason(self) -> str | None:
        """Why prefixes are not shared, in words; None where they are."""
        return self._route.reason

    @property
    def shares_prefixes(self) -> bool:
        """True where every shared prefix is computed once."""
        return self._route.name is RouteName.SHARED_PREFIXES

    def plan(self, requests: Sequence[Request]) -> ScoringPlan:
        """Exact counts of what `score(requests)` computes where it shares prefixes."""
        return plan_requests(requests)

    def tokens_computed(self, requests: Sequence[Request]) -> int:
        """Tokens that `score(requests)` runs through the model on the route taken."""
        with exclusive(self.model):
            return self._route.scorer.tokens_computed(requests)

    @torch.inference_mode()
    def score(self, requests: Sequence[Request], on_progress: Progress | None = None) -> list[Tensor]:
        """Log-probabilities of all target tokens that have a predecessor.

        Args:
            requests: contexts and targets, in any order.
            on_progress: called with (tokens computed, tokens to compute) after each batch.

        Returns:
            Per request a float32 CPU tensor [request.scored] in nats, in request order (an encoder-decoder
            model scores every target token).

        Raises:
            ConfigError: a request is longer than the model's positions.
            ModelError: a log-probability is NaN or infinite, or memory does not suffice for a single token.
        """
        return targets_only(self.score_with_best(requests, on_progress))

    @torch.inference_mode()
    def score_with_best(
        self, requests: Sequence[Request], on_progress: Progress | None = None
    ) -> list[Tensor]:
        """`score` with the log-probability of each position's best token beside the target's: [scored, 2]."""
        with exclusive(self.model), float32_between_products(self.model):
            scores = self._scored(requests, on_progress)
        return [check_finite(score, index) for index, score in enumerate(scores)]

    @torch.inference_mode()
    def score_with_states(
        self, requests: Sequence[Request], on_progress: Progress | None = None
    ) -> tuple[list[Tensor], Tensor]:
        """`score`, and float32 [requests, d]: what the head reads at each answer, in the same pass where prefixes are shared.

        Every request needs a context; the other ways of scoring compute the states after the scores.
        """
        with exclusive(self.model), float32_between_products(self.model):
            scorer = self._route.scorer
            if isinstance(scorer, CascadeScorer):
                check_requests(self.model.config, requests, unread=1)
                self._compare_anew(requests)
                scorer = self._route.scorer
            if isinstance(scorer, CascadeScorer):
                scores, states = scorer.score_with_states(requests, on_progress)
                return [check_finite(score, i) for i, score in enumerate(targets_only(scores))], states
        return self.score(requests, on_progress), answer_states(self.model, requests, self._batch_size)

    def _scored(self, requests: Sequence[Request], on_progress: Progress | None) -> list[Tensor]:
        if not self.model.config.is_encoder_decoder:
            check_requests(self.model.config, requests, unread=int(self.shares_prefixes))
            self._compare_anew(requests)
        try:
            return self._route.scorer.score_with_best(requests, on_progress)
        except (
            UnsharedAttentionError
        ) as error:  # what no probe foresaw, such as attention over blocks of keys
            self._take(slower_route(self.model, self._batch_size, str(error), extremes(requests)))
            return self._route.scorer.score_with_best(requests, on_progress)

    def check(self, requests: Sequence[Request], scores: Sequence[Tensor]) -> float:
        """Hold a scored cell to a few of its requests alone, see `probe.self_check`."""
        with exclusive(self.model):
            return self_check(self.model, self.route, self.tokens_computed(requests), requests, scores)

    def _compare_anew(self, requests: Sequence[Request]) -> None:
        """Compare with requests alone once more when they pass a border or double in length."""
        few = extremes(requests)
        if few:
            self._tell_longrope(few[0].length)
        if not few or not self._route.is_new(few[0].length):
            return
        if chooses_tokens(self.model, few[0].length) and self._route.name is not RouteName.PLAIN:
            reason = f"at {few[0].length} tokens, its attention chooses among them"
            self._take(slower_route(self.model, self._batch_size, reason, few))
            return
        try:
            ours = targets_only(self._route.scorer.score_with_best(few))
            problem = difference_to_alone(self.model, few, ours).problem
        except UnsharedAttentionError as error:
            problem = str(error)
        if problem is None:
            self._route = self._route.now_compared(few[0].length)
        else:
            reason = f"at {few[0].length} tokens, {problem}"
            self._take(slower_route(self.model, self._batch_size, reason, few))

    def _tell_longrope(self, longest: int) -> None:
        """Say once that requests past the original length are computed with other rotations than shorter ones."""
        original = longrope_length(self.model.config)
        if original is not None and longest > original and not self._told_longrope:
            self._told_longrope = True
            _logger.warning(
                "requests have up to %d tokens: those of more than %d are computed with longrope's long factors, all "
                "others with its short ones (lower prompt.max_length to stay below)",
                longest,
                original,
            )

    def _take(self, route: Route) -> None:
        self._route = route
        if isinstance(route.scorer, CascadeScorer) and self._keep_bytes:
            route.scorer.kept = KeptPrefixes(self.model, self._keep_bytes)
        if route.reason is None:
            return
        if self._force:
            raise ConfigError("scorer", f"{type(self.model).__name__} cannot share all prefixes: {route.reason}",
                              "use scorer=plain, or another model")  # fmt: skip
        _logger.warning(
            "%s is scored by way of %s: %s", type(self.model).__name__, route.name.value, route.reason
        )
