"""Tiny models with random weights, and the small tokenizer that they share: for tests and dry runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from metashot.base.errors import ModelError
from metashot.base.json_text import digest_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

_POSITIONS = 2048
_SPREAD = 5.0
"""Factor on the default 0.02 initial scale, so that options differ by more than rounding."""
_PAD, TINY_EOS = "<pad>", "</s>"
_SENTINELS = [f"<extra_id_{index}>" for index in range(10)]
_SAMPLE_TEXT = (
    "the quick reader asks which answer is right and why the other one is wrong",
    "positive negative neutral yes no maybe true false good bad great terrible same different",
    "sentence question premise choice story people water city science world business sports news",
    "It was a very long day for everyone in the house. What did they do next? They went home.",
)
_LLAMA_SIZES = {
    "max_position_embeddings": _POSITIONS, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "bos_token_id": 1, "eos_token_id": 1,
}  # fmt: skip
_GPT_SIZES = {
    "n_positions": _POSITIONS, "n_embd": 48, "n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": 1,
}  # fmt: skip
_CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "gpt2": _GPT_SIZES,
    "gptj": {**_GPT_SIZES, "rotary_dim": 8},
    "llama": {**_LLAMA_SIZES, "num_key_value_heads": 2},
    "gemma": {**_LLAMA_SIZES, "num_key_value_heads": 1, "head_dim": 12, "pad_token_id": 0},
    # Alternating full and sliding-window layers, soft-capped logits.
    "gemma2": {
        **_LLAMA_SIZES, "num_key_value_heads": 2, "head_dim": 12, "sliding_window": 16, "pad_token_id": 0,
    },
    "t5": {
        "d_model": 48, "d_kv": 12, "d_ff": 96, "num_layers": 2, "num_heads": 4, "pad_token_id": 0, "eos_token_id": 1,
        "decoder_start_token_id": 0,
    },
}  # fmt: skip


def tiny_backend(texts: Iterable[str] = _SAMPLE_TEXT, vocab_size: int = 512) -> Tokenizer:
    """A byte-level BPE tokenizer trained on `texts`: any text round-trips, nothing is unknown."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A:0", pair="$A:0 $B:1", special_tokens=[]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[_PAD, TINY_EOS, *_SENTINELS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def tiny_tokenizer(texts: Iterable[str] = _SAMPLE_TEXT, vocab_size: int = 512) -> PreTrainedTokenizerFast:
    """`tiny_backend` as a tokenizer of transformers."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tiny_backend(texts, vocab_size),
        pad_token=_PAD,
        eos_token=TINY_EOS,
        extra_special_tokens=_SENTINELS,
    )


@cache
def _vocabulary() -> int:
    return tiny_backend().get_vocab_size()


def tiny_config(architecture: str) -> dict[str, Any]:
    """What the `config.json` of a tiny model says.

    Raises:
        ModelError: unknown architecture.
    """
    if architecture not in _CONFIGS:
        raise ModelError(
            "model.path", f"unknown tiny architecture {architecture!r}", f"one of {', '.join(_CONFIGS)}"
        )
    return {"model_type": architecture, "vocab_size": _vocabulary(), **_CONFIGS[architecture]}


def tiny_digest(architecture: str, seed: int) -> str:
    """sha256 of all that the weights follow from: config, seed and the libraries that draw them.

    Raises:
        ModelError: unknown architecture.
    """
    libraries = {name: version(name) for name in ("torch", "transformers")}
    return digest_of(
        {"config": tiny_config(architecture), "seed": seed, "spread": _SPREAD, "drawn by": libraries}
    )


def tiny_model(architecture: str, seed: int = 0) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A two-layer model of `architecture` with random weights fixed by `seed`, and its tokenizer.

    Raises:
        ModelError: unknown architecture.
    """
    written = tiny_config(architecture)
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    config = AutoConfig.for_model(**written)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = auto.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(_SPREAD)
    return model.eval(), tiny_tokenizer()
