"""Loss, packing and branching against the model's own numbers, for every architecture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from metashot.base.errors import ConfigError
from metashot.engine.models.own_head import decoder, logits_of
from metashot.icl.learning.batches.attention_mask import check_rows_of_several
from metashot.icl.learning.batches.collate import Batching, collate
from metashot.icl.learning.batches.objective import LossWeights, TargetLoss
from metashot.icl.learning.writing.sequences import Alternative, Question, TrainingSequence

VOCABULARY, WINDOW = 64, 8
_WIDTHS: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "n_embd": 32, "d_model": 32, "word_embed_proj_dim": 32, "ffn_dim": 64,
    "intermediate_size": 64, "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2, "num_layers": 2,
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "max_position_embeddings": 128, "n_positions": 128, "rotary_dim": 4, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 1, "num_local_experts": 2, "state_size": 8, "sliding_window": WINDOW, "initializer_range": 0.1,
}  # fmt: skip
_OWN: dict[str, dict[str, Any]] = {
    "granite": {"logits_scaling": 3.0},
    "cohere": {"logit_scale": 0.3},
    "cohere2": {"logit_scale": 0.3, "layer_types": ["sliding_attention", "full_attention"]},
    "gemma2": {"final_logit_softcapping": 2.0, "layer_types": ["sliding_attention", "full_attention"]},
    "gemma3_text": {"layer_types": ["sliding_attention", "full_attention"]},
    "gpt_neo": {"attention_types": [[["global"], 2]]},
    "falcon": {"ffn_hidden_size": 64},
    "falcon_h1": {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "lm_head_multiplier": 0.3},
}  # fmt: skip
ATTENTION = (
    "cohere", "cohere2", "falcon", "gemma", "gemma2", "gemma3_text", "glm", "gpt2", "gpt_neo", "gpt_neox", "gptj",
    "granite", "llama", "mistral", "mixtral", "mpt", "nemotron", "olmo", "olmo2", "opt", "phi", "phi3", "qwen2", "qwen3",
    "smollm3", "stablelm", "starcoder2",
)  # fmt: skip
OTHERS = ("bloom", "falcon_h1", "mamba")
"""A mask cannot keep sequences of one row apart in these."""


def small_model(architecture: str, seed: int = 0) -> PreTrainedModel:
    """Two layers of `architecture` in eval mode; layers with a window see `WINDOW` tokens."""
    known = AutoConfig.for_model(architecture)
    widths = {key: value for key, value in _WIDTHS.items() if key in known.to_dict()}
    config = AutoConfig.for_model(architecture, **{**widths, **_OWN.get(architecture, {})})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def ids(length: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(2, VOCABULARY, length).astype(np.int32)


def sequence(length: int, targets: int, seed: int) -> TrainingSequence:
    start = length - targets
    return TrainingSequence(ids(length, seed), (Question(start, length, start),), 0, seed)


SEQUENCES = [
    sequence(3 * WINDOW, 3, 1),
    sequence(2 * WINDOW, 2, 2),
    sequence(WINDOW, 4, 3),
    sequence(5, 2, 4),
]


def own_loss(model: torch.nn.Module, one: TrainingSequence) -> torch.Tensor:
    """The loss that the model itself computes from labels: mean over targets."""
    tokens = torch.from_numpy(one.ids).long()[None]
    labels = tokens.clone()
    labels[:, : one.first_target] = -100
    return model(input_ids=tokens, labels=labels).loss


@pytest.mark.parametrize("architecture", [*ATTENTION, *OTHERS])
def test_loss_and_gradient_are_the_models_own(architecture: str) -> None:
    model = small_model(architecture)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    own = sum(own_loss(model, one) for one in SEQUENCES) / len(SEQUENCES)
    own.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    loss = sum(TargetLoss(model)(collate([one], Batching.BUCKETED, len(SEQUENCES))) for one in SEQUENCES)
    loss.backward()
    torch.testing.assert_close(loss, own, atol=2e-5, rtol=2e-5)
    assert expected.keys() <= set(names)
    for name, parameter in model.named_parameters():
        if name in expected:
            torch.testing.assert_close(parameter.grad, expected[name], atol=2e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize("architecture", ATTENTION)
def test_packed_sequences_longer_than_the_window_lose_nothing(architecture: str) -> None:
    model = small_model(architecture)
    check_rows_of_several(model, "trainer.batching")
    module = TargetLoss(model)
    with torch.no_grad():
        alone = sum(module(collate([one], Batching.BUCKETED, 4.0)) for one in SEQUENCES)
        packed = module(collate(SEQUENCES, Batching.PACKED, 4.0))
    torch.testing.assert_close(packed, alone, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("architecture", OTHERS)
def test_models_that_mix_up_the_sequences_of_a_row_are_refused(architecture: str) -> None:
    with pytest.raises(ConfigError, match="several sequences in a row would see each other"):
        check_rows_of_several(small_model(architecture), "trainer.batching")


@pytest.mark.parametrize(
    "kinds", [["chunked_attention", "full_attention"], ["sparse_attention", "full_attention"]]
)
def test_layers_of_a_kind_whose_mask_is_not_known_are_refused(kinds: list[str]) -> None:
    """Llama 4 attends in chunks of absolute positions, which a sequence inside a row does not have; others may come."""
    if kinds[0] == "chunked_attention":
        config = AutoConfig.for_model(
            "llama4_text", **{key: _WIDTHS[key] for key in ("vocab_size", "hidden_size", "intermediate_size", "head_dim",
            "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "num_local_experts")},
            intermediate_size_mlp=64, attention_chunk_size=WINDOW, layer_types=kinds, pad_token_id=None,
        )  # fmt: skip
        model = AutoModelForCausalLM.from_config(config).eval()
    else:
        model = small_model("llama")
        model.config.layer_types = kinds
    for key in ("trainer.batching", "trainer.option_weight"):
        with pytest.raises(ConfigError, match=f"{key}: several sequences in a row would see each other"):
            check_rows_of_several(model, key)


@pytest.mark.parametrize("architecture", [*ATTENTION, *OTHERS])
def test_logits_of_own_states_are_the_models(architecture: str) -> None:
    model = small_model(architecture)
    tokens = torch.from_numpy(ids(9, 0)).long()[None]
    with torch.no_grad():
        states = decoder(model)(input_ids=tokens, use_cache=False).last_hidden_state
        torch.testing.assert_close(logits_of(model, states), model(input_ids=tokens).logits)


def question_sequence(lengths: list[int], lead: int, seed: int) -> TrainingSequence:
    """A context, a question with a right option of lengths[0] tokens, the next example, and a second question."""
    context, right = WINDOW + 3, lead + lengths[0]
    others = tuple(Alternative(ids(lead + n, seed + 10 + place), lead) for place, n in enumerate(lengths[1:]))
    middle = context + right + 4
    total = middle + right
    first = Question(context + lead, context + right, context, others)
    second = Question(middle + lead, total, middle, others[:1])
    return TrainingSequence(ids(total, seed), (first, second), 0, seed)


def slow_option_loss(model: torch.nn.Module, one: TrainingSequence) -> torch.Tensor:
    """Every option in a forward pass of its own; mean over questions."""
    losses = []
    for question in one.questions:
        context = one.ids[: question.branch]
        right = one.ids[question.branch : question.end]
        options = [(right, question.start - question.branch)]
        options += [(other.ids, other.lead) for other in question.alternatives]
        scores = []
        for option, lead in options:
            tokens = torch.from_numpy(np.concatenate([context, option])).long()[None]
            labels = tokens.clone()
            labels[:, : len(context) + lead] = -100
            scores.append(-model(input_ids=tokens, labels=labels).loss)
        losses.append(-torch.stack(scores).log_softmax(0)[0])
    return torch.stack(losses).mean()


@pytest.mark.parametrize("batching", [Batching.BUCKETED, Batching.PACKED])
@pytest.mark.parametrize("lead", [0, 2])
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma2", "gemma3_text", "mistral", "cohere2"])
def test_options_as_branches_equal_options_in_passes_of_their_own(
    architecture: str, lead: int, batching: Batching
) -> None:
    model = small_model(architecture)
    sequences = [question_sequence([2, 1, 3], lead, 1), question_sequence([1, 2], lead, 2)]
    with torch.no_grad():
        expected = sum(slow_option_loss(model, one) for one in sequences) / 2
        got = TargetLoss(model, LossWeights(0.0, 1.0))(collate(sequences, batching, 2.0))
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=2e-5)


@given(
    lengths=st.lists(st.integers(1, 4), min_size=2, max_size=5),
    lead=st.integers(0, 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=10)
def test_branches_change_no_token_loss(lengths: list[int], lead: int, seed: int) -> None:
    model = small_model("llama")
    one = question_sequence(lengths, lead, seed)
    bare = [Question(q.start, q.end, q.branch) for q in one.questions]
    without = TrainingSequence(one.ids, tuple(bare), 0, 0)
    module = TargetLoss(model)
    with torch.no_grad():
        got, expected = (module(collate([each], Batching.BUCKETED, 1.0)) for each in (one, without))
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=2e-5)
