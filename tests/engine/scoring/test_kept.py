"""Prefixes kept between calls: the numbers of calls that keep nothing, and only what is new runs through the model."""

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig, Phi3Config

from metashot.engine.models.tiny import tiny_model
from metashot.engine.scoring.cascade import CascadeScorer
from metashot.engine.scoring.kept import KeptPrefixes
from metashot.engine.scoring.plain import score_plain
from metashot.engine.scoring.prefix import PrefixScorer
from metashot.engine.scoring.request import Request, targets_only

TOLERANCE_NATS = 1e-5
SHOWN = 44  # tokens; all requests are below the length at which the scorer compares anew


def text(rng, length, vocabulary=300):
    return tuple(rng.randrange(8, vocabulary) for _ in range(length))


def direct(rng, shown):
    """One input after demonstrations, two options, and the null request of PMI."""
    question, options = text(rng, rng.randint(2, 9)), (text(rng, 1), text(rng, 3))
    return [Request(shown + question, one) for one in options] + [Request((9,), options[1])]


def channel(rng, shown):
    return [Request(shown + text(rng, 2), text(rng, rng.randint(1, 9))) for _ in range(3)]


def tangled(rng, shown):
    """Branches off the demonstrations anywhere, cut into context and target anywhere, and an empty target."""
    made = [Request(shown[:20], ())]
    for _ in range(8):
        whole = shown[: rng.randint(0, len(shown))] + text(rng, rng.randint(0, 60), 11)
        cut = rng.randint(0, len(whole))
        made.append(Request(whole[:cut], whole[cut:]))
    return made


def model_of(kind):
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "eos_token_id": 2, "bos_token_id": 1,
    }  # fmt: skip
    if kind == "window":
        return AutoModelForCausalLM.from_config(MistralConfig(**sizes, sliding_window=24)).eval()
    if kind == "longrope":
        rope = {
            "rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [3.0] * 4, "rope_theta": 10000.0,
            "original_max_position_embeddings": 64, "factor": 2.0,
        }  # fmt: skip
        config = Phi3Config(**sizes, rope_parameters=rope, max_position_embeddings=128)
        return AutoModelForCausalLM.from_config(config).eval()
    return tiny_model(kind, 0)[0]


@contextmanager
def counted(model):
    """Tokens that run through the model inside."""
    tokens = []
    hook = model.get_input_embeddings().register_forward_pre_hook(
        lambda _, given: tokens.append(given[0].numel())
    )
    try:
        yield tokens
    finally:
        hook.remove()


def equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=TOLERANCE_NATS, rtol=0)


@pytest.mark.parametrize("memory_mb", [1, None], ids=["batches of 32 rows", "one batch"])
@pytest.mark.parametrize("make", [direct, channel, tangled])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2", "window", "longrope"])
def test_calls_one_by_one_equal_one_call_and_each_request_alone(kind, make, memory_mb):
    model, rng = model_of(kind), random.Random(1)
    shown, others = text(rng, SHOWN), text(rng, SHOWN)
    calls = [make(rng, (shown, others)[place % 3 == 2]) for place in range(7)]
    calls.append(calls[0])
    keeping = PrefixScorer(model, memory_mb, force=True, keep_mb=8)
    found = [score for call in calls for score in keeping.score(call)]
    together = [request for call in calls for request in call]
    equal(found, PrefixScorer(model, memory_mb).score(together))
    equal(found, score_plain(model, together, batch_size=1))


@pytest.mark.parametrize("make", [direct, channel])
def test_a_later_call_computes_its_own_tokens_and_the_last_kept_one(make):
    model, rng = model_of("llama"), random.Random(2)
    shown = text(rng, SHOWN)
    scorer = PrefixScorer(model, keep_mb=8)
    first, second = make(rng, shown), make(rng, shown)
    scorer.score(first)
    with counted(model) as tokens:
        scorer.score(second)
    assert sum(tokens) == scorer.plan(second).tokens_computed - SHOWN + 1
    scorer.free()
    with counted(model) as tokens:
        scorer.score(second)
    assert sum(tokens) == scorer.plan(second).tokens_computed


