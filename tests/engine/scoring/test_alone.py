"""A score depends on its request alone: on every route, behind every border that a config names, in every cell."""

import random

import pytest
import torch

from metashot.base.errors import ModelError
from metashot.engine.scoring.batches import rows_for_budget
from metashot.engine.scoring.borders import borders_of
from metashot.engine.scoring.plain import PlainScorer, difference_to_alone, score_in_batches, score_plain
from metashot.engine.scoring.plan import ModelSize
from metashot.engine.scoring.prefix import PrefixScorer
from metashot.engine.scoring.request import Request, targets_only

pytestmark = pytest.mark.slow

TOLERANCE_NATS = 1e-4
_LATENT = {"qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8, "kv_lora_rank": 16, "q_lora_rank": 16,
           "head_dim": 4, "num_key_value_heads": 4}  # fmt: skip
CHOOSING = {
    "deepseek_v32": {**_LATENT, "index_n_heads": 2, "index_head_dim": 8, "index_topk": 360},
    "glm_moe_dsa": {**_LATENT, "index_n_heads": 2, "index_head_dim": 8, "index_topk": 360},
    "deepseek_v4": {
        "sliding_window": 16, "layer_types": ["sliding_attention", "heavily_compressed_attention"],
        "compress_rates": {"heavily_compressed_attention": 128, "compressed_sparse_attention": 4},
    },
}  # fmt: skip
"""Models whose attention chooses tokens, or compresses blocks of them, in lengths that no short probe reaches."""


def _text(rng, length):
    return tuple(rng.randrange(8, 312) for _ in range(length))


def _requests(seed, demonstrations):
    rng = random.Random(seed)
    shown, options = _text(rng, demonstrations), [_text(rng, n) for n in (1, 4)]
    asked = [_text(rng, n) for n in (15, 9, 12)]
    return [Request(shown + i, o) for i in asked for o in options] + [Request(_text(rng, 12), options[1])]


@torch.inference_mode()
def _alone(model, requests):
    """The model's own forward pass over each request, by transformers itself."""
    found = []
    for request in requests:
        ids = torch.tensor([request.context + request.target])
        log_probs = model(input_ids=ids).logits[0].float().log_softmax(-1)
        places = torch.arange(len(request.context) - 1, request.length - 1)
        found.append(log_probs[places, torch.tensor(request.target)])
    return found


def _worst(one, other):
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("memory_mb", [None, 1])
@pytest.mark.parametrize("name", CHOOSING)
def test_attention_that_chooses_tokens_is_found_when_requests_grow(tiny_architecture, name, memory_mb):
    model = tiny_architecture(name, **CHOOSING[name])
    short, long = _requests(1, 60), _requests(2, 500)
    scorer = PrefixScorer(model, memory_mb)
    for requests in (short, long, short):
        assert _worst(scorer.score(requests), _alone(model, requests)) <= TOLERANCE_NATS
    assert _worst(score_plain(model, long), _alone(model, long)) <= TOLERANCE_NATS
    assert scorer.check(long, scorer.score(long)) <= TOLERANCE_NATS


def test_a_batch_does_change_the_scores_of_such_a_model(tiny_architecture):
    """What the two tests around are about."""
    model, requests = tiny_architecture("deepseek_v32", **CHOOSING["deepseek_v32"]), _requests(2, 500)
    batched = targets_only(score_in_batches(model, requests, 8))
    assert _worst(batched, _alone(model, requests)) > 100 * TOLERANCE_NATS
    assert (
        "differ from those of a request alone by up to"
        in difference_to_alone(model, requests, batched).problem
    )


def test_the_borders_that_configs_name(tiny_architecture):
    assert {16, 1024} & set(borders_of(tiny_architecture("gemma3_text"))) == {16}
    assert 360 in borders_of(tiny_architecture("deepseek_v32", **CHOOSING["deepseek_v32"]))
    compressed = borders_of(tiny_architecture("deepseek_v4", **CHOOSING["deepseek_v4"]))
    assert {4, 128, 4 * 512, 128 * 512} <= set(compressed)  # chosen among blocks: index_topk is 512
    assert borders_of(tiny_architecture("gpt2")) == []


@pytest.mark.parametrize("make", [PrefixScorer, PlainScorer])
def test_a_cell_whose_scores_are_not_those_of_its_requests_is_an_error(tiny_architecture, make):
    model, requests = tiny_architecture("llama"), _requests(3, 40)
    scorer = make(model)
    scores = scorer.score(requests)
    assert scorer.check(requests, scores) < TOLERANCE_NATS
    with pytest.raises(
        ModelError, match=r"differ from those of a request alone by up to 0\.01 nats.*use scorer=plain"
    ):
        scorer.check(requests, [score + 0.01 for score in scores])
    assert scorer.check([Request((), (5,))], [torch.empty(0)]) == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_does_not_depend_on_the_memory_budget(tiny_architecture, dtype):
    model, requests = tiny_architecture("llama", dtype), _requests(4, 300)
    scores = [torch.cat(PrefixScorer(model, memory_mb).score(requests)) for memory_mb in (None, 1, 40, 4000)]
    assert all(torch.equal(scores[0], other) for other in scores[1:])
    rows = {rows_for_budget(model.config, dtype, model.device, budget, 300) for budget in (None, 1, 1 << 40)}
    assert len(rows) == 1


def test_sizes_that_differ_by_layer_are_estimated_by_the_widest(tiny_architecture):
    layers = {"num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2}
    model = tiny_architecture(
        "gemma4_text",
        vocab_size_per_layer_input=320,
        hidden_size_per_layer_input=8,
        global_head_dim=24,
        **layers,
    )
    size = ModelSize.of(model.config)
    widths = {layer.head_dim * layer.num_attention_heads for layer in model.config.per_layer_config}
    assert len(widths) == 2
    assert size.attention_width == max(widths)
    assert PrefixScorer(model).route == "shared_prefixes"


def test_a_config_in_words_of_its_own_decides_no_route(tiny_architecture, monkeypatch):
    """An estimate of ours that fails changes how much is computed at once, nothing else."""
    model, requests = tiny_architecture("llama"), _requests(5, 60)

    def unknown(config):
        raise AttributeError("hidden_size")

    monkeypatch.setattr(ModelSize, "of", unknown)
    scorer = PrefixScorer(model)
    assert scorer.route == "shared_prefixes"
    assert _worst(scorer.score(requests), _alone(model, requests)) <= TOLERANCE_NATS
