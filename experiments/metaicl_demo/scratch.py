"""A small model with random weights and a word-level tokenizer, written as a model folder (`model=local`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    Lfm2Config,
    Lfm2ForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from metashot.base.files import output_errors

SEPARATORS = ("\n", "\n\n", "\n\n\n")


@dataclass(frozen=True, slots=True)
class ScratchSize:
    """Size of the model.

    Attributes:
        architecture: `gpt2`, or `lfm2`: short convolutions and attention in turn, which learns to recall from its context in
            far fewer steps.
        layers: transformer blocks.
        width: hidden size.
        heads: attention heads.
        positions: longest sequence in tokens.
        dropout: in all places where GPT-2 has it.
        initial_scale: standard deviation of the random weights; GPT-2's 0.02 is too small for narrow models.
        matched_attention: scale of query weights that start equal to the key weights, so that equal tokens attend to
            each other from the first step; 0 for GPT-2's own start. Source: Trockman and Kolter, Mimetic
            Initialization of Self-Attention Layers, 2023.
    """

    architecture: Literal["gpt2", "lfm2"] = "gpt2"
    layers: int = 4
    width: int = 128
    heads: int = 4
    positions: int = 512
    dropout: float = 0.0
    initial_scale: float = 0.02
    matched_attention: float = 0.0


def word_tokenizer(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """One token a word and one a run of newlines; spaces vanish, unknown words share one token."""
    vocabulary = {
        token: index for index, token in enumerate(dict.fromkeys(["<unk>", *SEPARATORS, *sorted(set(words))]))
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n+"), behavior="isolated"),
            pre_tokenizers.Split(Regex(" +"), behavior="removed"),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def write_scratch_model(folder: Path, words: Iterable[str], size: ScratchSize, seed: int) -> Path:
    """Write config, random weights of `seed` and tokenizer into `folder`, and return it."""
    tokenizer = word_tokenizer(words)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = (_gpt2 if size.architecture == "gpt2" else _lfm2)(len(tokenizer), size)
        if size.matched_attention:
            _match_queries_to_keys(model, size)
    with output_errors(folder):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def _gpt2(vocabulary: int, size: ScratchSize) -> PreTrainedModel:
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=size.positions,
        n_embd=size.width,
        n_layer=size.layers,
        n_head=size.heads,
        resid_pdrop=size.dropout,
        embd_pdrop=size.dropout,
        attn_pdrop=size.dropout,
        initializer_range=size.initial_scale,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config)


def _lfm2(vocabulary: int, size: ScratchSize) -> PreTrainedModel:
    kinds = ["conv" if layer % 2 == 0 else "full_attention" for layer in range(size.layers)]
    config = Lfm2Config(
        vocab_size=vocabulary,
        hidden_size=size.width,
        intermediate_size=2 * size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=size.positions,
        conv_L_cache=4,
        layer_types=kinds,
        initializer_range=size.initial_scale,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    return Lfm2ForCausalLM(config)


def _match_queries_to_keys(model: PreTrainedModel, size: ScratchSize) -> None:
    with torch.no_grad():
        weights = dict(model.named_parameters())
        for name, weight in weights.items():
            shared = torch.randn(size.width, size.width) * size.matched_attention / size.width**0.5
            if name.endswith("c_attn.weight"):
                weight[:, : size.width] = shared
                weight[:, size.width : 2 * size.width] = shared
            elif name.endswith("q_proj.weight"):
                weight.copy_(shared)
                weights[name.replace("q_proj", "k_proj")].copy_(shared)
