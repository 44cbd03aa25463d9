"""Every architecture is scored as by the plain scorer, by the fastest way that its layers allow."""

import random

import pytest
import torch

from metashot.engine.models.sources import LocalModel
from metashot.engine.scoring.plain import score_plain
from metashot.engine.scoring.prefix import PrefixScorer
from metashot.engine.scoring.request import Request

TINY_BUDGET = 1
TOLERANCE_NATS = 1e-4

SHARED = [
    "afmoe",
    "apertus",
    "arcee",
    "aria_text",
    "beam",
    "biogpt",
    "bitnet",
    "bloom",
    "codegen",
    "cohere",
    "cohere2",
    "cohere2_moe",
    "ctrl",
    "cwm",
    "deepseek_v2",
    "deepseek_v3",
    "diffllama",
    "dots1",
    "ernie4_5",
    "ernie4_5_moe",
    "exaone4",
    "exaone_moe",
    "falcon",
    "flex_olmo",
    "gemma",
    "gemma2",
    "gemma3_text",
    "glm",
    "glm4",
    "glm4_moe",
    "glm4_moe_lite",
    "gpt2",
    "gpt_bigcode",
    "gpt_neo",
    "gpt_neox",
    "gpt_oss",
    "gptj",
    "granite",
    "granite_swa",
    "granitemoe",
    "granitemoeshared",
    "helium",
    "hunyuan_v1_dense",
    "hunyuan_v1_moe",
    "hyperclovax",
    "internlm3",
    "iquestcoder",
    "jais2",
    "jetmoe",
    "laguna",
    "llama",
    "mellum",
    "mimo_v2_flash",
    "minicpm3",
    "minimax_m2",
    "ministral",
    "ministral3",
    "mistral",
    "mixtral",
    "modernbert-decoder",
    "mpt",
    "nanochat",
    "nemotron",
    "olmo",
    "olmo2",
    "olmo3",
    "olmoe",
    "opt",
    "persimmon",
    "phi",
    "phi3",
    "phimoe",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "seed_oss",
    "smollm3",
    "solar_open",
    "stablelm",
    "starcoder2",
    "vaultgemma",
    "youtu",
]
CACHED = {
    "doge": "it computes on its attention mask",
    "falcon_h1": "replacing a prompt's tokens changes its neighbours' scores",
    "gpt_neox_japanese": "it computes on its attention mask",
    "lfm2": "only 1 of its 2 layers go through transformers' attention interface",
    "llama4_text": "its attention mask is neither causal nor a sliding window",
    "mamba2": "only 0 of its 2 layers",
    "nemotron_h": "only 1 of its 2 layers",
    "qwen3_5_text": "only 1 of its 2 layers",
    "qwen3_next": "only 1 of its 2 layers",
    "xglm": "it computes on its attention mask",
}
PLAIN = {
    "bamba": "with a cached prefix, its scores differ from those of a request alone",
    "jamba": "with a cached prefix, its scores differ from those of a request alone",
    "mamba": "with a cached prefix, its scores differ from those of a request alone",
    "openai-gpt": "with a cached prefix, it gives no cache",
    "recurrent_gemma": "with a cached prefix, it gives no cache",
}
FAST = {"bloom", "deepseek_v3", "falcon_h1", "gemma3_text", "gpt_oss", "lfm2", "opt", "qwen3_moe"}


def _text(rng, length):
    return tuple(rng.randrange(8, 312) for _ in range(length))


def _requests(seed):
    """Demonstrations, inputs and options past the window of 16, and some that share nothing."""
    rng = random.Random(seed)
    demos = _text(rng, 100)
    inputs, options = [_text(rng, 20) for _ in range(4)], [_text(rng, n) for n in (1, 3, 9)]
    requests = [Request(demos + i, o) for i in inputs for o in options]
    requests += [
        Request(demos + options[1], inputs[0]),
        Request(_text(rng, 12), options[1]),
        Request((), inputs[0]),
    ]
    rng.shuffle(requests)
    return requests


def _worst(one, other):
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


def _all_architectures():
    for route, names in (("shared_prefixes", SHARED), ("cached_prefix", CACHED), ("plain", PLAIN)):
        for name in names:
            yield pytest.param(name, route, id=name, marks=[] if name in FAST else [pytest.mark.slow])


@pytest.mark.parametrize(("name", "route"), _all_architectures())
def test_scores_equal_plain_ones_and_neighbours_leave_each_other_alone(tiny_architecture, name, route):
    model = tiny_architecture(name)
    scorer = PrefixScorer(model)
    assert scorer.route == route
    if route == "shared_prefixes":
        assert scorer.reason is None
    else:
        assert {**CACHED, **PLAIN}[name] in scorer.reason
    requests = _requests(len(name))
    plain = score_plain(model, requests)
    assert float(torch.cat(plain).std()) > 0.01  # not a model that finds everything equally likely
    assert _worst(scorer.score(requests), plain) <= TOLERANCE_NATS
    if route == "shared_prefixes":
        assert _worst(PrefixScorer(model, TINY_BUDGET).score(requests), plain) <= TOLERANCE_NATS
        _assert_isolated(scorer)


def _assert_isolated(scorer):
    """Other tokens in one of three branches, at the root and below it, change no bit of the other two."""
    rng = random.Random(7)
    for context in ((), _text(rng, 70)):
        one, two, three = ((first, *_text(rng, 30)) for first in (20, 21, 22))
        other = (two[0], *_text(rng, 30))
        before = scorer.score([Request(context, branch) for branch in (one, two, three)])
        after = scorer.score([Request(context, branch) for branch in (one, other, three)])
        assert torch.equal(before[0], after[0])
        assert torch.equal(before[2], after[2])
        assert not torch.equal(before[1], after[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SHARED, *CACHED])
def test_bfloat16_takes_the_same_way(tiny_architecture, name):
    """The probe tells good from bad in bfloat16 too, where rounding is a thousand times that of float32."""
    scorer = PrefixScorer(tiny_architecture(name, torch.bfloat16))
    assert scorer.route == ("shared_prefixes" if name in SHARED else "cached_prefix")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SHARED, *CACHED, *PLAIN])
def test_a_saved_model_loads_with_the_shipped_settings_and_is_the_same(tiny_architecture, tmp_path, name):
    model = tiny_architecture(name)
    model.save_pretrained(tmp_path)
    loaded = LocalModel("saved", str(tmp_path)).read_model().eval()
    ids = torch.tensor([_text(random.Random(3), 24)])
    with torch.inference_mode():
        expected, found = (one(input_ids=ids, use_cache=False).logits for one in (model, loaded))
    torch.testing.assert_close(found, expected, atol=TOLERANCE_NATS, rtol=0)


def test_there_are_at_least_55_architectures_with_shared_prefixes():
    assert len(SHARED) >= 55
