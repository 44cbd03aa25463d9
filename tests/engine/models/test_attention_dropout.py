"""Dropout of attention weights: set on any architecture, or refused by name."""

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from metashot.base.errors import ConfigError
from metashot.engine.models.attention_dropout import set_attention_dropout
from metashot.engine.models.sizes import attention_dropout, residual_dropout

WIDTHS = {
    "vocab_size": 64, "hidden_size": 32, "n_embd": 32, "d_model": 32, "ffn_dim": 64, "intermediate_size": 64,
    "word_embed_proj_dim": 32, "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2, "num_layers": 2,
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "max_position_embeddings": 64, "n_positions": 64, "rotary_dim": 4, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1,
}  # fmt: skip
OWN = {"gpt_neo": {"attention_types": [[["global"], 2]]}, "falcon": {"ffn_hidden_size": 64, "alibi": True}}
OTHER_DROPOUTS = (
    "resid_pdrop",
    "embd_pdrop",
    "dropout",
    "hidden_dropout",
    "embed_dropout",
    "resid_dropout",
    "emb_pdrop",
)
ARCHITECTURES = (
    "bloom", "codegen", "falcon", "gemma2", "gemma3_text", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "granite",
    "llama", "mistral", "mpt", "olmo2", "opt", "phi", "phi3", "qwen3", "smollm3", "stablelm", "xglm",
)  # fmt: skip


def without_other_dropout(architecture):
    known = AutoConfig.for_model(architecture)
    changes = {key: value for key, value in WIDTHS.items() if key in known.to_dict()}
    changes |= {key: 0.0 for key in OTHER_DROPOUTS if hasattr(known, key)}
    config = AutoConfig.for_model(architecture, **{**changes, **OWN.get(architecture, {})})
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def trains_as_it_scores(model):
    """Whether nothing is dropped in training."""
    ids = torch.arange(2, 22)[None]
    with torch.no_grad():
        return bool(torch.equal(model.train()(ids).logits, model.eval()(ids).logits))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_drops_what_is_asked_and_nothing_at_zero(architecture):
    model = without_other_dropout(architecture)
    set_attention_dropout(model, 0.5)
    assert not trains_as_it_scores(model)
    config = model.config.to_dict()
    set_attention_dropout(model, 0.0)
    assert trains_as_it_scores(model)
    assert model.config.to_dict() == config


def test_other_dropout_of_gpt2_stays_as_published():
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("gpt2", n_layer=1, n_embd=8, n_head=2, vocab_size=9)
    )
    set_attention_dropout(model, 0.0)
    kinds = {
        name.rpartition(".")[2]: one.p for name, one in model.named_modules() if isinstance(one, nn.Dropout)
    }
    assert kinds == {"attn_dropout": 0.0, "resid_dropout": 0.1, "dropout": 0.1, "drop": 0.1}


def test_a_model_without_attention_is_named():
    config = AutoConfig.for_model("mamba", hidden_size=16, num_hidden_layers=1, vocab_size=9, state_size=4)
    with pytest.raises(
        ConfigError, match=r"trainer\.attention_dropout: 0\.0, but MambaForCausalLM has no dropout"
    ):
        set_attention_dropout(AutoModelForCausalLM.from_config(config), 0.0)


def test_published_values_are_read_off_the_config():
    expected = {
        "gpt2": (0.1, 0.1),
        "llama": (0.0, 0.0),
        "mpt": (0.0, 0.0),
        "opt": (0.0, 0.1),
        "xglm": (0.1, 0.1),
    }
    for architecture, dropouts in expected.items():
        config = AutoConfig.for_model(architecture)
        assert (attention_dropout(config), residual_dropout(config)) == dropouts, architecture
