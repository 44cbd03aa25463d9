"""A small GPT-2 with random weights and a word-level tokenizer, written as a model folder (`model=local`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from engine.files import output_errors

SEPARATORS = ("\n", "\n\n", "\n\n\n")


@dataclass(frozen=True, slots=True)
class ScratchSize:
    """Size of the model.

    Attributes:
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
    config = GPT2Config(
        vocab_size=len(tokenizer),
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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(config)
        if size.matched_attention:
            _match_queries_to_keys(model, size)
    with output_errors(folder):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def _match_queries_to_keys(model: GPT2LMHeadModel, size: ScratchSize) -> None:
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("c_attn.weight"):
                shared = torch.randn(size.width, size.width) * size.matched_attention / size.width**0.5
                weight[:, : size.width] = shared
                weight[:, size.width : 2 * size.width] = shared
