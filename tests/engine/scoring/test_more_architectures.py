"""More architectures than those of `test_architectures.py`: one line each, with the way that it takes and its own sizes.

The scores are those of the model alone: a forward pass of each request by transformers itself.
"""

import random

import pytest
import torch

from metashot.base.errors import ModelError
from metashot.engine.scoring.plain import score_plain
from metashot.engine.scoring.prefix import PrefixScorer
from metashot.engine.scoring.request import Request

TOLERANCE_NATS = 1e-4
TINY_BUDGET = 1

_DECODER = {
    "d_model": 48, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "is_decoder": True, "is_encoder_decoder": False,
}  # fmt: skip
"""The decoder alone of a model of two halves."""
ZOO = {
    "axk1": (
        "shared_prefixes",
        {
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 4,
            "v_head_dim": 8,
            "kv_lora_rank": 16,
            "q_lora_rank": 16,
            "head_dim": 4,
            "num_key_value_heads": 4,
        },
    ),
    "axk2": (
        "cached_prefix",
        {
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 4,
            "v_head_dim": 8,
            "kv_lora_rank": 16,
            "q_lora_rank": 16,
            "head_dim": 4,
            "num_key_value_heads": 4,
        },
    ),
    "bailing_hybrid": (
        "cached_prefix",
        {
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 4,
            "v_head_dim": 8,
            "kv_lora_rank": 16,
            "q_lora_rank": 16,
            "head_dim": 4,
            "num_key_value_heads": 4,
            "num_hidden_layers": 2,
            "layer_types": ["linear_attention", "full_attention"],
        },
    ),
    "bert-generation": ("shared_prefixes", {"is_decoder": True}),
    "big_bird": ("cached_prefix", {"is_decoder": True}),
    "camembert": ("cached_prefix", {"is_decoder": True}),
    "cohere_compass_text": (
        "shared_prefixes",
        {
            "layer_types": ["full_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 10000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        },
    ),
    "data2vec-text": ("cached_prefix", {"is_decoder": True}),
    "dbrx": (
        "shared_prefixes",
        {
            "d_model": 48,
            "n_heads": 4,
            "n_layers": 2,
            "max_seq_len": 1024,
            "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
            "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2},
        },
    ),
    "deepseek_v32": (
        "plain",
        {
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 4,
            "v_head_dim": 8,
            "kv_lora_rank": 16,
            "q_lora_rank": 16,
            "head_dim": 4,
            "num_key_value_heads": 4,
            "index_n_heads": 2,
            "index_head_dim": 8,
            "index_topk": 32,
        },
    ),
    "deepseek_v4": ("cached_prefix", {}),
    "dots3_note_text": (
        "plain",
        {
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 4,
            "v_head_dim": 8,
            "kv_lora_rank": 16,
            "q_lora_rank": 16,
            "head_dim": 4,
            "num_key_value_heads": 4,
            "index_n_heads": 2,
            "index_head_dim": 8,
            "index_topk": 32,
        },
    ),
    "electra": ("shared_prefixes", {"is_decoder": True}),
    "ernie": ("shared_prefixes", {"is_decoder": True}),
    "falcon_mamba": ("plain", {}),
    "falcon@alibi": ("cached_prefix", {"alibi": True}),
    "falcon@new": ("shared_prefixes", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "flint": ("shared_prefixes", {}),
    "gemma3n_text": (
        "shared_prefixes",
        {
            "num_kv_shared_layers": 2,
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
            "vocab_size_per_layer_input": 320,
            "hidden_size_per_layer_input": 8,
            "laurel_rank": 8,
            "_scale": 2,
        },
    ),
    "gemma4_text": ("shared_prefixes", {"vocab_size_per_layer_input": 320, "hidden_size_per_layer_input": 8}),
    "gemma4_unified_text": ("shared_prefixes", {}),
    "git": ("cached_prefix", {}),
    "glm_moe_dsa": (
        "plain",
        {
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 4,
            "v_head_dim": 8,
            "kv_lora_rank": 16,
            "q_lora_rank": 16,
            "head_dim": 4,
            "num_key_value_heads": 4,
            "index_n_heads": 2,
            "index_head_dim": 8,
            "index_topk": 32,
        },
    ),
    "gpt-sw3": ("shared_prefixes", {}),
    "granitemoe_swa": ("shared_prefixes", {}),
    "granitemoehybrid": (
        "cached_prefix",
        {
            "mamba_d_state": 8,
            "mamba_d_conv": 4,
            "mamba_expand": 2,
            "mamba_d_ssm": 48,
            "mamba_n_heads": 4,
            "mamba_d_head": 24,
            "mamba_n_groups": 1,
            "mamba_chunk_size": 16,
            "mamba_dt_rank": 4,
            "use_mamba_kernels": False,
            "layer_types": ["mamba", "attention"],
            "shared_intermediate_size": 32,
        },
    ),
    "hrm_text": ("shared_prefixes", {}),
    "hy_v3": ("shared_prefixes", {}),
    "kimi_linear": (
        "cached_prefix",
        {
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 4,
            "v_head_dim": 8,
            "kv_lora_rank": 16,
            "q_lora_rank": None,
            "head_dim": 4,
            "num_key_value_heads": 4,
            "linear_head_dim": 12,
            "linear_num_heads": 4,
            "linear_conv_kernel_dim": 4,
            "layer_types": ["linear_attention", "full_attention"],
        },
    ),
    "kolibri1": ("shared_prefixes", {}),
    "lfm2_moe": ("cached_prefix", {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1}),
    "lfm3": ("cached_prefix", {"layer_types": ["conv", "full_attention"]}),
    "megatron-bert": ("cached_prefix", {"is_decoder": True}),
    "minimax": ("plain", {"layer_types": ["linear_attention", "full_attention"], "block_size": 16}),
    "olmo_hybrid": (
        "cached_prefix",
        {
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "layer_types": ["linear_attention", "full_attention"],
        },
    ),
    "qwen3_5_moe_text": (
        "cached_prefix",
        {
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "layer_types": ["linear_attention", "full_attention"],
        },
    ),
    "rembert": (
        "cached_prefix",
        {"is_decoder": True, "input_embedding_size": 24, "output_embedding_size": 24},
    ),
    "roberta": ("cached_prefix", {"is_decoder": True}),
    "roberta-prelayernorm": ("cached_prefix", {"is_decoder": True}),
    "roc_bert": ("shared_prefixes", {"is_decoder": True}),
    "roformer": ("cached_prefix", {"is_decoder": True}),
    "rwkv": ("plain", {"attention_hidden_size": 48, "context_length": 1024, "_scale": 2}),
    "trocr": ("cached_prefix", {}),
    "xlm": ("plain", {"causal": True}),
    "xlm-roberta": ("cached_prefix", {"is_decoder": True}),
    "xlm-roberta-xl": ("cached_prefix", {"is_decoder": True}),
    "bart": ("cached_prefix", _DECODER),
    "bigbird_pegasus": ("cached_prefix", _DECODER),
    "blenderbot": ("cached_prefix", _DECODER),
    "blenderbot-small": ("cached_prefix", _DECODER),
    "gemma3": (
        "shared_prefixes",
        {
            "text_config": {
                "vocab_size": 320,
                "hidden_size": 48,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "head_dim": 12,
                "sliding_window": 16,
            },
            "vision_config": {
                "hidden_size": 48,
                "intermediate_size": 64,
                "num_hidden_layers": 1,
                "num_attention_heads": 4,
                "image_size": 28,
                "patch_size": 14,
            },
        },
    ),
    "hy_v4": ("cached_prefix", {}),
    "inkling2_text": ("cached_prefix", {}),
    "inkling_text": ("cached_prefix", {}),
    "longcat_flash": (
        "shared_prefixes",
        {
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 4,
            "v_head_dim": 8,
            "kv_lora_rank": 16,
            "q_lora_rank": 16,
            "head_dim": 4,
            "num_key_value_heads": 4,
            "num_layers": 2,
            "ffn_hidden_size": 64,
            "expert_ffn_hidden_size": 32,
            "zero_expert_num": 2,
            "moe_topk": 2,
        },
    ),
    "marian": ("cached_prefix", {**_DECODER, "decoder_start_token_id": 0}),
    "mbart": ("cached_prefix", _DECODER),
    "minimax_m3_vl_text": ("shared_prefixes", {}),
    "mvp": ("cached_prefix", _DECODER),
    "pegasus": ("cached_prefix", _DECODER),
    "plbart": ("cached_prefix", _DECODER),
    "whisper": ("shared_prefixes", {**_DECODER, "decoder_start_token_id": 0}),
    "xmod": ("cached_prefix", {"is_decoder": True, "languages": ["en_XX"], "default_language": "en_XX"}),
    "zamba": (
        "cached_prefix",
        {
            "mamba_d_state": 8,
            "mamba_d_conv": 4,
            "mamba_expand": 2,
            "n_mamba_heads": 4,
            "mamba_dt_rank": 4,
            "attention_hidden_size": 96,
            "attention_head_dim": 24,
            "num_hidden_layers": 3,
            "layers_block_type": ["mamba", "hybrid", "hybrid"],
            "layer_types": ["mamba", "hybrid", "hybrid"],
        },
    ),
    "zamba2": (
        "cached_prefix",
        {
            "mamba_d_state": 8,
            "mamba_d_conv": 4,
            "mamba_expand": 2,
            "n_mamba_heads": 4,
            "mamba_headdim": 24,
            "mamba_ngroups": 1,
            "num_mem_blocks": 1,
            "attention_head_dim": 24,
            "layers_block_type": ["mamba", "hybrid"],
        },
    ),
    "zaya": ("cached_prefix", {"num_experts_per_tok": 1}),
}
"""Type (behind an at sign, a variant of it): the route, and what the config says beside the common sizes."""
NOT_CAUSAL = {
    "bert": {}, "big_bird": {}, "cpmant": {"dim_head": 12, "dim_ff": 64, "prompt_length": 4}, "data2vec-text": {}, "ernie": {},
    "roberta-prelayernorm": {}, "roc_bert": {}, "xlm": {}, "xlm-roberta": {},
    "xlnet": {"d_model": 48, "n_layer": 2, "n_head": 4, "d_inner": 64},
}  # fmt: skip
"""Types whose tokens see those behind them, unless the config says otherwise."""


def _text(rng, length):
    return tuple(rng.randrange(8, 312) for _ in range(length))


def _requests(seed):
    """Demonstrations, inputs and options past the window of 16, and some that share nothing."""
    rng = random.Random(seed)
    shown, options = _text(rng, 100), [_text(rng, n) for n in (1, 3, 9)]
    asked = [_text(rng, 20) for _ in range(4)]
    requests = [Request(shown + i, o) for i in asked for o in options]
    requests += [
        Request(shown + options[1], asked[0]),
        Request(_text(rng, 12), options[1]),
        Request((), asked[0]),
    ]
    rng.shuffle(requests)
    return requests


@torch.inference_mode()
def _alone(model, requests):
    found = []
    for request in requests:
        ids = torch.tensor([request.context + request.target])
        log_probs = model(input_ids=ids).logits[0].float().log_softmax(-1)
        places = torch.arange(request.length - request.scored - 1, request.length - 1)
        found.append(log_probs[places, ids[0, places + 1]])
    return found


def _worst(one, other):
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_scores_are_those_of_the_model_alone(tiny_architecture, name):
    route, settings = ZOO[name]
    model = tiny_architecture(name.partition("@")[0], **settings)
    requests = _requests(len(name))
    alone = _alone(model, requests)
    assert float(torch.cat(alone).std()) > 0.01  # not a model that finds everything equally likely
    scorer = PrefixScorer(model)
    assert _worst(scorer.score(requests), alone) <= TOLERANCE_NATS
    assert scorer.route == route
    assert _worst(PrefixScorer(model, TINY_BUDGET).score(requests), alone) <= TOLERANCE_NATS
    assert _worst(score_plain(model, requests), alone) <= TOLERANCE_NATS


def test_there_are_60_more():
    assert len(ZOO) >= 60


@pytest.mark.slow
@pytest.mark.parametrize("name", NOT_CAUSAL)
def test_a_model_whose_tokens_see_those_behind_them_is_refused(tiny_architecture, name):
    model = tiny_architecture(name, **NOT_CAUSAL[name])
    with pytest.raises(
        ModelError, match="is not causal: another last token changes the scores of those before it"
    ):
        PrefixScorer(model).score(_requests(len(name)))
