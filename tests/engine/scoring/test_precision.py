"""Half-precision weights with float32 between their products, against the same weights in float32."""

import copy

import pytest
import torch

from metashot.engine.scoring.plain import score_plain
from metashot.engine.scoring.precision import float32_between_products, keeps_float32_states
from metashot.engine.scoring.prefix import PrefixScorer
from metashot.engine.scoring.request import Request
from metashot.engine.scoring.vocabulary import float32_product

REQUESTS = [Request((*range(20, 60), first), tuple(range(100 + first, 110 + first))) for first in range(12)]


def mean_error(scores, exact):
    return float((torch.cat(scores) - torch.cat(exact)).abs().mean())


def as_transformers_runs_it(model, request):
    tokens = torch.tensor([request.context + request.target])
    log_probs = model(tokens).logits.float().log_softmax(-1)[0, :-1]
    return log_probs.gather(1, tokens[0, 1:, None]).squeeze(1)[-len(request.target) :]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3_moe"])
@torch.inference_mode()
def test_scores_are_nearer_to_float32_than_the_models_own_and_the_model_stays_as_it_was(
    tiny_architecture, name, dtype
):
    """Twelve layers add their rounding up in the residual stream, which is where it is kept out."""
    depth = "n_layer" if name == "gpt2" else "num_hidden_layers"
    model = tiny_architecture(name, dtype, **{depth: 12})
    # Softer weights than those for telling routes apart: scores that saturate tell nothing of rounding.
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.div_(2.5)
    exact = score_plain(copy.deepcopy(model).float(), REQUESTS)
    own = [as_transformers_runs_it(model, request) for request in REQUESTS]
    assert keeps_float32_states(model)
    for ours in (PrefixScorer(model, force=True).score(REQUESTS), score_plain(model, REQUESTS)):
        assert mean_error(ours, exact) < 0.75 * mean_error(own, exact)
    again = [as_transformers_runs_it(model, request) for request in REQUESTS]
    assert all(map(torch.equal, own, again))


def test_a_model_in_float32_is_left_alone(tiny_architecture):
    model = tiny_architecture("llama")
    assert not keeps_float32_states(model)
    with float32_between_products(model):
        assert not any(module._forward_hooks or "forward" in vars(module) for module in model.modules())


def test_a_model_that_multiplies_by_itself_runs_as_it_is(tiny_architecture):
    """Its product of float32 states and half-precision weights fails; what changed is undone."""
    model = tiny_architecture("llama", torch.bfloat16)
    weight = torch.eye(model.config.hidden_size, dtype=torch.bfloat16)
    model.model.layers[0].mlp.forward = lambda states: states @ weight
    assert not keeps_float32_states(model)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert PrefixScorer(model).route == "shared_prefixes"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_product_in_float32_rounds_no_result(dtype):
    torch.manual_seed(0)
    hidden, weight = 8 * torch.randn(5, 64), torch.randn(5000, 64).to(dtype)
    torch.testing.assert_close(float32_product(hidden, weight), hidden @ weight.float().T)
