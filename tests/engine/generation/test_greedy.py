"""Greedy decoding with a shared prefix gives what transformers gives for each prompt alone."""

from __future__ import annotations

import pytest
import torch

from metashot.base.errors import ConfigError
from metashot.engine.generation.greedy import GreedyGenerator, Stopping, cut_at_stop
from metashot.engine.models.loading import LanguageModel, load_model
from metashot.engine.models.sources import TinyModel
from metashot.engine.models.tiny import tiny_model


@pytest.fixture(scope="module", params=["gpt2", "llama", "t5"])
def loaded(request: pytest.FixtureRequest) -> LanguageModel:
    return load_model(TinyModel("tiny", request.param, device="cpu"))


def prompts(model: LanguageModel, shared: int) -> list[tuple[int, ...]]:
    generator = torch.Generator().manual_seed(1)
    vocabulary = int(model.model.config.vocab_size)

    def draw(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, vocabulary, (count,), generator=generator).tolist())

    head = draw(shared)
    return [head + draw(length) for length in (5, 1, 9, 3, 9)]


def alone(loaded: LanguageModel, prompt: tuple[int, ...], stopping: Stopping) -> str:
    out = loaded.model.generate(
        input_ids=torch.tensor([prompt]), do_sample=False, num_beams=1, max_new_tokens=stopping.max_new_tokens,
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long), pad_token_id=0,
    )  # fmt: skip
    new = out[0] if loaded.is_seq2seq else out[0, len(prompt) :]
    return cut_at_stop(loaded.tokenizer.decode(new.tolist(), skip_special_tokens=True), stopping.stop)


@pytest.mark.parametrize("shared", [0, 12])
@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_answers_equal_those_of_each_prompt_alone(
    loaded: LanguageModel, shared: int, batch_size: int
) -> None:
    stopping = Stopping(6, ())
    given = prompts(loaded, shared)
    seen: list[tuple[int, int]] = []
    found = GreedyGenerator(loaded.model, loaded.tokenizer, batch_size).generate(
        given, stopping, lambda done, total: seen.append((done, total))
    )
    assert found == [alone(loaded, prompt, stopping) for prompt in given]
    assert len(set(found)) > 1
    assert seen[-1] == (5, 5)


def test_the_shared_prefix_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_model(TinyModel("tiny", "llama", device="cpu"))
    tokens = 0

    def count(_module: object, arguments: tuple[torch.Tensor], _output: object) -> None:
        nonlocal tokens
        tokens += arguments[0].numel()

    loaded.model.get_input_embeddings().register_forward_hook(count)
    GreedyGenerator(loaded.model, loaded.tokenizer).generate(prompts(loaded, 40), Stopping(1, ()))
    assert tokens == 40 + 5 * 9  # the prefix, and five suffixes padded to the longest


def test_a_stop_string_ends_the_answer(loaded: LanguageModel) -> None:
    given = prompts(loaded, 0)[:1]
    (whole,) = GreedyGenerator(loaded.model, loaded.tokenizer).generate(given, Stopping(8, ()))
    word = whole[len(whole) // 2]
    (cut,) = GreedyGenerator(loaded.model, loaded.tokenizer).generate(given, Stopping(8, (word,)))
    assert cut == whole[: whole.index(word)]


def test_the_first_stop_string_of_several_wins() -> None:
    assert cut_at_stop("one\n\ntwo Q: three", ("Q:", "\n\n")) == "one"
    assert cut_at_stop("one", ("Q:",)) == "one"


def test_too_little_memory_halves_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_model(TinyModel("tiny", "llama", device="cpu"))
    generator = GreedyGenerator(loaded.model, loaded.tokenizer, batch_size=4)
    whole = generator.generate(prompts(loaded, 0), Stopping(3, ()))
    batch, sizes = generator._batch, []

    def limited(given: list[tuple[int, ...]], *rest: object) -> list[str]:
        sizes.append(len(given))
        if len(given) > 2:
            raise torch.OutOfMemoryError
        return batch(given, *rest)

    monkeypatch.setattr(generator, "_batch", limited)
    assert generator.generate(prompts(loaded, 0), Stopping(3, ())) == whole
    assert sizes == [4, 2, 2, 1]


def test_what_cannot_be_generated_is_said() -> None:
    loaded = load_model(TinyModel("tiny", "gpt2", device="cpu"))
    generator = GreedyGenerator(loaded.model, loaded.tokenizer)
    with pytest.raises(ConfigError, match="which with 5000 new ones is over the model's"):
        generator.generate([(5, 6)], Stopping(5000))
    with pytest.raises(ConfigError, match="prompt 1 has no token"):
        generator.generate([(5,), ()], Stopping(2))
    with pytest.raises(ConfigError, match="0 is not positive"):
        Stopping(0)
    with pytest.raises(ConfigError, match="an empty string"):
        Stopping(1, ("",))


def test_penalties_of_a_generation_config_do_not_make_another_answer():
    """Only its token ids count: where a text ends is the model's affair, which word is the most probable is not."""
    model, tokenizer = tiny_model("gpt2")
    prompts = [tuple(tokenizer("what is one plus one?")["input_ids"])]
    free = Stopping(8, ())
    before = GreedyGenerator(model, tokenizer).generate(prompts, free)
    model.generation_config.update(repetition_penalty=5.0, no_repeat_ngram_size=1, suppress_tokens=[60, 61])
    penalized = model.generation_config
    assert GreedyGenerator(model, tokenizer).generate(prompts, free) == before
    assert GreedyGenerator(model, tokenizer, obeys_generation_config=True).generate(prompts, free) != before
    assert model.generation_config is penalized
    first = int(model(torch.tensor(prompts)).logits[0, -1].argmax())
    model.generation_config.eos_token_id = [first]
    assert GreedyGenerator(model, tokenizer).generate(prompts, free)[0] != before[0]
