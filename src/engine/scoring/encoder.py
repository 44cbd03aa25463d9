"""Encoder-decoder models: every context is encoded once, for all the targets that follow it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from metashot.engine.models.own_head import logits_at
from metashot.engine.scoring.memory import is_out_of_memory
from metashot.engine.scoring.plain import encoder_input, padded
from metashot.engine.scoring.request import Progress, Request
from metashot.engine.scoring.vocabulary import chosen_and_best

_logger = logging.getLogger(__name__)


class EncoderScorer:
    """Encodes distinct contexts in batches, and decodes the targets of each batch over their states.

    Args:
        model: an encoder-decoder language model in eval mode.
        batch_size: contexts per encoder pass, and targets per decoder pass.
    """

    def __init__(self, model: PreTrainedModel, batch_size: int = 8) -> None:
        self.model = model
        self.batch_size = batch_size

    def tokens_computed(self, requests: Sequence[Request]) -> int:
        """Distinct contexts once, and every target."""
        contexts = {request.context for request in requests if request.target}
        return sum(map(len, contexts)) + sum(len(request.target) for request in requests)

    @torch.inference_mode()
    def score_with_best(
        self, requests: Sequence[Request], on_progress: Progress | None = None
    ) -> list[Tensor]:
        """Per request a float32 CPU tensor of all its target tokens' log-probabilities in nats."""
        scores = [torch.empty(0, 2)] * len(requests)
        members: dict[tuple[int, ...], list[int]] = {}
        for index in sorted(range(len(requests)), key=lambda i: len(requests[i].context)):
            if requests[index].target:
                members.setdefault(requests[index].context, []).append(index)
        contexts = list(members)
        done, total = 0, self.tokens_computed(requests)
        batch_size = self.batch_size
        while contexts:
            batch = contexts[:batch_size]
            try:
                scored = list(self._batch(requests, {context: members[context] for context in batch}))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or batch_size == 1:
                    raise
                batch_size = max(1, min(batch_size, len(batch)) // 2)
                _logger.warning("out of memory: going on with %d contexts at a time", batch_size)
                continue
            for index, row in scored:
                scores[index] = row
                done += len(row)
            done += sum(map(len, batch))
            contexts = contexts[len(batch) :]
            if on_progress is not None:
                on_progress(done, total)
        return scores

    def _batch(
        self, requests: Sequence[Request], members: dict[tuple[int, ...], list[int]]
    ) -> Iterator[tuple[int, Tensor]]:
        """Indices and scores of all requests over some contexts."""
        model: Any = self.model
        ids, mask = padded([encoder_input(model.config, context) for context in members], model.device)
        states: Tensor = model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        pairs = [(row, index) for row, indices in enumerate(members.values()) for index in indices]
        for start in range(0, len(pairs), self.batch_size):
            part = pairs[start : start + self.batch_size]
            rows = torch.tensor([row for row, _ in part], device=model.device)
            targets, is_target = padded([requests[index].target for _, index in part], model.device)
            first = torch.full((len(part), 1), model.config.decoder_start_token_id, device=model.device)
            selected = is_target.bool()
            logits = logits_at(
                model,
                *selected.nonzero(as_tuple=True),
                encoder_outputs=BaseModelOutput(last_hidden_state=states[rows]),  # pyright: ignore[reportArgumentType]
                attention_mask=mask[rows],
                decoder_input_ids=torch.cat([first, targets[:, :-1]], dim=1),
            )
            log_probs = chosen_and_best(logits, targets[selected])
            lengths = [len(requests[index].target) for _, index in part]
            for (_, index), row in zip(part, log_probs.cpu().split(lengths), strict=True):
                yield index, row.clone()
