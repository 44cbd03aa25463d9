"""Counts of tokens, attention pairs and operations, each with its derivation."""

from transformers import GPT2Config, LlamaConfig

from metashot.engine.scoring.plan import ModelSize, plan_requests
from metashot.engine.scoring.request import Request

DEMOS = tuple(range(100, 700))  # 600 tokens


def _input(index, length=30):
    return tuple(1000 * (index + 1) + position for position in range(length))


def _option(index, length=3):
    return tuple(50_000 + 10 * index + position for position in range(length))


def test_direct_computes_demonstrations_once_and_each_input_once():
    """600 + 32 inputs x (30 + 2 options x 2 tokens): the last token of an option predicts nothing."""
    plan = plan_requests([Request(DEMOS + _input(i), _option(c)) for i in range(32) for c in range(2)])
    assert plan.tokens_computed == 600 + 32 * (30 + 2 * 2) == 1688
    assert plan.tokens_naive == 64 * 633
    assert plan.tokens_scored == 64 * 3
    # The last token of an input predicts the first token of both options: one position.
    assert plan.positions_scored == 32 * (1 + 2 * 2)


def test_channel_computes_demonstrations_and_each_option_once():
    """600 + 4 options x 3 + 4 x 32 inputs x 29."""
    plan = plan_requests([Request(DEMOS + _option(c), _input(i)) for i in range(32) for c in range(4)])
    assert plan.tokens_computed == 600 + 4 * 3 + 4 * 32 * 29
    assert plan.tokens_scored == 4 * 32 * 30
    # The last token of an option predicts the first token of all inputs.
    assert plan.positions_scored == 4 * (1 + 32 * 29)


def test_without_demonstrations_the_input_is_shared_over_its_options():
    plan = plan_requests([Request(_input(i), _option(c)) for i in range(5) for c in range(3)])
    assert plan.tokens_computed == 5 * (30 + 3 * 2)


def test_per_option_truncation_shares_nothing():
    """Each option cuts another number of tokens on the left, so no two sequences start alike."""
    requests = [Request((DEMOS + _input(0))[c:], _option(c)) for c in range(4)]
    plan = plan_requests(requests)
    assert plan.tokens_computed == sum(request.length - 1 for request in requests)


def test_duplicates_cost_nothing():
    request = Request(DEMOS, _option(0))
    assert plan_requests([request] * 7).tokens_computed == plan_requests([request]).tokens_computed == 602


def test_attention_pairs_count_each_query_with_all_tokens_up_to_itself():
    """Context a b, targets c d and e f: rows a b c e at positions 0 1 2 2, so 1 + 2 + 3 + 3 pairs."""
    plan = plan_requests([Request((1, 2), (3, 4)), Request((1, 2), (5, 6))])
    assert plan.tokens_computed == 4
    assert plan.pairs_computed == 1 + 2 + 3 + 3
    assert plan.positions_scored == 3  # b, c and e
    assert plan.pairs_scored == 2 + 3 + 3
    assert plan.pairs_naive == 2 * (1 + 2 + 3 + 4)


def test_gpt2_small_has_the_known_number_of_weights():
    """12 d^2 per layer with d = 768: 4 d^2 attention and 8 d^2 MLP."""
    size = ModelSize.of(GPT2Config())
    assert size.layer_weights == 12 * 768**2
    assert size.head_weights == 50257 * 768


def test_llama_size_reads_grouped_heads_and_the_gated_mlp():
    config = LlamaConfig(
        hidden_size=576, intermediate_size=1536, num_attention_heads=9, num_key_value_heads=3
    )
    size = ModelSize.of(config)
    assert size.key_value_width == 192
    assert size.layer_weights == 576 * (2 * 576 + 2 * 192) + 3 * 576 * 1536


def test_operations_of_one_request_by_hand():
    """Tokens a b -> c with GPT-2 of width 8, 2 layers, 1 head: 2 rows, 1 scored position.

    Layer 1: 2 rows x 12 x 64 weights; layer 2: keys and values of both rows (2 x 64 weights each), the rest
    (10 x 64) of the scored one; attention 4 x 8 per pair: 1 + 2 pairs in layer 1, 2 in layer 2; head 8 x 11.
    """
    config = GPT2Config(vocab_size=11, n_embd=8, n_layer=2, n_head=1)
    plan = plan_requests([Request((1, 2), (3,))])
    linear = 2 * 12 * 64 + 2 * 2 * 64 + 10 * 64
    assert plan.flops(config) == 2 * linear + 4 * 8 * (3 + 2) + 2 * 8 * 11
    assert plan.flops_unique(config) == 2 * (2 * 2 * 12 * 64) + 4 * 8 * (3 + 3) + 2 * 8 * 11


def test_an_empty_list_costs_nothing():
    plan = plan_requests([])
    assert (plan.tokens_computed, plan.tokens_naive, plan.longest) == (0, 0, 0)
