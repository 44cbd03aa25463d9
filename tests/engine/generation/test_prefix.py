"""Answers with shared prefixes: greedy ones are transformers' own, sampled ones have the model's distribution."""

from __future__ import annotations

import random
from collections import Counter
from math import log, sqrt

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from metashot.base.errors import ConfigError
from metashot.engine.generation.prefix import PrefixGenerator
from metashot.engine.generation.request import (
    Generated,
    GenerationRequest,
    Generator,
    Sampling,
    Stopping,
    cut_at_stop,
)
from metashot.engine.models.loading import LanguageModel, load_model
from metashot.engine.models.sources import TinyModel
from metashot.engine.models.tiny import tiny_model

Ids = tuple[int, ...]


@pytest.fixture(scope="module", params=["gpt2", "llama", "t5"])
def loaded(request: pytest.FixtureRequest) -> LanguageModel:
    return load_model(TinyModel("tiny", request.param, device="cpu"))


def generator(loaded: LanguageModel, batch_size: int = 16) -> PrefixGenerator:
    return PrefixGenerator(loaded.model, loaded.tokenizer, batch_size)


def prompts(model: LanguageModel, shared: int) -> list[GenerationRequest]:
    generator = torch.Generator().manual_seed(1)
    vocabulary = int(model.model.config.vocab_size)

    def draw(count: int) -> Ids:
        return tuple(torch.randint(3, vocabulary, (count,), generator=generator).tolist())

    head = draw(shared)
    return [GenerationRequest(head + draw(length)) for length in (5, 1, 9, 3, 9)]


def alone(loaded: LanguageModel, prompt: Ids, stopping: Stopping) -> str:
    given = {"stop_strings": list(stopping.stop), "tokenizer": loaded.tokenizer} if stopping.stop else {}
    out = loaded.model.generate(
        input_ids=torch.tensor([prompt]), do_sample=False, num_beams=1, max_new_tokens=stopping.max_new_tokens,
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long), pad_token_id=0, **given,
    )  # fmt: skip
    new = out[0] if loaded.is_seq2seq else out[0, len(prompt) :]
    return cut_at_stop(loaded.tokenizer.decode(new.tolist(), skip_special_tokens=True), stopping.stop)


def texts(found: list[Generated]) -> list[str]:
    return [answer.text for answer in found]


def test_it_is_what_the_families_ask_for(loaded: LanguageModel) -> None:
    assert isinstance(generator(loaded), Generator)


@pytest.mark.parametrize("shared", [0, 12])
@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_answers_equal_those_of_each_prompt_alone(
    loaded: LanguageModel, shared: int, batch_size: int
) -> None:
    stopping = Stopping(6, ())
    given = prompts(loaded, shared)
    seen: list[tuple[int, int]] = []
    found = generator(loaded, batch_size).generate(
        given, stopping, on_progress=lambda done, total: seen.append((done, total))
    )
    assert texts(found) == [alone(loaded, request.prompt, stopping) for request in given]
    assert len(set(texts(found))) > 1
    assert seen[-1] == (5, 5)


def counted(loaded: LanguageModel) -> list[int]:
    """Where the tokens of every forward pass will be added."""
    tokens = [0]

    def count(_module: object, arguments: tuple[torch.Tensor], _output: object) -> None:
        tokens[0] += arguments[0].numel()

    loaded.model.get_input_embeddings().register_forward_hook(count)
    return tokens


def test_the_shared_prefix_is_computed_once() -> None:
    loaded = load_model(TinyModel("tiny", "llama", device="cpu"))
    tokens = counted(loaded)
    generator(loaded).generate(prompts(loaded, 40), Stopping(1, ()))
    assert tokens == [40 + 5 * 9]  # the prefix, and five suffixes padded to the longest


def test_a_prompt_is_computed_once_for_all_its_samples() -> None:
    loaded = load_model(TinyModel("tiny", "llama", device="cpu"))
    tokens = counted(loaded)
    many = [GenerationRequest(one.prompt, seed) for one in prompts(loaded, 40) for seed in range(3)]
    generator(loaded).generate(many, Stopping(1, ()), Sampling(1.0))
    # the prefix, five suffixes padded to the longest, and the last token of each once more for each of 15 answers
    assert tokens == [40 + 5 * 9 + 15]


def test_equal_greedy_requests_are_answered_once() -> None:
    loaded = load_model(TinyModel("tiny", "llama", device="cpu"))
    tokens, given = counted(loaded), prompts(loaded, 40)
    found = generator(loaded).generate([*given, *given], Stopping(1, ()))
    assert tokens == [40 + 5 * 9]
    assert found[:5] == found[5:]


