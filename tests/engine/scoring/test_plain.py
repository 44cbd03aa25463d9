"""The plain reference against a loop over single sequences, written as the definition reads."""

import pytest
import torch

from metashot.base.errors import ConfigError, ModelError
from metashot.engine.models.tiny import tiny_model
from metashot.engine.scoring import plain
from metashot.engine.scoring.plain import score_plain
from metashot.engine.scoring.request import Request


def test_score_is_the_log_probability_of_each_target_token_given_all_before_it():
    model, _ = tiny_model("gpt2")
    request = Request((5, 6, 7), (8, 9))
    log_probs = model(torch.tensor([[5, 6, 7, 8, 9]])).logits.log_softmax(-1)[0]
    [scores] = score_plain(model, [request])
    assert scores.tolist() == pytest.approx([log_probs[2, 8].item(), log_probs[3, 9].item()], abs=1e-5)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gptj", "gemma", "gemma2", "t5"])
def test_padding_and_batch_size_change_nothing(architecture):
    model, _ = tiny_model(architecture)
    requests = [Request(tuple(range(5, 5 + n)), (30, 31, 32)[: 1 + n % 3]) for n in (1, 9, 4, 20, 2)]
    alone = [score_plain(model, [request])[0] for request in requests]
    together = score_plain(model, requests, batch_size=5, pad_to=40)
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_the_first_target_token_after_an_empty_context_is_not_scored():
    model, _ = tiny_model("gpt2")
    scores = score_plain(model, [Request((), (5, 6, 7)), Request((), (5,)), Request((5,), ())])
    assert [len(score) for score in scores] == [2, 0, 0]
    torch.testing.assert_close(scores[0], score_plain(model, [Request((5,), (6, 7))])[0])


def test_a_sequence_longer_than_the_positions_is_refused():
    model, _ = tiny_model("gpt2")
    with pytest.raises(
        ConfigError, match=r"2047 context and 2 target tokens, 2049 in all, but .* 2048 positions"
    ):
        score_plain(model, [Request((5,) * 2047, (6, 7))])


def test_nan_logits_are_an_error_that_names_the_request():
    model, _ = tiny_model("gpt2")
    with torch.no_grad():
        model.get_input_embeddings().weight[77] = float("nan")
    with pytest.raises(ModelError, match="request 0: a target log-probability is nan"):
        score_plain(model, [Request((77,), (6, 7))])


def test_out_of_memory_halves_the_batch(monkeypatch, caplog):
    model, _ = tiny_model("gpt2")
    requests = [Request((5, 6, 7 + n), (8, 9)) for n in range(6)]
    expected = score_plain(model, requests)
    real = plain._score_causal

    def starved(model, batch, pad_to):
        if len(batch) > 2:
            raise MemoryError
        return real(model, batch, pad_to)

    monkeypatch.setattr(plain, "_score_causal", starved)
    for one, other in zip(score_plain(model, requests, batch_size=6), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    assert "out of memory with 3 requests at a time: going on with 1" in caplog.text
