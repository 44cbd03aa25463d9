"""Rotary factors that depend on the length: a score does not depend on what it is computed together with."""

import pytest
import torch

from metashot.engine.scoring.plain import score_plain
from metashot.engine.scoring.prefix import PrefixScorer
from metashot.engine.scoring.request import Request
from metashot.engine.scoring.ropes import RopeRegimes

SHORT, LONG, LONGER = (Request(tuple(range(20, 20 + n)), (5, 6, 7)) for n in (30, 80, 120))
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 64, "factor": 4.0,
            "short_factor": [1.0] * 6, "long_factor": [8.0] * 6}  # fmt: skip
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}


@pytest.fixture
def longrope(tiny_architecture):
    return tiny_architecture(
        "phi3", rope_parameters=LONGROPE, max_position_embeddings=256,
        original_max_position_embeddings=64, sliding_window=None,
    )  # fmt: skip


@pytest.fixture
def dynamic(tiny_architecture):
    """The original length is that of the positions, so only a config that allows more can be long."""
    model = tiny_architecture("llama", rope_parameters=DYNAMIC, max_position_embeddings=64)
    model.config.max_position_embeddings = 256
    return model


def test_a_length_belongs_to_the_regime_of_its_longest_position(longrope, dynamic):
    """Long factors from 65 tokens on, for which position 64 stands; dynamic ones are those of each length."""
    assert [RopeRegimes.of(longrope).regime(n) for n in (64, 65, 200)] == [None, 64, 64]
    assert [RopeRegimes.of(dynamic).regime(n) for n in (64, 65, 200)] == [None, 64, 199]
    assert RopeRegimes.of(longrope).borders == {64}


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
@pytest.mark.parametrize("score", [score_plain, lambda model, requests: PrefixScorer(model).score(requests)])
def test_neighbours_of_another_length_change_nothing(request, kind, score):
    model = request.getfixturevalue(kind)
    requests = [LONGER, SHORT, LONG, SHORT]
    together = score(model, requests)
    for one, given in zip(together, requests, strict=True):
        alone = score(model, [given])[0]
        torch.testing.assert_close(one, alone, atol=1e-5, rtol=0)
        ids = torch.tensor([given.context + given.target])
        RopeRegimes.of(model).forget()
        log_probs = model(ids).logits[0, -4:-1].log_softmax(-1)
        torch.testing.assert_close(
            one, log_probs.gather(1, ids[0, -3:, None])[:, 0].detach(), atol=1e-5, rtol=0
        )


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_prefixes_are_shared_within_a_regime(request, kind):
    scorer = PrefixScorer(request.getfixturevalue(kind))
    assert scorer.route == "shared_prefixes"
    # 32 of the short one; 82 and 122 of the long ones, of which LongRoPE shares the first 80.
    shared = 80 if kind == "longrope" else 0
    assert scorer.tokens_computed([SHORT, LONG, LONGER]) == 32 + 82 + 122 - shared


def test_requests_past_longropes_original_length_are_told_once(longrope, caplog):
    scorer = PrefixScorer(longrope)
    told = []
    for requests in ([SHORT], [SHORT, LONG], [LONGER]):
        scorer.score(requests)
        told.append(sum("longrope's long factors" in line for line in caplog.messages))
    assert told == [0, 1, 1]
