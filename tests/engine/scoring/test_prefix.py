"""The engine against the plain reference, over random workloads and model families."""

import random
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig, Qwen2Config, Qwen3Config

from metashot.base.errors import ConfigError, ModelError
from metashot.engine.models.tiny import tiny_model
from metashot.engine.scoring import batch, projection
from metashot.engine.scoring.plain import PlainScorer, score_plain
from metashot.engine.scoring.prefix import PrefixScorer
from metashot.engine.scoring.request import Request

ARCHITECTURES = ("gpt2", "llama", "gptj", "gemma", "gemma2")
TINY_BUDGET = 1  # the floor of 32 rows a batch
TOLERANCE_NATS = 1e-5


def _model(architecture, seed=0):
    model, _ = tiny_model(architecture, seed)
    if architecture == "gemma2":  # the real cap of 50 would hardly bend these scores
        for layer in model.model.layers:
            layer.self_attn.attn_logit_softcapping = 2.0
    return model


def _direct(rng, text):
    demos, inputs, options = _pieces(rng, text)
    return [Request(demos + i, o) for i in inputs for o in options]


def _channel(rng, text):
    demos, inputs, options = _pieces(rng, text)
    return [Request(demos + o, i) for i in inputs for o in options]


def _zero_shot(rng, text):
    _, inputs, options = _pieces(rng, text)
    return [Request(i, o) for i in inputs for o in options] + [Request(o, i) for i in inputs for o in options]


def _per_option_truncation(rng, text):
    demos, inputs, options = _pieces(rng, text)
    return [Request((demos + i)[len(o) :], o) for i in inputs for o in options]


def _tangled(rng, text):
    """Sequences that branch off each other anywhere, cut into context and target anywhere."""
    sequences, requests = [()], []
    for _ in range(30):
        base = rng.choice(sequences)
        tail = tuple(rng.randrange(5, 8) for _ in range(rng.choice((1, 2, 5, 20, 70, 150))))
        sequences.append((base[: rng.randint(0, len(base))] + tail)[:500])
        cut = rng.randint(0, len(sequences[-1]))
        requests.append(Request(sequences[-1][:cut], sequences[-1][cut:]))
    return requests


def _pieces(rng, text):
    demos = text(rng.randint(0, 250))
    inputs = [text(rng.randint(0, 40)) for _ in range(rng.randint(1, 9))]
    options = [text(rng.randint(1, 6)) for _ in range(rng.randint(1, 6))]
    return demos, inputs, options


WORKLOADS = (_direct, _channel, _zero_shot, _per_option_truncation, _tangled)


def _workload(kind, seed):
    rng = random.Random(seed)
    requests = kind(rng, lambda length: tuple(rng.randrange(5, 300) for _ in range(length)))
    requests += [requests[0], Request((), ()), Request((), (9,)), Request((), (9, 10, 11))]
    rng.shuffle(requests)
    return requests


def _worst(one, other):
    assert [score.shape for score in one] == [score.shape for score in other]
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True) if len(a))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", WORKLOADS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_equal_the_plain_reference(architecture, kind, seed):
    model, requests = _model(architecture, seed), _workload(kind, 10 * seed + len(architecture))
    plain = score_plain(model, requests)
    budgets = (None, TINY_BUDGET)
    for budget in budgets:
        scores = PrefixScorer(model, budget, force=True).score(requests)
        assert _worst(scores, plain) <= TOLERANCE_NATS


