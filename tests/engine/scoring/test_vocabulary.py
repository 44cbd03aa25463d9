"""The tiled log-sum-exp equals log-softmax over full logits."""

import pytest
import torch

from metashot.engine.scoring import vocabulary
from metashot.engine.scoring.vocabulary import Head, chosen_and_best, token_log_probs


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("bias", [True, False])
def test_tiles_give_the_log_softmax(monkeypatch, bias, softcap):
    monkeypatch.setattr(vocabulary, "_TILE_ROWS", 3)
    monkeypatch.setattr(vocabulary, "_TILE_TOKENS", 7)
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(10, 6, generator=generator), torch.randn(31, 6, generator=generator)
    offset = torch.randn(31, generator=generator) if bias else None
    rows, tokens = torch.tensor([0, 0, 2, 3, 7, 7, 9]), torch.tensor([0, 30, 6, 7, 13, 14, 29])
    logits = hidden @ weight.T + (offset if offset is not None else 0)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    ours = token_log_probs(Head(weight, offset, softcap), hidden, rows, tokens)
    log_probs = logits.log_softmax(-1)
    torch.testing.assert_close(ours, torch.stack([log_probs[rows, tokens], log_probs.amax(-1)[rows]], dim=1))
    torch.testing.assert_close(chosen_and_best(logits[rows], tokens), ours)


def test_huge_logits_do_not_overflow():
    hidden, weight = torch.tensor([[1000.0]]), torch.tensor([[1.0], [0.999], [-1.0]])
    [[chosen, best]] = token_log_probs(Head(weight), hidden, torch.tensor([0]), torch.tensor([0])).tolist()
    assert best == chosen
    assert best == pytest.approx(-0.3133, abs=1e-3)  # -log(1 + e^-1)
