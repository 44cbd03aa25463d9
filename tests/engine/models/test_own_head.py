"""Logits at chosen positions are the model's own, and so are their gradients."""

import pytest
import torch

from metashot.base.errors import ModelError
from metashot.engine.models.own_head import head_input, logits_at, output_embedding
from metashot.engine.models.tiny import tiny_model

SELECTED = torch.tensor([[False, True, False, True], [False, False, True, False]])
POSITIONS = SELECTED.nonzero(as_tuple=True)
IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])


@pytest.mark.parametrize("architecture", ["gpt2", "gptj", "gemma2"])
def test_logits_and_gradients_equal_those_of_full_logits(architecture):
    model, _ = tiny_model(architecture)
    ours = logits_at(model, *POSITIONS, input_ids=IDS)
    full = model(input_ids=IDS, use_cache=False).logits[SELECTED]
    torch.testing.assert_close(ours, full)
    weights = list(model.parameters())
    gradients = (torch.autograd.grad(rows.logsumexp(-1).sum(), weights) for rows in (ours, full))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_an_encoder_decoder_too():
    model, _ = tiny_model("t5")
    inputs = {"input_ids": IDS, "decoder_input_ids": IDS}
    torch.testing.assert_close(logits_at(model, *POSITIONS, **inputs), model(**inputs).logits[SELECTED])


def test_the_head_sees_the_selected_rows_only_and_is_left_as_it_was():
    model, _ = tiny_model("llama")
    seen = []
    watch = output_embedding(model).register_forward_hook(lambda _, args, out: seen.append(out.shape[:-1]))
    logits_at(model, *POSITIONS, input_ids=IDS)
    watch.remove()
    assert seen == [(3,)]
    with pytest.raises(KeyboardInterrupt), head_input(model, lambda hidden: hidden[:0]):
        raise KeyboardInterrupt
    assert model(input_ids=IDS).logits.shape[:2] == IDS.shape


def test_a_model_without_a_head_is_refused():
    model, _ = tiny_model("gpt2")
    with pytest.raises(ModelError, match="GPT2Model has no output embeddings"):
        logits_at(model.transformer, *POSITIONS, input_ids=IDS)