_SMALL = {"vocab_size": 300, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2,
          "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024, "head_dim": 24}  # fmt: skip


@pytest.mark.parametrize(
    "config",
    [
        MistralConfig(**_SMALL, sliding_window=20),
        Qwen2Config(**_SMALL, use_sliding_window=True, sliding_window=20, max_window_layers=1),
        Qwen3Config(**_SMALL),
    ],
    ids=lambda config: config.model_type,
)
def test_other_families_and_sliding_windows_equal_the_plain_reference(config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
    for kind in (_direct, _tangled):
        requests = _workload(kind, 3)
        plain = score_plain(model, requests)
        for budget in (None, TINY_BUDGET):
            assert _worst(PrefixScorer(model, budget, force=True).score(requests), plain) <= TOLERANCE_NATS


def test_order_grouping_and_budget_change_neither_scores_nor_predictions():
    model = _model("llama")
    rng = random.Random(5)
    demos, inputs, options = _pieces(rng, lambda n: tuple(rng.randrange(5, 300) for _ in range(n)))
    requests = [Request(demos + i, o) for i in inputs for o in options]
    scorer = PrefixScorer(model)
    together = scorer.score(requests)
    alone = [scorer.score([request])[0] for request in requests]
    backwards = scorer.score(requests[::-1])[::-1]
    cramped = PrefixScorer(model, TINY_BUDGET).score(requests)
    best = _predictions(together, len(options))
    for other in (alone, backwards, cramped):
        assert _worst(other, together) <= TOLERANCE_NATS
        assert _predictions(other, len(options)) == best


def _predictions(scores, options):
    means = torch.stack([score.mean() for score in scores]).reshape(-1, options)
    return means.argmax(1).tolist()


def test_equal_requests_get_equal_bits():
    model = _model("gpt2")
    request = Request(tuple(range(20, 60)), (5, 6, 7))
    one, other = PrefixScorer(model).score([request, Request((3,), (4, 5)), request])[::2]
    assert one.tolist() == other.tolist()


def test_the_first_target_token_after_an_empty_context_is_not_scored():
    scores = PrefixScorer(_model("gpt2")).score([Request((), (5, 6)), Request((), (5,)), Request((5, 6), ())])
    assert [len(score) for score in scores] == [1, 0, 0]


@pytest.mark.parametrize("architecture", ["gpt2", "gemma2"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_the_reference(architecture, dtype):
    model = tiny_model(architecture)[0].to(dtype)
    requests = _workload(_direct, 4)
    exact = score_plain(model.float(), requests)
    model = model.to(dtype)
    halved = PrefixScorer(model, TINY_BUDGET, force=True).score(requests)
    assert all(score.dtype == torch.float32 for score in halved)
    # The rounding of the weights themselves is shared; the rest is that of the plain scorer in the same dtype.
    plain = _worst(score_plain(model, requests), exact)
    assert _worst(halved, exact) <= 2 * plain + 0.05


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes."),
        MemoryError(),
    ],
)
def test_out_of_memory_halves_the_batch_and_goes_on(monkeypatch, caplog, error):
    model, requests = _model("gpt2"), _workload(_direct, 6)
    plain = score_plain(model, requests)
    scorer, sizes = PrefixScorer(model), []
    real = batch.cascade_attention

    def starved(layout, queries, keys, *rest):
        """No memory for more than 40 rows, found out in the second layer."""
        sizes.append(len(keys))
        if len(keys) > 40 and len(sizes) % 2 == 0:
            raise error
        return real(layout, queries, keys, *rest)

    monkeypatch.setattr(batch, "cascade_attention", starved)
    assert _worst(scorer.score(requests), plain) <= TOLERANCE_NATS
    assert "out of memory with" in caplog.text
    assert sizes[0] > 80
    assert sizes[-1] <= 40


@pytest.mark.parametrize("failing", [3, 7])
def test_a_batch_that_ran_out_of_memory_half_way_finds_its_path_unharmed(monkeypatch, failing):
    """The first layer has been through, and with it the place where the next path's keys replace this one's."""
    model, requests = _model("gpt2"), _workload(_tangled, 2)
    scorer, calls = PrefixScorer(model, TINY_BUDGET), []
    real = batch.cascade_attention

    def starved(*arguments):
        calls.append(None)
        if len(calls) == 2 * failing:
            raise MemoryError
        return real(*arguments)

    monkeypatch.setattr(batch, "cascade_attention", starved)
    assert _worst(scorer.score(requests), score_plain(model, requests)) <= TOLERANCE_NATS


def test_out_of_memory_with_a_single_token_is_an_error(monkeypatch):
    scorer = PrefixScorer(_model("gpt2"))

    def starved(*_):
        raise MemoryError

    monkeypatch.setattr(batch, "cascade_attention", starved)
    with pytest.raises(ModelError, match="out of memory while scoring a single token"):
        scorer.score([Request((5, 6), (7,))])


def test_other_errors_are_not_taken_for_lack_of_memory(monkeypatch):
    scorer = PrefixScorer(_model("gpt2"))

    def broken(*_):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(batch, "cascade_attention", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        scorer.score([Request((5, 6), (7,))])


def test_nan_names_value_request_and_way_out():
    model = _model("gpt2")
    with torch.no_grad():
        model.transformer.wte.weight[77] = float("nan")
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.nan_to_num())
    requests = [Request((5, 6), (7,)), Request((77,), (6, 7))]
    with pytest.raises(ModelError, match=r"request 1: a target log-probability is nan \(.*float32"):
        PrefixScorer(model, force=True).score(requests)


def test_a_sequence_longer_than_the_positions_is_refused():
    with pytest.raises(ConfigError, match="request 1 has 2049 context and 1 target tokens"):
        PrefixScorer(_model("llama")).score([Request((5,), (6,)), Request((5,) * 2049, (6,))])


def test_a_token_that_the_model_does_not_know_is_refused():
    with pytest.raises(ConfigError, match="request 0 has token 99999, but the model knows"):
        PrefixScorer(_model("llama")).score([Request((99_999,), (6,))])


def test_the_longest_sequence_that_fits_is_scored():
    requests = [Request(tuple(5 + i % 200 for i in range(2047)), (6,))]
    model = _model("gpt2")
    assert (
        _worst(PrefixScorer(model, force=True).score(requests), score_plain(model, requests))
        <= TOLERANCE_NATS
    )


def test_progress_counts_the_tokens_computed():
    requests = _workload(_direct, 4)
    scorer, seen = PrefixScorer(_model("gpt2"), TINY_BUDGET), []
    scorer.score(requests, on_progress=lambda done, total: seen.append((done, total)))
    tokens = scorer.plan(requests).tokens_computed
    assert seen[-1] == (tokens, tokens)
    assert len(seen) > 1
    assert seen == sorted(seen)


def test_the_model_computes_exactly_the_planned_tokens(monkeypatch):
    model, requests = _model("llama"), _workload(_channel, 8)
    scorer = PrefixScorer(model, TINY_BUDGET)
    rows = []
    model.model.embed_tokens.register_forward_hook(lambda module, args, output: rows.append(args[0].numel()))
    scorer.score(requests)
    assert sum(rows) == scorer.plan(requests).tokens_computed


def test_logits_exist_for_scored_positions_only(monkeypatch):
    model, requests = _model("llama"), _workload(_direct, 8)
    scorer, positions = PrefixScorer(model), []
    real = projection.token_log_probs

    def counting(head, hidden, rows, tokens):
        positions.append(len(hidden))
        return real(head, hidden, rows, tokens)

    monkeypatch.setattr(projection, "token_log_probs", counting)
    scorer.score(requests)
    assert sum(positions) == scorer.plan(requests).positions_scored


def test_an_encoder_decoder_encodes_each_context_once_for_all_its_targets():
    model, _ = tiny_model("t5")
    rng = random.Random(1)
    contexts = [tuple(rng.randrange(5, 300) for _ in range(length)) for length in (9, 30, 4)]
    requests = [Request(c, tuple(range(20, 20 + n))) for c in contexts for n in (1, 4, 2)]
    requests += [Request((), (7,)), Request((), (7, 8)), Request((5, 6), ())]
    rng.shuffle(requests)
    scorer, encoded = PrefixScorer(model, batch_size=2), []
    watch = model.encoder.block[0].register_forward_hook(lambda _, args, out: encoded.append(len(args[0])))
    scores = scorer.score(requests)
    watch.remove()
    assert sum(encoded) == 4  # three contexts and the empty one
    assert (scorer.route, scorer.reason, scorer.shares_prefixes) == ("shared_encoder", None, False)
    assert _worst(scores, score_plain(model, requests)) <= 1e-4  # scores down to -30 nats
    assert [len(score) for score in scores] == [len(request.target) for request in requests]


def test_a_model_that_mixes_neighbouring_rows_takes_its_own_cache_and_that_is_said(caplog):
    """A stand-in for convolutions and recurrences: each state takes in a bit of the row before."""
    model = _model("llama")

    def mix(module, args, output):
        before = output.roll(1, dims=1)
        before[:, 0] = 0
        return output + 0.1 * before

    model.model.layers[0].mlp.register_forward_hook(mix)
    scorer = PrefixScorer(model)
    assert scorer.route == "plain"  # what is cached lacks the row before, so not even a cache is right
    assert "replacing a prompt's tokens changes its neighbours' scores by" in caplog.text
    assert caplog.text.count("is scored by way of") == 1
    with pytest.raises(ConfigError, match="cannot share all prefixes: replacing a prompt's tokens"):
        PrefixScorer(model, force=True)


def test_the_model_is_left_as_it_was_also_after_an_error(monkeypatch):
    model = _model("gptj")
    before, name = [set(vars(module)) for module in model.modules()], model.config._attn_implementation

    def broken(*_):
        raise RuntimeError("shapes differ")

    scorer = PrefixScorer(model)
    monkeypatch.setattr(batch, "cascade_attention", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        scorer.score([Request((5, 6), (7,))])
    assert [set(vars(module)) for module in model.modules()] == before
    assert model.config._attn_implementation == name
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_nothing_to_score_is_an_empty_list():
    assert PrefixScorer(_model("gpt2")).score([]) == []


def test_a_window_longer_than_the_probe_is_compared_by_the_first_request_that_crosses_it(caplog):
    """A stand-in for a model that does with long sequences what no probe foresaw."""
    model = _model("llama")

    def far(module, args, output):
        cosine, sine = output
        return cosine, sine + 0.5 * (cosine.shape[1] > 1181)  # the engine leaves out the last token

    scorer = PrefixScorer(model)
    scorer._route = replace(scorer._route, borders=(500, 900))
    scorer.score([Request((5,) * 510, (6, 7))])
    assert (scorer.route, scorer._route.borders) == ("shared_prefixes", (900,))
    model.model.rotary_emb.register_forward_hook(far)
    requests = [Request(tuple(range(5, 300)) * 4, (6, 7)), Request((5, 6), (7,))]
    scores = scorer.score(requests)
    assert scorer.route != "shared_prefixes"
    assert "at 1182 tokens, its scores differ from those of a request alone by up to" in caplog.text
    assert _worst(scores, score_plain(model, requests)) <= TOLERANCE_NATS


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "t5"])
def test_the_best_token_of_each_place_stands_beside_the_target(architecture):
    model = _model(architecture)
    requests = [Request((5, 6, 7), (8, 9)), Request((5, 6, 7), (8, 10)), Request((4,), (3,))]
    for scorer in (PrefixScorer(model), PlainScorer(model)):
        for request, row in zip(requests, scorer.score_with_best(requests), strict=True):
            every = score_plain(
                model,
                [
                    Request(request.context, (*request.target[:-1], token))
                    for token in range(model.config.vocab_size)
                ],
            )
            best = torch.stack([scores[-1] for scores in every]).amax()
            torch.testing.assert_close(row[-1, 1], best, atol=1e-4, rtol=0)
            assert (row[:, 0] <= row[:, 1]).all()


def test_a_model_that_mixes_up_batches_is_scored_one_request_at_a_time(tiny_architecture):
    """As LLM.int8() does, whose precision depends on the activations of a batch."""
    model = tiny_architecture("llama")
    model.is_quantized = True
    layer = model.model.layers[0].mlp
    layer.forward = lambda states, forward=layer.forward: forward(states) * (1 + 9 * states[..., 0].mean())
    scorer = PrefixScorer(model)
    assert scorer.route == "plain"
    assert "one request at a time" in scorer.reason
    requests = [Request((20, 21, 22), (23 + place, 60)) for place in range(5)]
    together = scorer.score(requests)
    alone = [scorer.score([request])[0] for request in requests]
    assert all(map(torch.equal, together, alone))
