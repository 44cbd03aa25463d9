"""Groups of requests around a common prefix, and the model's own cache filled once for each."""

import random

import pytest
import torch

from metashot.engine.models.tiny import tiny_model
from metashot.engine.scoring.cached_prefix import CachedPrefixScorer, prefix_groups
from metashot.engine.scoring.plain import score_plain
from metashot.engine.scoring.request import Request, targets_only
from metashot.engine.scoring.routes import choose_route

DEMOS = tuple(range(100, 200))


def _direct():
    return [Request((*DEMOS, *range(20 + i, 40 + i)), (5 + o, 6)) for i in range(4) for o in range(3)]


def test_requests_with_the_same_demonstrations_are_one_group():
    """101 tokens would be shared by pairs of inputs 20.. and 21..; 100 by all twelve save more."""
    [group] = prefix_groups(_direct())
    assert (group.shared, sorted(group.members)) == (100, list(range(12)))


def test_without_demonstrations_each_input_is_a_group_of_its_options():
    requests = [
        Request(tuple(range(30 * i + 8, 30 * i + 38)), (5 + o, 6)) for i in range(3) for o in range(4)
    ]
    # One token of the context stays to predict the first token of the options.
    assert [(group.shared, len(group.members)) for group in prefix_groups(requests)] == [(29, 4)] * 3


def test_what_shares_nothing_is_no_group_worth_a_cache():
    groups = prefix_groups([Request((8, 9, 10), (5,)), Request((11, 12), (5,)), Request((), (5,))])
    assert [group.members for group in groups] == [(0,), (1,)]  # the third has nothing to score
    assert not any(group.is_worthwhile for group in groups)


def test_the_prefix_runs_once_whatever_the_batch_size():
    model, _ = tiny_model("gpt2")
    requests = [*_direct(), Request((8, 9), (10, 11))]
    random.Random(0).shuffle(requests)
    plain = score_plain(model, requests)
    for batch_size in (1, 5, 64):
        scorer, seen = CachedPrefixScorer(model, batch_size), []
        watch = model.transformer.wte.register_forward_hook(
            lambda _, args, out, seen=seen: seen.append(args[0].numel())
        )
        told = []
        found = scorer.score_with_best(requests, lambda *progress, told=told: told.append(progress))
        scores = targets_only(found)
        watch.remove()
        for one, other in zip(scores, plain, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
        assert sum(seen) == scorer.tokens_computed(requests) == 100 + 12 * 22 + 4
        assert told[-1] == (12 * 122 + 4,) * 2


def test_out_of_memory_halves_the_branches(monkeypatch, caplog):
    model, _ = tiny_model("gpt2")
    real = CachedPrefixScorer._branches

    def starved(self, name, cache, shared, batch):
        if len(batch) > 3:
            raise MemoryError
        return real(self, name, cache, shared, batch)

    monkeypatch.setattr(CachedPrefixScorer, "_branches", starved)
    scores = targets_only(CachedPrefixScorer(model, 8).score_with_best(_direct()))
    plain = score_plain(model, _direct())
    assert max(float((a - b).abs().max()) for a, b in zip(scores, plain, strict=True)) <= 1e-5
    assert "out of memory with 8 branches: going on with 4" in caplog.text


@pytest.mark.parametrize(
    "name",
    [
        "lfm2",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("falcon_h1", "mamba2", "nemotron_h", "qwen3_next", "zamba2")
        ),
    ],
)
def test_branches_of_recurrent_states_run_in_one_batch(tiny_architecture, name):
    """Padding stands behind what is scored, so a state that it enters is read by nothing."""
    settings = {"zamba2": {"mamba_d_state": 8, "n_mamba_heads": 4, "mamba_headdim": 24, "mamba_ngroups": 1, "num_mem_blocks": 1,
                           "attention_head_dim": 24, "layers_block_type": ["mamba", "hybrid"]}}  # fmt: skip
    model = tiny_architecture(name, **settings.get(name, {}))
    scorer = choose_route(model, None, 8).scorer
    assert isinstance(scorer, CachedPrefixScorer)
    assert scorer.batch_size == 8
    uneven = [Request(DEMOS[:60] + tuple(range(20, 24 + 7 * i)), tuple(range(5, 6 + i))) for i in range(6)]
    alone = [score_plain(model, [request])[0] for request in uneven]
    found = targets_only(scorer.score_with_best(uneven))
    assert max(float((a - b).abs().max()) for a, b in zip(found, alone, strict=True)) <= 1e-4
