"""Threads that share a model: each gets the numbers of a thread alone, and the model stays whole."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from metashot.engine.generation.prefix import PrefixGenerator
from metashot.engine.generation.request import GenerationRequest, Stopping
from metashot.engine.models.loading import load_model
from metashot.engine.models.sources import TinyModel
from metashot.engine.scoring.plain import PlainScorer
from metashot.engine.scoring.prefix import PrefixScorer
from metashot.engine.scoring.request import Request

THREADS = 8


def requests(seed):
    rng = random.Random(seed)

    def text(length):
        return tuple(rng.randrange(8, 312) for _ in range(length))

    shared = text(30)
    return tuple(Request(shared + text(5 + seed), text(1 + i % 3)) for i in range(6))


def state(model):
    """What a scorer changes for a while: attention names, hooks, exchanged forward passes."""
    return [
        (
            name,
            sorted(set(vars(module)) & {"forward", "_attn"}),
            len(module._forward_pre_hooks) + len(module._forward_hooks),
            getattr(getattr(module, "config", None), "_attn_implementation", None),
        )
        for name, module in model.named_modules()
    ]


@pytest.mark.parametrize(
    ("architecture", "dtype"), [("gpt2", "float32"), ("gptj", "float32"), ("llama", "bfloat16")]
)
def test_eight_threads_in_one_model(architecture, dtype):
    """Shared prefixes, plain batches and greedy decoding at once, with scorers of their own and one for all."""
    loaded = load_model(TinyModel("tiny", architecture, dtype=dtype, device="cpu"))
    model = loaded.model
    before, shared = state(model), PrefixScorer(model)

    def work(seed):
        mine = [PrefixScorer, lambda _: shared, PlainScorer][seed % 3](model)
        words = PrefixGenerator(model, loaded.tokenizer).generate(
            [GenerationRequest(requests(seed)[0].context)], Stopping(4, ())
        )
        return [torch.cat(mine.score(requests(seed))) for _ in range(3)], words

    expected = [work(seed) for seed in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(work, range(THREADS), timeout=300))
    for (scores, words), (alone, said) in zip(found, expected, strict=True):
        assert words == said
        assert all(torch.equal(one, other) for one, other in zip(scores, alone, strict=True))
    assert state(model) == before