def test_nothing_is_kept_unless_asked_for_or_in_half_precision():
    rng = random.Random(3)
    call = direct(rng, text(rng, SHOWN))
    for model, keep_mb in ((model_of("llama"), 0), (model_of("llama").bfloat16(), 8)):
        scorer = PrefixScorer(model, keep_mb=keep_mb)
        for _ in range(2):
            with counted(model) as tokens:
                scorer.score(call)
            assert sum(tokens) == scorer.plan(call).tokens_computed


def _write(model):
    with torch.no_grad():
        model.model.layers[0].self_attn.v_proj.weight.mul_(1 + 1e-5)


def _train(model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(input_ids=torch.arange(8, 20)[None]).logits.square().mean().backward()
    optimizer.step()


def _behind_its_back(model):
    model.model.layers[0].self_attn.v_proj.weight.data.mul_(1.5)


def _hook(model):
    model.model.layers[0].mlp.register_forward_hook(lambda _module, _given, out: out * 1.5)


def _load(model):
    model.load_state_dict({name: 1.1 * weight for name, weight in model.state_dict().items()})


@pytest.mark.parametrize(
    "change", [_write, _train, _behind_its_back, _hook, _load, lambda model: model.double()]
)
def test_what_changes_the_model_is_not_answered_from_before(change):
    model, rng = model_of("llama"), random.Random(4)
    shown = text(rng, SHOWN)
    scorer = PrefixScorer(model, keep_mb=8)
    scorer.score(direct(rng, shown))
    change(model)
    call = direct(rng, shown)
    with counted(model) as tokens:
        found = scorer.score(call)
    assert sum(tokens) >= scorer.plan(call).tokens_computed
    equal(found, score_plain(model, call, batch_size=1))


def test_adapters_of_one_model_do_not_share():
    peft = pytest.importorskip("peft")
    model, rng = model_of("llama"), random.Random(5)
    config = peft.LoraConfig(r=2, target_modules=["v_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(model, config)
    adapted.add_adapter("other", config)
    adapted.eval()
    shown, scorer = text(rng, SHOWN), PrefixScorer(model, keep_mb=8)
    for name in ("default", "other", "default"):
        adapted.set_adapter(name)
        call = direct(rng, shown)
        equal(scorer.score(call), score_plain(model, call, batch_size=1))
    with adapted.disable_adapter():
        equal(scorer.score(call), score_plain(model, call, batch_size=1))


def test_the_limit_holds_and_the_least_recently_used_goes():
    model, rng = model_of("window"), random.Random(6)
    calls = [
        [Request(shown + text(rng, 4), text(rng, 1)) for _ in range(3)]
        for shown in (text(rng, SHOWN) for _ in "123")
    ]
    expected = [score_plain(model, call, batch_size=1) for call in calls]
    each = SHOWN * 3 * 2 * 2 * 8 * 4  # 3 layers, keys and values, of 2 heads of 8 numbers of 4 bytes
    scorer = CascadeScorer(model)
    kept = scorer.kept = KeptPrefixes(model, 5 * each // 2)
    held = []
    for call in (calls[place] for place in (0, 1, 0, 2)):  # the second goes
        scorer.score_with_best(call)
        held.append(kept.bytes // each)
    assert held == [1, 2, 2, 2]
    spared = []
    for place in (0, 2, 1):
        with counted(model) as tokens:
            found = scorer.score_with_best(calls[place])
        equal(targets_only(found), expected[place])
        spared.append(sum(tokens) < SHOWN)
    assert spared == [True, True, False]
    kept.clear()
    assert kept.bytes == 0
    scorer.kept = KeptPrefixes(model, each // 2)
    for _ in range(2):  # half of a prefix fits
        with counted(model) as tokens:
            equal(targets_only(scorer.score_with_best(calls[0])), expected[0])
    assert scorer.kept.bytes == each // 2
    assert sum(tokens) == scorer.tokens_computed(calls[0]) - SHOWN // 2 + 1


def test_two_threads_with_one_scorer():
    model, rng = model_of("gpt2"), random.Random(7)
    shown = [text(rng, SHOWN), text(rng, SHOWN)]
    calls = [[direct(rng, one) for _ in range(10)] for one in shown]
    expected = [[score_plain(model, call, batch_size=1) for call in row] for row in calls]
    scorer = PrefixScorer(model, keep_mb=8)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda row: [scorer.score(call) for call in row], calls, timeout=300))
    for row, right in zip(found, expected, strict=True):
        for one, other in zip(row, right, strict=True):
            equal(one, other)