def test_a_stop_string_ends_the_answer(loaded: LanguageModel) -> None:
    given = prompts(loaded, 0)[:1]
    (whole,) = generator(loaded).generate(given, Stopping(8, ()))
    word = whole.text[len(whole.text) // 2]
    (cut,) = generator(loaded).generate(given, Stopping(8, (word,)))
    assert cut.text == whole.text[: whole.text.index(word)]
    assert 1 <= cut.tokens <= whole.tokens == 8


def test_the_first_stop_string_of_several_wins() -> None:
    assert cut_at_stop("one\n\ntwo Q: three", ("Q:", "\n\n")) == "one"
    assert cut_at_stop("one", ("Q:",)) == "one"


def test_too_little_memory_halves_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_model(TinyModel("tiny", "llama", device="cpu"))
    ours = generator(loaded, batch_size=4)
    sampling = Sampling(1.0)
    whole = ours.generate(prompts(loaded, 0), Stopping(3, ()), sampling)
    batch, sizes = ours._batch, []

    def limited(given: list[GenerationRequest], *rest: object) -> list[Generated]:
        sizes.append(len(given))
        if len(given) > 2:
            raise torch.OutOfMemoryError
        return batch(given, *rest)

    monkeypatch.setattr(ours, "_batch", limited)
    assert ours.generate(prompts(loaded, 0), Stopping(3, ()), sampling) == whole
    assert sizes == [4, 2, 2, 1]


def test_what_cannot_be_generated_is_said() -> None:
    loaded = load_model(TinyModel("tiny", "gpt2", device="cpu"))
    ours = generator(loaded)
    with pytest.raises(ConfigError, match="which with 5000 new ones is over the model's"):
        ours.generate([GenerationRequest((5, 6))], Stopping(5000))
    with pytest.raises(ConfigError, match="prompt 1 has no token"):
        ours.generate([GenerationRequest((5,)), GenerationRequest(())], Stopping(2))
    with pytest.raises(ConfigError, match="0 is not positive"):
        Stopping(0)
    with pytest.raises(ConfigError, match="an empty string"):
        Stopping(1, ("",))
    with pytest.raises(ConfigError, match=r"-0\.5 is negative"):
        Sampling(-0.5)
    with pytest.raises(ConfigError, match="0 is no probability above 0"):
        Sampling(1.0, 0)


def test_penalties_of_a_generation_config_do_not_make_another_answer():
    """Only its token ids count: where a text ends is the model's affair, which word is the most probable is not."""
    model, tokenizer = tiny_model("gpt2")
    given = [GenerationRequest(tuple(tokenizer("what is one plus one?")["input_ids"]))]
    free = Stopping(8, ())
    before = PrefixGenerator(model, tokenizer).generate(given, free)
    model.generation_config.update(repetition_penalty=5.0, no_repeat_ngram_size=1, suppress_tokens=[60, 61])
    penalized = model.generation_config
    assert PrefixGenerator(model, tokenizer).generate(given, free) == before
    assert PrefixGenerator(model, tokenizer, obeys_generation_config=True).generate(given, free) != before
    assert model.generation_config is penalized
    first = int(model(torch.tensor([given[0].prompt])).logits[0, -1].argmax())
    model.generation_config.eos_token_id = [first]
    (ended,) = PrefixGenerator(model, tokenizer).generate(given, free)
    assert ended.tokens == 1
    assert ended != before[0]


# Greedy: 60 prompts, stop strings, four tokenizers


WORDS = [
    "the",
    "old",
    "boat",
    "went",
    "over",
    "a",
    "cold",
    "river",
    "and",
    "three",
    "men",
    "sang",
    "of",
    "home",
    "while",
    "rain",
    "fell",
    "on",
    "it",
    "abcdef",
]


def word_level() -> PreTrainedTokenizerFast:
    """A token a word; blanks come from decoding."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(
        models.WordLevel({word: place for place, word in enumerate(["[UNK]", "</s>", *WORDS])}, "[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", eos_token="</s>")


def trained(kind: str) -> PreTrainedTokenizerFast:
    """A small tokenizer of one kind, trained on the words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    special = ["<unk>", "</s>", "<pad>"]
    if kind == "bytes":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer: object = trainers.BpeTrainer(
            vocab_size=330, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        )
    elif kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=80, special_tokens=special, unk_token="<unk>")
    else:
        tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(vocab_size=80, special_tokens=special)
    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS, k=9)) for _ in range(200)]
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>", pad_token="<pad>"
    )


