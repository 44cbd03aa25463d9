"""Frozen language models seen through a soft prompt: encode a context, then read the answer's logits.

`encode` prepends the prompt and returns hidden states; `decode` turns them into logits at the answer positions.
The point between the two is where tasks are interpolated: the last encoder states of an encoder-decoder model,
the last hidden state at the answer position of a decoder-only one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from metashot.base.errors import ModelError
from metashot.engine.models.loading import LanguageModel
from metashot.engine.models.own_head import decoder, logits_of
from metashot.metaprompt.batch import PromptBatch
from metashot.metaprompt.meta.steps.interpolation import mix, mix_states


@dataclass(frozen=True, slots=True)
class Encoding:
    """Hidden states of a prompted context.

    Attributes:
        states: last hidden states, prompt first, [B, P + L, d].
        mask: True at prompt and real context positions, [B, P + L].
        answer: decoder-only: the state that predicts the answer, [B, 1, d]; else None.
    """

    states: Tensor
    mask: Tensor
    answer: Tensor | None = None

    def mean(self, *, over_padding: bool) -> Tensor:
        """Mean state of each example, [B, d]; `over_padding` counts padding too (released behaviour)."""
        states = self.states.float()
        if over_padding:
            return states.mean(dim=1)
        share = self.mask.float()[..., None]
        return (states * share).sum(dim=1) / share.sum(dim=1)


class Backbone(Protocol):
    """A frozen model that reads soft prompts."""

    language_model: LanguageModel
    pseudo_tokens: Tensor | None

    @property
    def width(self) -> int:
        """Width d of the input embeddings."""
        ...

    def encode(self, prompts: Tensor, batch: PromptBatch) -> Encoding:
        """Hidden states of `batch` behind `prompts` [B, P, d], one prompt for each example."""
        ...

    def decode(self, encoding: Encoding, batch: PromptBatch) -> Tensor:
        """Logits at the target positions, [B, T, V]."""
        ...

    def answer_state(self, encoding: Encoding, batch: PromptBatch) -> Tensor:
        """The last hidden state that predicts the answer, [B, d]."""
        ...

    def interpolate(
        self, first: Encoding, second: Encoding, weight: Tensor, *, mix_padding: bool
    ) -> Encoding:
        """Weight * first + (1 - weight) * second, weight [B]; the ends are exact unless `mix_padding`."""
        ...


def input_embeddings(language_model: LanguageModel) -> Tensor:
    """The vocabulary's input embeddings as the first layer sees them, [V, d].

    That is the model's table, times the factor that some models (Gemma) multiply its rows by.
    """
    module = language_model.model.get_input_embeddings()
    table: Tensor = module.weight  # pyright: ignore[reportAssignmentType]
    with torch.no_grad():
        row = int(table[:16].norm(dim=1).argmax())
        seen = module(torch.tensor([row], device=table.device))[0]
        factor = float(seen.norm() / table[row].norm())
    return table if abs(factor - 1) < 1e-3 else table * factor


def embedding_width(language_model: LanguageModel) -> int:
    """Width d of the input embeddings."""
    table: Tensor = language_model.model.get_input_embeddings().weight  # pyright: ignore[reportAssignmentType]
    return table.shape[1]


def make_backbone(language_model: LanguageModel, pseudo_tokens: Tensor | None = None) -> Backbone:
    """Freeze the model and wrap it by its kind.

    Args:
        language_model: any T5-like encoder-decoder or decoder-only model of transformers.
        pseudo_tokens: input embeddings of the clusters, [clusters, d], for negative ids.
    """
    language_model.model.requires_grad_(False)
    kind = EncoderDecoderBackbone if language_model.is_seq2seq else DecoderOnlyBackbone
    return kind(language_model, pseudo_tokens)


def embed(language_model: LanguageModel, ids: Tensor, pseudo_tokens: Tensor | None) -> Tensor:
    """Input embeddings of `ids` [B, L], negative ids through `pseudo_tokens`: [B, L, d].

    Raises:
        ModelError: a pseudo-token without `pseudo_tokens`.
    """
    vectors = language_model.model.get_input_embeddings()(ids.clamp_min(0))
    pseudo = ids < 0
    if not bool(pseudo.any()):
        return vectors
    if pseudo_tokens is None:
        raise ModelError(
            "supmer.pseudo_tokens", "a cluster's pseudo-token has no embedding", "give the cluster embeddings"
        )
    return torch.where(pseudo[..., None], pseudo_tokens[(-ids - 1).clamp_min(0)].to(vectors.dtype), vectors)


def _prompted(
    language_model: LanguageModel, prompts: Tensor, batch: PromptBatch, pseudo: Tensor | None
) -> tuple[Tensor, Tensor]:
    context = embed(language_model, batch.input_ids, pseudo)
    vectors = torch.cat([prompts.to(context.dtype), context], dim=1)
    ahead = torch.ones(prompts.shape[:2], dtype=torch.bool, device=prompts.device)
    return vectors, torch.cat([ahead, batch.mask], dim=1)


@dataclass(slots=True)
class EncoderDecoderBackbone:
    """T5-like: the prompt goes in front of the encoder's input only."""

    language_model: LanguageModel
    pseudo_tokens: Tensor | None = None

    @property
    def width(self) -> int:
        """Width d of the input embeddings."""
        return embedding_width(self.language_model)

    def encode(self, prompts: Tensor, batch: PromptBatch) -> Encoding:
        """Encoder states."""
        vectors, mask = _prompted(self.language_model, prompts, batch, self.pseudo_tokens)
        encoder = self.language_model.model.get_encoder()
        output = encoder(inputs_embeds=vectors, attention_mask=mask.long())
        return Encoding(output.last_hidden_state, mask)

    def decode(self, encoding: Encoding, batch: PromptBatch) -> Tensor:
        """Teacher-forced logits: position t sees the targets before t."""
        return self._decoder(encoding, batch, hidden=False).logits.float()

    def answer_state(self, encoding: Encoding, batch: PromptBatch) -> Tensor:
        """The decoder's last hidden state after the sentinel."""
        return self._decoder(encoding, batch, hidden=True).decoder_hidden_states[-1][:, 1].float()

    def _decoder(self, encoding: Encoding, batch: PromptBatch, *, hidden: bool) -> Any:
        model: Any = self.language_model.model
        start = torch.full_like(batch.target_ids[:, :1], model.config.decoder_start_token_id)
        return model(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoding.states),  # pyright: ignore[reportArgumentType]
            attention_mask=encoding.mask.long(),
            decoder_input_ids=torch.cat([start, batch.target_ids[:, :-1]], dim=1),
            output_hidden_states=hidden,
            use_cache=False,
        )

    def interpolate(
        self, first: Encoding, second: Encoding, weight: Tensor, *, mix_padding: bool
    ) -> Encoding:
        """Mix encoder states position by position."""
        states, mask = mix_states(
            first.states, first.mask, second.states, second.mask, weight, mix_padding=mix_padding
        )
        return Encoding(states, mask)


