"""States at the answer: of the shared pass, of any layer, and put in place, beside plain forward passes of one request."""

import pytest
import torch

from metashot.base.errors import ModelError
from metashot.engine.models.loading import LazyLanguageModel
from metashot.engine.models.sources import TinyModel
from metashot.engine.scoring.plain import PlainScorer
from metashot.engine.scoring.prefix import PrefixScorer
from metashot.engine.scoring.request import Request, StatesScorer
from metashot.engine.scoring.states import answer_states, decoder_layers, layer_states, score_with_state

REQUESTS = (
    Request((5, 6, 7, 8), (9, 10)),
    Request((5, 6, 7, 8), (11,)),
    Request((5, 6, 12), (9, 10, 13)),
    Request((40, 41, 42, 43, 44, 45), (9,)),
)


@pytest.fixture(params=["gpt2", "llama"])
def model(request):
    return LazyLanguageModel(TinyModel("tiny", request.param)).load().model


def alone(model, request):
    """What transformers says of one context: the states behind each layer [layers + 1, d], the last normalized."""
    with torch.inference_mode():
        out = model(torch.tensor([request.context]), output_hidden_states=True)
    return torch.stack([states[0, -1] for states in out.hidden_states])


def test_the_shared_pass_gives_the_states_that_the_model_gives_alone(model):
    scorer = PrefixScorer(model)
    assert scorer.shares_prefixes
    assert isinstance(scorer, StatesScorer)
    scores, states = scorer.score_with_states(REQUESTS)
    expected = torch.stack([alone(model, request)[-1] for request in REQUESTS])
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-4)
    for one, other in zip(scores, scorer.score(REQUESTS), strict=True):
        torch.testing.assert_close(one, other)


def test_without_sharing_they_are_the_same(model):
    expected = torch.stack([alone(model, request)[-1] for request in REQUESTS])
    torch.testing.assert_close(answer_states(model, REQUESTS, 2), expected, atol=1e-5, rtol=1e-4)
    plain = PlainScorer(model).score_with_states(REQUESTS)[1]
    torch.testing.assert_close(plain, expected, atol=1e-5, rtol=1e-4)


def test_the_states_of_all_layers_are_those_that_transformers_lists(model):
    """transformers lists the embeddings first and the last layer normalized, so the ones between are compared."""
    states = layer_states(model, REQUESTS, 3)
    assert states.shape[1] == len(decoder_layers(model)) == model.config.num_hidden_layers
    for row, request in zip(states, REQUESTS, strict=True):
        torch.testing.assert_close(row[:-1], alone(model, request)[1:-1], atol=1e-5, rtol=1e-4)


def test_a_state_that_a_layer_gives_anyway_changes_nothing(model):
    states = layer_states(model, REQUESTS)
    plain = PlainScorer(model).score(REQUESTS)
    for layer in range(1, states.shape[1] + 1):
        for place, request in enumerate(REQUESTS):
            (found,) = score_with_state(model, [request], layer, states[place, layer - 1])
            torch.testing.assert_close(found, plain[place], atol=1e-5, rtol=1e-4)


def test_a_state_of_another_prompt_is_read_by_the_layers_above_it():
    """GPT-2 by hand: embeddings, blocks one by one, the state put behind the first block, norm and head."""
    model = LazyLanguageModel(TinyModel("tiny", "gpt2")).load().model
    state = layer_states(model, [REQUESTS[3]])[0, 0]
    request, parts = REQUESTS[2], model.transformer
    ids = torch.tensor([request.context + request.target])
    with torch.inference_mode():
        hidden = parts.wte(ids) + parts.wpe(torch.arange(ids.shape[1]))
        for number, block in enumerate(parts.h, start=1):
            given = block(hidden)
            hidden = given[0] if isinstance(given, tuple) else given
            if number == 1:
                hidden = hidden.clone()
                hidden[0, len(request.context) - 1] = state
        logs = model.lm_head(parts.ln_f(hidden))[0].log_softmax(-1)
    at = len(request.context) - 1
    expected = [float(logs[at + place, token]) for place, token in enumerate(request.target)]
    (found,) = score_with_state(model, [request], 1, state)
    assert found.tolist() == pytest.approx(expected, abs=1e-5)
    assert found.tolist() != pytest.approx(PlainScorer(model).score([request])[0].tolist(), abs=1e-3)


def test_a_model_without_one_list_of_layers_is_refused():
    seq2seq = LazyLanguageModel(TinyModel("tiny", "t5")).load().model
    with pytest.raises(ModelError, match="decoder layers"):
        decoder_layers(seq2seq)
