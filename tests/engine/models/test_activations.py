"""The fused GELU against the written-out one that models come with: values, gradients, a whole training step."""

import pytest
import torch
from transformers.activations import GELUTanh, NewGELUActivation

from metashot.engine.models.activations import fuse_gelu, gelu_in_place
from metashot.engine.models.tiny import tiny_model

EPSILON = torch.finfo(torch.float32).eps


def test_values_and_gradients_are_those_of_the_formula_within_rounding():
    # 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), in float64 as the reference.
    inputs = torch.cat([torch.linspace(-12, 12, 4001), torch.tensor([0.0, 1e-20, -1e-20])])
    exact = inputs.double().requires_grad_()
    NewGELUActivation()(exact).sum().backward()
    for activation in (NewGELUActivation(), GELUTanh()):
        own = inputs.clone().requires_grad_()
        values = activation(own)
        values.sum().backward()
        reference = NewGELUActivation()(inputs.double())
        # Either form cancels in 1 + tanh for negative inputs: absolute errors of some roundings of |x|.
        room = 4 * EPSILON * inputs.abs().clamp(min=1.0)
        assert ((values.detach() - reference).abs() <= room).all()
        assert ((own.grad - exact.grad).abs() <= 4 * room).all()


@pytest.mark.parametrize("architecture", ["gpt2", "gptj"])
def test_a_step_has_the_gradients_of_the_model_as_it_came(architecture):
    ids = torch.randint(0, 256, (3, 17), generator=torch.Generator().manual_seed(0))
    steps = []
    for fused in (False, True):
        model, _ = tiny_model(architecture)
        if fused:
            fuse_gelu(model)
            kinds = {type(one) for one in model.modules()}
            assert GELUTanh in kinds
            assert NewGELUActivation not in kinds
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        steps.append((loss.detach(), {name: one.grad for name, one in model.named_parameters()}))
    (slow_loss, slow), (loss, gradients) = steps
    torch.testing.assert_close(loss, slow_loss, rtol=1e-6, atol=0)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, slow[name], rtol=1e-4, atol=1e-6 * float(slow[name].abs().max()))


def test_weights_keep_their_names_and_a_model_without_it_stays_as_it_is():
    for architecture in ("gpt2", "llama"):
        model, _ = tiny_model(architecture)
        names, printed = list(model.state_dict()), str(model)
        fuse_gelu(model)
        assert list(model.state_dict()) == names
        assert (str(model) == printed) == (architecture == "llama")


def test_scoring_writes_over_the_input_and_leaves_the_model_as_it_was():
    model, _ = tiny_model("gpt2")
    activation = next(one for one in model.modules() if isinstance(one, NewGELUActivation))
    inputs = torch.linspace(-3, 3, 7)
    expected = activation(inputs)
    with gelu_in_place(model), torch.no_grad():
        given = inputs.clone()
        assert activation(given) is given
        torch.testing.assert_close(given, expected)
    assert activation(inputs) is not inputs
