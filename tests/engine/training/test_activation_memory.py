"""The estimate of activation memory, worked out by hand and against what PyTorch keeps for a backward pass."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from metashot.engine.models.activations import fuse_gelu
from metashot.engine.models.attention_dropout import set_attention_dropout
from metashot.engine.training.activation_memory import ActivationMemory
from metashot.engine.training.config import TrainableConfig

ROWS, TOKENS = 3, 64
GPT2 = {"n_embd": 64, "n_head": 4, "n_layer": 3, "vocab_size": 50, "bos_token_id": 0, "eos_token_id": 0}
LLAMA = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 3,
         "intermediate_size": 128, "vocab_size": 50}  # fmt: skip


def test_a_layer_by_hand():
    # d = 2, one head, MLP of 8, one layer, GPT-2's dropout of 0.1. A token of a layer: norms 4 d = 8, queries, keys,
    # values and the output twice 5 d = 10, the MLP's two 16, masks 2 d = 4: 38 floats. A pair of tokens: 3 floats.
    config = GPT2Config(n_embd=2, n_head=1, n_layer=1, n_inner=8, vocab_size=10)
    memory = ActivationMemory.of(config, TrainableConfig(), on_gpu=False)
    assert (memory.token, memory.pair, memory.stream, memory.target, memory.fixed) == (152, 12, 8, 120, 80)
    # 5 tokens are 760 bytes, 25 pairs 300: a layer is 1060, and gradients are alive of two more. 2 targets: 240.
    assert memory.of_sequence(5, 2) == 3 * 1060 + 240
    # Without dropout of attention weights, or with a GPU's kernel, which has it, no pair is kept.
    plain = ActivationMemory.of(config, TrainableConfig(attention_dropout=0.0), on_gpu=False)
    assert plain.of_sequence(5, 2) == 3 * 760 + 240
    assert ActivationMemory.of(config, TrainableConfig(), on_gpu=True) == plain
    # Checkpointing keeps 5 * 2 floats of the layer, which is there once while it is computed again.
    again = ActivationMemory.of(
        config, TrainableConfig(attention_dropout=0.0, gradient_checkpointing=True), on_gpu=False
    )
    assert again.of_sequence(5, 2) == 40 + 3 * 760 + 240
    # In half precision the inputs of the norms (2 d) stay in float32: 4 * 4 + 34 * 2 bytes.
    half = ActivationMemory.of(config, TrainableConfig(precision="bfloat16"), on_gpu=True)
    assert half.token == 84


def kept(model):
    """Bytes that a forward pass keeps for the backward pass, weights aside."""
    weights = {one.untyped_storage().data_ptr() for one in model.parameters()}
    storages = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    ids = torch.randint(0, 50, (ROWS, TOKENS), generator=torch.Generator().manual_seed(0))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        states = model.train().base_model(input_ids=ids, use_cache=False).last_hidden_state
    states.sum().backward()
    return sum(size for size, _ in storages.values())


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize(
    "make",
    [
        lambda kernel: GPT2LMHeadModel(GPT2Config(**GPT2, attn_implementation=kernel)),
        lambda kernel: LlamaForCausalLM(LlamaConfig(**LLAMA, attn_implementation=kernel)),
    ],
    ids=["gpt2", "llama"],
)
def test_the_estimate_is_what_a_forward_pass_keeps_within_a_fifth(make, kernel, checkpointing, dropout):
    model = make(kernel)
    fuse_gelu(model)
    set_attention_dropout(model, dropout)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    training = TrainableConfig(attention_dropout=dropout, gradient_checkpointing=checkpointing)
    memory = ActivationMemory.of(model.config, training, on_gpu=False)
    layer = memory.token * TOKENS + memory.pair * TOKENS**2
    expected = ROWS * memory.layers * (memory.stream * TOKENS if checkpointing else layer)
    # The last norm and the embeddings' dropout, a few d a token, are no part of a layer.
    rest = ROWS * 4 * 4 * 64 * TOKENS
    assert 0.8 * expected <= kept(model) <= 1.2 * expected + rest
