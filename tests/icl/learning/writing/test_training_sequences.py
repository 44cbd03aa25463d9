"""Training sequences equal the slow way of building them, and losses do not depend on how they are batched."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metashot.base.errors import DataError
from metashot.data.rows.episodes import Episode, EpisodeSampler
from metashot.data.task import Example
from metashot.engine.models.loading import LanguageModel
from metashot.icl.learning.batches.collate import Batching, collate
from metashot.icl.learning.batches.episode_stream import EpisodeStream
from metashot.icl.learning.batches.objective import TargetLoss, target_logits
from metashot.icl.learning.writing.piece_cache import PieceCache, batch_encoder
from metashot.icl.learning.writing.sequence_labels import DemonstrationLabels, english_words
from metashot.icl.learning.writing.sequences import LossOn, SequenceRules, TrainingSequence, build_sequences
from metashot.icl.prompting.config import BoundPrompt
from metashot.icl.prompting.frame import MetaiclFrame
from metashot.icl.prompting.pieces import PieceWriter
from metashot.icl.prompting.prompt import Layout, LengthLimits, Objective
from metashot.icl.prompting.template import template_frame

_spec = importlib.util.spec_from_file_location("kit", Path(__file__).parents[1] / "training_helpers.py")
assert _spec is not None
assert _spec.loader is not None
kit: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(kit)

TASK = [
    Example("toy", "the quick reader", "yes", ("yes", "no")),
    Example("toy", "asks which answer is right", "no", ("yes", "no")),
    Example("toy", "", "yes", ("yes", "no")),
    Example("toy", "why " * 40, "no", ("yes", "no")),
]
FREE = [Example("free", f"question {index}", f"a long answer {index}") for index in range(4)]


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return kit.tiny()


def rules(objective: Objective = Objective.DIRECT, **changes: Any) -> SequenceRules:
    defaults: dict[str, Any] = {"limits": LengthLimits(32, 96), "context_length": 2048}
    return SequenceRules(MetaiclFrame(objective, Layout.NEWLINE), **{**defaults, **changes})


def cache_of(model: LanguageModel, objective: Objective, pools: Any = (TASK, FREE)) -> PieceCache:
    return PieceCache(pools, batch_encoder(model.tokenizer), MetaiclFrame(objective, Layout.NEWLINE))


def slowly(
    model: LanguageModel, episode: Episode, rule: SequenceRules, pools: Any = (TASK, FREE)
) -> list[int]:
    """The sequence by the prompt module alone, example by example."""

    def encode(text: str) -> tuple[int, ...]:
        return tuple(model.tokenizer(text, add_special_tokens=False)["input_ids"])  # pyright: ignore

    pool = pools[episode.task]
    writer = PieceWriter(BoundPrompt(rule.frame), encode, rule.limits)
    *shown, target = writer.shown_ids([pool[i] for i in (*episode.demonstrations, episode.query)])
    context = [token for piece in shown for token in piece]
    limit = rule.limits.sequence if episode.demonstrations else rule.limits.per_example
    return context[max(0, len(context) - (limit - len(target))) :] + list(target)


@pytest.mark.parametrize("objective", list(Objective))
@pytest.mark.parametrize(
    "episode",
    [
        Episode(0, 0, (0, 2), 1),
        Episode(1, 0, (2, 1), 0),
        Episode(2, 0, (), 3),
        Episode(3, 0, (3, 3, 3, 3), 0),
        Episode(4, 1, (0, 1), 2),
    ],
)
def test_sequences_equal_those_built_example_by_example(
    model: LanguageModel, objective: Objective, episode: Episode
) -> None:
    rule = rules(objective)
    (sequence,) = build_sequences([episode], cache_of(model, objective), rule)
    assert sequence.ids.tolist() == slowly(model, episode, rule)
    assert len(sequence.ids) <= 96


def test_the_text_of_a_direct_and_a_channel_sequence_is_the_newline_layout(model: LanguageModel) -> None:
    texts = {}
    for objective in Objective:
        (sequence,) = build_sequences([Episode(0, 0, (0,), 1)], cache_of(model, objective), rules(objective))
        ids = sequence.ids.tolist()
        texts[objective] = tuple(
            model.tokenizer.decode(part)
            for part in (ids[: sequence.first_target], ids[sequence.first_target :])
        )
    assert texts[Objective.DIRECT] == ("the quick reader\nyes\n\n\nasks which answer is right", "\nno")
    assert texts[Objective.CHANNEL] == ("yes\nthe quick reader\n\n\nno", "\nasks which answer is right")


def test_free_form_tasks_keep_the_newline_between_input_and_output(model: LanguageModel) -> None:
    (sequence,) = build_sequences([Episode(0, 1, (), 0)], cache_of(model, Objective.DIRECT), rules())
    assert model.tokenizer.decode(sequence.ids.tolist()) == "question 0\na long answer 0"


def test_pieces_are_tokenized_once_whatever_the_number_of_steps(model: LanguageModel) -> None:
    texts: list[str] = []
    encode = batch_encoder(model.tokenizer)

    def counting(batch: list[str]) -> Any:
        texts.extend(batch)
        return encode(batch)

    cache = PieceCache([TASK], counting, MetaiclFrame(Objective.DIRECT, Layout.NEWLINE))
    sampler = EpisodeSampler((4,), 2, seed=0)
    for index in range(200):
        build_sequences([sampler.episode(index)], cache, rules())
    # Per example: input first and later, output first and later.
    assert len(texts) == 4 * len(TASK)


def test_random_words_replace_a_label_alike_in_demonstrations_and_query(model: LanguageModel) -> None:
    rule = rules(labels=DemonstrationLabels.RANDOM_WORDS)
    first, second = build_sequences(
        [Episode(0, 0, (0, 1), 2), Episode(1, 0, (0, 1), 2)], cache_of(model, Objective.DIRECT), rule
    )
    words = []
    for sequence in (first, second):
        blocks = [
            block.split("\n") for block in model.tokenizer.decode(sequence.ids.tolist()).split("\n\n\n")
        ]
        yes, no = blocks[0][1], blocks[1][1]
        assert {yes, no} <= set(english_words())
        assert model.tokenizer.decode(sequence.ids.tolist()[sequence.first_target :]) == f"\n{yes}"
        words.append((yes, no))
    assert words[0] != words[1]


def test_no_labels_leave_demonstrations_bare_and_the_query_labelled(model: LanguageModel) -> None:
    (sequence,) = build_sequences(
        [Episode(0, 0, (0,), 1)], cache_of(model, Objective.DIRECT), rules(labels=DemonstrationLabels.NONE)
    )
    text = model.tokenizer.decode(sequence.ids.tolist())
    assert text == "the quick reader\n\n\nasks which answer is right\nno"


def test_random_labels_are_options_and_leave_the_target_gold(model: LanguageModel) -> None:
    episodes = [Episode(index, 0, (0,), 1) for index in range(40)]
    found = build_sequences(
        episodes, cache_of(model, Objective.DIRECT), rules(labels=DemonstrationLabels.RANDOM)
    )
    texts = {model.tokenizer.decode(sequence.ids.tolist()) for sequence in found}
    ending = "\n\n\nasks which answer is right\nno"
    assert texts == {f"the quick reader\nyes{ending}", f"the quick reader\nno{ending}"}


@pytest.mark.parametrize("labels", [DemonstrationLabels.RANDOM, DemonstrationLabels.RANDOM_WORDS])
def test_a_free_form_task_cannot_have_replaced_labels(
    model: LanguageModel, labels: DemonstrationLabels
) -> None:
    with pytest.raises(DataError, match="free: is free-form"):
        build_sequences([Episode(0, 1, (0,), 1)], cache_of(model, Objective.DIRECT), rules(labels=labels))


def stream(model: LanguageModel, objective: Objective, batching: Batching, **changes: Any) -> EpisodeStream:
    pools = kit.pools()
    options: dict[str, Any] = {"batch_size": 6, "bucket_batches": 4, **changes}
    sampler = EpisodeSampler(tuple(map(len, pools)), 3, seed=5)
    rule = rules(objective, limits=LengthLimits(64, 512))
    return EpisodeStream(sampler, cache_of(model, objective, pools), rule, batching=batching, **options)


def test_a_window_of_bucketed_batches_holds_the_drawn_episodes_and_each_batch_like_lengths(
    model: LanguageModel,
) -> None:
    bucketed = stream(model, Objective.DIRECT, Batching.BUCKETED)
    batches = [bucketed.step(step) for step in range(4)]
    assert sorted(sequence.index for batch in batches for sequence in batch) == list(range(24))
    spans = sorted((min(len(s.ids) for s in batch), max(len(s.ids) for s in batch)) for batch in batches)
    assert all(left[1] <= right[0] for left, right in itertools.pairwise(spans))


@pytest.mark.parametrize("batching", list(Batching))
def test_a_step_does_not_depend_on_the_steps_before_it(model: LanguageModel, batching: Batching) -> None:
    walked = stream(model, Objective.DIRECT, batching)
    seen = [[s.ids.tolist() for s in walked.step(step)] for step in range(9)]
    jumped = stream(model, Objective.DIRECT, batching)
    for step in (8, 0, 5):
        assert [s.ids.tolist() for s in jumped.step(step)] == seen[step]


@given(world=st.sampled_from([1, 2, 3, 6]), micro=st.integers(1, 4), step=st.integers(0, 7))
@settings(max_examples=25)
def test_ranks_share_a_step_without_gap_or_overlap(world: int, micro: int, step: int) -> None:
    model = _shared_model()
    source = stream(model, Objective.DIRECT, Batching.BUCKETED)
    parts = [source.micro_batches(step, world, rank, micro) for rank in range(world)]
    assert sorted(s.index for rank in parts for batch in rank for s in batch) == sorted(
        s.index for s in source.step(step)
    )
    assert len({len(rank) for rank in parts}) == 1


_models: list[LanguageModel] = []


def _shared_model() -> LanguageModel:
    if not _models:
        _models.append(kit.tiny())
    return _models[0]


def gradients(
    model: LanguageModel, batches: list[list[TrainingSequence]], batching: Batching, total: int
) -> Any:
    module = TargetLoss(model.model)
    module.zero_grad()
    loss = sum(float(_backward(module, collate(batch, batching, total))) for batch in batches)
    grads = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    return loss, grads


def _backward(module: TargetLoss, batch: Any) -> torch.Tensor:
    loss = module(batch)
    loss.backward()
    return loss.detach()


@pytest.mark.parametrize("objective", list(Objective))
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gptj", "gemma"])
def test_batched_packed_and_single_sequences_give_the_same_gradients(
    architecture: str, objective: Objective
) -> None:
    model = kit.tiny(architecture)
    sequences = stream(model, objective, Batching.BUCKETED).step(0)
    singles = gradients(model, [[sequence] for sequence in sequences], Batching.BUCKETED, len(sequences))
    for batching in (Batching.BUCKETED, Batching.PACKED):
        loss, grads = gradients(model, [sequences], batching, len(sequences))
        assert loss == pytest.approx(singles[0], abs=1e-5)
        for name, grad in singles[1].items():
            torch.testing.assert_close(grads[name], grad, atol=1e-5, rtol=1e-5, msg=name)


def test_the_loss_is_the_mean_over_target_tokens_then_over_sequences(model: LanguageModel) -> None:
    sequences = stream(model, Objective.CHANNEL, Batching.BUCKETED).step(1)
    means = []
    for sequence in sequences:
        ids = torch.from_numpy(sequence.ids).long()[None]
        labels = ids.clone()
        labels[:, : sequence.first_target] = -100
        means.append(model.model(input_ids=ids, labels=labels).loss.item())
    loss, _ = gradients(model, [sequences], Batching.PACKED, len(sequences))
    assert loss == pytest.approx(sum(means) / len(means), abs=1e-5)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gptj", "gemma", "gemma2"])
def test_target_logits_are_the_models_own(architecture: str) -> None:
    model = kit.tiny(architecture)
    batch = collate(stream(model, Objective.CHANNEL, Batching.BUCKETED).step(2), Batching.BUCKETED, 1.0)
    full = model.model(input_ids=batch.input_ids).logits[batch.rows, batch.columns]
    torch.testing.assert_close(target_logits(model.model, batch), full, atol=1e-5, rtol=1e-5)


def test_no_masking_makes_every_token_but_the_first_a_target(model: LanguageModel) -> None:
    (sequence,) = build_sequences(
        [Episode(0, 0, (0,), 1)], cache_of(model, Objective.DIRECT), rules(no_masking=True)
    )
    batch = collate([sequence], Batching.BUCKETED, 1.0)
    assert batch.labels.tolist() == sequence.ids.tolist()[1:]
    assert float(batch.weights.sum()) == pytest.approx(1.0)


def test_padded_batches_reach_the_limit_and_change_no_loss(model: LanguageModel) -> None:
    sequences = stream(model, Objective.DIRECT, Batching.BUCKETED).step(0)
    padded = collate(sequences, Batching.PADDED, 6.0, pad_to=512)
    assert padded.input_ids.shape == (6, 512)
    short = collate(sequences, Batching.BUCKETED, 6.0)
    module = TargetLoss(model.model)
    torch.testing.assert_close(module(padded), module(short), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("objective", list(Objective))
def test_every_example_after_the_first_is_a_question_with_its_wrong_options(
    model: LanguageModel, objective: Objective
) -> None:
    rule = rules(objective, loss_on=LossOn.EVERY, alternatives=True)
    (sequence,) = build_sequences([Episode(0, 0, (0, 1), 1)], cache_of(model, objective), rule)
    decode = model.tokenizer.decode
    shown = [
        (
            decode(sequence.ids.tolist()[question.branch : question.start]),
            decode(sequence.ids.tolist()[question.start : question.end]),
            [
                (decode(other.ids.tolist()[: other.lead]), decode(other.ids.tolist()[other.lead :]))
                for other in question.alternatives
            ],
        )
        for question in sequence.questions
    ]
    text = "asks which answer is right"
    if objective is Objective.DIRECT:
        assert shown == [("", "\nno", [("", "\nyes")])] * 2
    else:
        assert shown == [("\n\n\nno", f"\n{text}", [("\n\n\nyes", f"\n{text}")])] * 2
    (only,) = build_sequences([Episode(0, 0, (0, 1), 1)], cache_of(model, objective), rules(objective))
    assert [question.end for question in only.questions] == [len(sequence.ids)]


def test_questions_whose_context_the_limit_cut_are_left_out(model: LanguageModel) -> None:
    rule = rules(limits=LengthLimits(32, 40), loss_on=LossOn.EVERY, alternatives=True)
    (sequence,) = build_sequences([Episode(0, 0, (0, 3, 3, 3), 1)], cache_of(model, Objective.DIRECT), rule)
    assert sequence.cut > 0
    assert len(sequence.questions) < 4
    ends = [model.tokenizer.decode(sequence.ids.tolist()[q.start : q.end]) for q in sequence.questions]
    assert set(ends) == {"\nno"}


def test_replaced_words_stand_in_the_wrong_options_too(model: LanguageModel) -> None:
    rule = rules(labels=DemonstrationLabels.RANDOM_WORDS, loss_on=LossOn.EVERY, alternatives=True)
    (sequence,) = build_sequences([Episode(5, 0, (0, 1), 2)], cache_of(model, Objective.DIRECT), rule)
    text = model.tokenizer.decode(sequence.ids.tolist())
    first, last = sequence.questions
    wrong = [model.tokenizer.decode(q.alternatives[0].ids.tolist()) for q in (first, last)]
    right = [model.tokenizer.decode(sequence.ids.tolist()[q.start : q.end]) for q in (first, last)]
    assert (wrong[0], right[0]) == (right[1], wrong[1])
    assert "\nyes" not in text
    assert "\nno" not in text


def test_a_share_of_the_sequences_has_words_and_tasks_without_common_options_keep_theirs(
    model: LanguageModel,
) -> None:
    rule = rules(labels=DemonstrationLabels.RANDOM_WORDS, replaced_share=0.5)
    episodes = [Episode(index, index % 2, (0,), 1) for index in range(80)]
    built = build_sequences(episodes, cache_of(model, Objective.DIRECT), rule)
    ends = [model.tokenizer.decode(one.ids.tolist()[one.first_target :]) for one in built]
    assert 10 < sum(end == "\nno" for end in ends[::2]) < 30
    assert all(end.startswith("\na long answer") for end in ends[1::2])


def test_balanced_sampling_draws_every_label_equally_often_and_demonstrations_do_not_give_the_next_away() -> (
    None
):
    labels = (0,) * 90 + (1,) * 6 + (2,) * 4
    sampler = EpisodeSampler((100, 6), 4, seed=1, labels=(labels, ()))
    queries: dict[int, list[int]] = {0: [], 1: [], 2: [], 3: [], 4: []}
    for index in range(4000):
        episode = sampler.episode(index)
        assert len({*episode.demonstrations, episode.query}) == 5
        if episode.task == 0:
            shown = [labels[one] for one in episode.demonstrations]
            queries[shown.count(0)].append(labels[episode.query])
    # Given c demonstrations of label 0, the query is of label 0 with probability 1/3: within 4 standard errors.
    for count in (0, 1, 2):
        found = [label == 0 for label in queries[count]]
        assert np.mean(found) == pytest.approx(1 / 3, abs=4 * (2 / 9 / len(found)) ** 0.5)
    assert sampler.episode(7) == EpisodeSampler((100, 6), 4, seed=1, labels=(labels, ())).episode(7)


def test_balanced_sampling_takes_what_there_is_where_a_label_runs_out() -> None:
    sampler = EpisodeSampler((3,), 2, seed=0, labels=((0, 0, 1),))
    assert {frozenset((*e.demonstrations, e.query)) for e in map(sampler.episode, range(20))} == {
        frozenset({0, 1, 2})
    }


@pytest.mark.parametrize("objective", list(Objective))
def test_a_sequence_in_a_template_is_the_prompt_of_its_query(
    model: LanguageModel, objective: Objective
) -> None:
    """Begin-of-sequence, instruction, demonstrations, query: the ids that evaluation would score."""
    frame = template_frame(objective, example="In: {input}\nOut: {output}", instruction="Answer.")
    rule = SequenceRules(frame, LengthLimits(24, 96), 2048, (7, *encode_with(model)("Answer.\n\n")))
    episode = Episode(0, 0, (0, 3), 1)
    (sequence,) = build_sequences(
        [episode], PieceCache((TASK, FREE), batch_encoder(model.tokenizer), frame), rule
    )
    writer = PieceWriter(BoundPrompt(frame, (7,)), encode_with(model), rule.limits)
    shown = [TASK[place] for place in episode.demonstrations]
    prompts = writer.row(shown, TASK[episode.query])
    assert sequence.ids.tolist() in [list(prompt.ids) for prompt in prompts]
    assert len(sequence.ids) - sequence.first_target in [len(prompt.target) for prompt in prompts]


def test_the_front_of_a_sequence_survives_the_cut(model: LanguageModel) -> None:
    rule = SequenceRules(MetaiclFrame(Objective.DIRECT, Layout.NEWLINE), LengthLimits(32, 48), 2048, (7, 9))
    (sequence,) = build_sequences([Episode(0, 1, (0, 2, 3), 1)], cache_of(model, Objective.DIRECT), rule)
    assert len(sequence.ids) == 48
    assert sequence.cut > 0
    assert sequence.ids[:2].tolist() == [7, 9]
    bare = SequenceRules(rule.frame, LengthLimits(32, 46), 2048)
    (without,) = build_sequences([Episode(0, 1, (0, 2, 3), 1)], cache_of(model, Objective.DIRECT), bare)
    assert sequence.ids[2:].tolist() == without.ids.tolist()
    assert sequence.first_target == without.first_target + 2


def encode_with(model: LanguageModel) -> Any:
    encode = batch_encoder(model.tokenizer)
    return lambda text: tuple(encode([text])[0])


def test_the_released_code_puts_nothing_between_input_and_output_of_free_form_examples(
    model: LanguageModel,
) -> None:
    rule = {"released_free_form": True, "limits": LengthLimits(64, 256)}
    shown = {}
    for objective in Objective:
        (sequence,) = build_sequences(
            [Episode(0, 1, (0,), 1)], cache_of(model, objective), rules(objective, **rule)
        )
        shown[objective] = model.tokenizer.decode(sequence.ids.tolist())
    assert shown[Objective.DIRECT] == "question 0a long answer 0\n\n\nquestion 1a long answer 1"
    assert shown[Objective.CHANNEL] == "a long answer 0question 0\n\n\na long answer 1question 1"
    (kept,) = build_sequences([Episode(0, 0, (0,), 1)], cache_of(model, Objective.DIRECT), rules(**rule))
    assert model.tokenizer.decode(kept.ids.tolist()).endswith("\nno")