@dataclass(slots=True)
class DecoderOnlyBackbone:
    """GPT-like: the prompt goes in front, the answer is the token after the context."""

    language_model: LanguageModel
    pseudo_tokens: Tensor | None = None

    @property
    def width(self) -> int:
        """Width d of the input embeddings."""
        return embedding_width(self.language_model)

    def encode(self, prompts: Tensor, batch: PromptBatch) -> Encoding:
        """Hidden states after the last layer, and the one at each context's last token."""
        vectors, mask = _prompted(self.language_model, prompts, batch, self.pseudo_tokens)
        # Padding is on the right, so causal attention alone keeps it away from real positions.
        output = decoder(self.language_model.model)(inputs_embeds=vectors, use_cache=False)
        states = output.last_hidden_state
        last = prompts.shape[1] + batch.mask.sum(dim=1) - 1
        answer = states[torch.arange(states.shape[0], device=states.device), last][:, None]
        return Encoding(states, mask, answer)

    def decode(self, encoding: Encoding, batch: PromptBatch) -> Tensor:
        """Logits at the answer position."""
        assert encoding.answer is not None
        return logits_of(self.language_model.model, encoding.answer).float()

    def answer_state(self, encoding: Encoding, batch: PromptBatch) -> Tensor:
        """The state at each context's last token."""
        del batch
        assert encoding.answer is not None
        return encoding.answer[:, 0].float()

    def interpolate(
        self, first: Encoding, second: Encoding, weight: Tensor, *, mix_padding: bool
    ) -> Encoding:
        """Mix the two states at the answer position; there is no padding there."""
        assert first.answer is not None
        assert second.answer is not None
        return replace(first, answer=mix(first.answer, second.answer, weight[:, None, None].to(first.answer)))


def target_loss(logits: Tensor, batch: PromptBatch) -> Tensor:
    """Cross-entropy of each example, summed over its supervised target positions: [B], in nats."""
    log_probabilities = torch.log_softmax(logits, dim=-1)
    chosen = log_probabilities.gather(-1, batch.target_ids[..., None]).squeeze(-1)
    return -(chosen * batch.target_mask).sum(dim=-1)