@pytest.fixture(params=["bytes", "unigram", "wordpiece", "words"])
def own_tokenizer(request: pytest.FixtureRequest) -> LanguageModel:
    """A random model whose vocabulary is that of a tokenizer of one kind."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = word_level() if request.param == "words" else trained(request.param)
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        initializer_range=0.3, eos_token_id=tokenizer.eos_token_id, bos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    return LanguageModel(model, tokenizer, TinyModel("own"), "", "")


def test_sixty_greedy_answers_are_those_of_transformers(own_tokenizer: LanguageModel) -> None:
    rng = random.Random(1)
    head = " ".join(rng.choices(WORDS, k=12))
    inputs = [f"{head} {' '.join(rng.choices(WORDS, k=rng.randint(1, 9)))}" for _ in range(60)]
    given = [
        GenerationRequest(tuple(own_tokenizer.tokenizer(text, add_special_tokens=False)["input_ids"]))
        for text in inputs
    ]
    whole = texts(generator(own_tokenizer).generate(given, Stopping(12, ())))
    ended = 0
    # No word ends as these begin: transformers also stops where prompt and answer together hold the string.
    for stop in (("ol",), ("\n", "bo", "ho"), ("iv", "</s>"), ()):
        stopping = Stopping(12, stop)
        found = generator(own_tokenizer).generate(given, stopping)
        assert texts(found) == [alone(own_tokenizer, one.prompt, stopping) for one in given], stop
        assert len(set(texts(found))) > 20
        assert all(1 <= answer.tokens <= 12 for answer in found)
        assert texts(found) == [cut_at_stop(text, stop) for text in whole]
        ended += sum(answer.tokens < 12 for answer in found)
    assert ended > 10


# Samples


def first_token_counts(loaded: LanguageModel, prompt: Ids, sampling: Sampling, draws: int) -> Counter[str]:
    many = [GenerationRequest(prompt, seed) for seed in range(draws)]
    return Counter(texts(generator(loaded, 512).generate(many, Stopping(1, ()), sampling)))


@pytest.mark.parametrize("sampling", [Sampling(1.0), Sampling(0.5), Sampling(1.0, 0.6), Sampling(2.0, 0.9)])
def test_sampled_tokens_have_the_models_distribution(
    own_tokenizer: LanguageModel, sampling: Sampling
) -> None:
    """By frequencies of the first token: of 4096 draws, each text's share is near its probability.

    A share of n draws with probability p is off by more than z sqrt(p (1 - p) / n) + z / n with probability below
    2 exp(-z**2 / 4) (Bernstein, z <= sqrt(n)); z is chosen for one such case in a million over the whole vocabulary.
    """
    tokenizer, draws = own_tokenizer.tokenizer, 4096
    prompt = tuple(tokenizer("the old boat went", add_special_tokens=False)["input_ids"])
    probability = torch.softmax(
        own_tokenizer.model(torch.tensor([prompt])).logits[0, -1].double() / sampling.temperature, -1
    )
    ordered, places = probability.sort(descending=True)
    kept = (ordered.cumsum(-1) - ordered) < sampling.top_p  # the fewest tokens that reach top_p
    probability = torch.zeros_like(probability).scatter(0, places[kept], ordered[kept] / ordered[kept].sum())
    expected: Counter[str] = Counter()
    for token, share in enumerate(probability.tolist()):
        expected[tokenizer.decode([token], skip_special_tokens=True)] += share  # pyright: ignore
    found = first_token_counts(own_tokenizer, prompt, sampling, draws)
    z = 2 * sqrt(log(2e6 * len(tokenizer)))
    for text, share in expected.items():
        assert abs(found[text] / draws - share) <= z * sqrt(share * (1 - share) / draws) + z / draws, text
    assert all(expected[text] > 0 for text in found)
    assert len(found) > 1


def test_samples_do_not_depend_on_order_batch_or_company(loaded: LanguageModel) -> None:
    given = [
        GenerationRequest(one.prompt, 2**60 - 1 - 3 * place - sample)
        for place, one in enumerate(prompts(loaded, 12))
        for sample in range(3)
    ]
    stopping, sampling = Stopping(6, ()), Sampling(5.0, 0.95)
    whole = generator(loaded).generate(given, stopping, sampling)
    assert len(set(texts(whole))) > 8
    backwards = generator(loaded, 2).generate(given[::-1], stopping, sampling)
    assert backwards[::-1] == whole
    halves = [generator(loaded, 3).generate(part, stopping, sampling) for part in (given[::2], given[1::2])]
    assert [one for pair in zip(halves[0], [*halves[1], None], strict=True) for one in pair if one] == whole
