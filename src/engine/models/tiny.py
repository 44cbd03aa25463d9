"""Tiny models with random weights, and the small tokenizer that they share: for tests and dry runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    Gemma2Config,
    GemmaConfig,
    GPT2Config,
    GPTJConfig,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
)

from metashot.engine.errors import ModelError

_POSITIONS = 2048
_SENTINELS = [f"<extra_id_{index}>" for index in range(10)]
_SAMPLE_TEXT = (
    "the quick reader asks which answer is right and why the other one is wrong",
    "positive negative neutral yes no maybe true false good bad great terrible same different",
    "sentence question premise choice story people water city science world business sports news",
    "It was a very long day for everyone in the house. What did they do next? They went home.",
)


def tiny_tokenizer(texts: Iterable[str] = _SAMPLE_TEXT, vocab_size: int = 512) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on `texts`: any text round-trips, nothing is unknown."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<pad>", "</s>", *_SENTINELS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", extra_special_tokens=_SENTINELS
    )


def _gpt2(vocab_size: int) -> Any:
    return GPT2Config(vocab_size=vocab_size, n_positions=_POSITIONS, n_embd=48, n_layer=2, n_head=4,
                      bos_token_id=1, eos_token_id=1)  # fmt: skip


def _llama(vocab_size: int) -> Any:
    return LlamaConfig(vocab_size=vocab_size, max_position_embeddings=_POSITIONS, hidden_size=48, intermediate_size=96,
                       num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, bos_token_id=1, eos_token_id=1)  # fmt: skip


def _gptj(vocab_size: int) -> Any:
    return GPTJConfig(vocab_size=vocab_size, n_positions=_POSITIONS, n_embd=48, n_layer=2, n_head=4, rotary_dim=8,
                      bos_token_id=1, eos_token_id=1)  # fmt: skip


def _gemma(vocab_size: int) -> Any:
    return GemmaConfig(vocab_size=vocab_size, max_position_embeddings=_POSITIONS, hidden_size=48, intermediate_size=96,
                       num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=1, head_dim=12,
                       bos_token_id=1, eos_token_id=1, pad_token_id=0)  # fmt: skip


def _gemma2(vocab_size: int) -> Any:
    """Alternating full and sliding-window layers, soft-capped logits."""
    return Gemma2Config(vocab_size=vocab_size, max_position_embeddings=_POSITIONS, hidden_size=48, intermediate_size=96,
                        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=12, sliding_window=16,
                        bos_token_id=1, eos_token_id=1, pad_token_id=0)  # fmt: skip


def _t5(vocab_size: int) -> Any:
    config = T5Config(vocab_size=vocab_size, d_model=48, d_kv=12, d_ff=96, num_layers=2, num_heads=4,
                      pad_token_id=0, eos_token_id=1)  # fmt: skip
    config.decoder_start_token_id = 0  # pyright: ignore[reportAttributeAccessIssue]
    return config


_CONFIGS: dict[str, Callable[[int], Any]] = {
    "gpt2": _gpt2, "llama": _llama, "gptj": _gptj, "gemma": _gemma, "gemma2": _gemma2, "t5": _t5,
}  # fmt: skip


def tiny_model(architecture: str, seed: int = 0) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A two-layer model of `architecture` with random weights fixed by `seed`, and its tokenizer.

    Raises:
        ModelError: unknown architecture.
    """
    if architecture not in _CONFIGS:
        raise ModelError(
            "model.path", f"unknown tiny architecture {architecture!r}", f"one of {', '.join(_CONFIGS)}"
        )
    tokenizer = tiny_tokenizer()
    config = _CONFIGS[architecture](len(tokenizer))
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = auto.from_config(config, dtype=torch.float32)
        _spread_weights(model)
    return model.eval(), tokenizer


def _spread_weights(model: PreTrainedModel) -> None:
    """Enlarge the default 0.02 initial scale, so that options differ by more than rounding."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5.0)
