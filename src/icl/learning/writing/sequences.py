"""From episodes to training sequences: context and target ids.

Two demonstrations and a query, direct, one token a word, each example `input` then `output`:

    place      0        1      2        3      4     5
    piece   [good day] [yes] [bad night] [no] [fine] [yes]
    ids      good day   yes   bad night   no   fine   yes
    ends           2     3          5      6     7     8

The query's question is `start=7, end=8`: the token at 7 is a target, read off the state at 6. With
`loss_on=every` the second example is a question too, `start=5, end=6`; the first has no demonstration and is none.
A limit of 6 cuts `good day`: every place moves by 2, and a question whose context is gone is dropped. Channel swaps
the two pieces of each example, so `fine` is the target and follows `yes`; the alternative `no fine` branches off at 6,
before the label, and its first token is not scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from metashot.base.errors import DataError
from metashot.data.rows.episodes import Episode
from metashot.data.task import Example
from metashot.icl.learning.writing.piece_cache import CodeArray, IdArray, PieceCache, piece_codes
from metashot.icl.learning.writing.sequence_labels import DemonstrationLabels, sequence_labels
from metashot.icl.prompting.frame import Frame, MetaiclFrame, shorten
from metashot.icl.prompting.prompt import Ids, LengthLimits, Objective, check_output_fits, cut_example


class LossOn(StrEnum):
    """Which examples of a training sequence are trained on."""

    QUERY = "query"
    """The last one (MetaICL)."""
    EVERY = "every"
    """Every one that has a demonstration before it: k losses for the tokens of one sequence."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another option of a question, in the place of the gold one.

    Attributes:
        ids: [tokens] what follows the question's context.
        lead: tokens at the front that are not scored (in channel scoring the option itself).
    """

    ids: IdArray
    lead: int


@dataclass(frozen=True, slots=True)
class Question:
    """A scored part of a sequence.

    Attributes:
        start: place of its first target token.
        end: place after its last one.
        branch: tokens of the sequence that its alternatives follow.
        alternatives: the options that are wrong; empty where only the target's tokens are trained on.
    """

    start: int
    end: int
    branch: int
    alternatives: tuple[Alternative, ...] = ()

    @property
    def target_tokens(self) -> int:
        """Targets that have a predecessor to predict them from."""
        return max(0, self.end - max(1, self.start))


@dataclass(frozen=True, slots=True)
class TrainingSequence:
    """One sequence to train on.

    Attributes:
        ids: [tokens] context and target.
        questions: what is scored in it, in order; the last one ends the sequence.
        task: number of its task.
        index: number of its episode.
        cut: tokens that the sequence limit took from its front.
        demonstrations: how many it was made of.
        demonstrations_cut: those of which either limit took something.
    """

    ids: IdArray
    questions: tuple[Question, ...]
    task: int
    index: int
    cut: int = 0
    demonstrations: int = 0
    demonstrations_cut: int = 0

    @property
    def first_target(self) -> int:
        """Place of the last question's first target."""
        return self.questions[-1].start

    @property
    def target_tokens(self) -> int:
        """Targets of all questions."""
        return sum(question.target_tokens for question in self.questions)

    @property
    def tokens(self) -> int:
        """All tokens, alternatives included."""
        others = (one for question in self.questions for one in question.alternatives)
        return len(self.ids) + sum(len(one.ids) for one in others)


@dataclass(frozen=True, slots=True)
class SequenceRules:
    """How an episode becomes a sequence.

    Attributes:
        frame: the texts around inputs and outputs.
        limits: token limits.
        context_length: positions of the model.
        front: ids in front of every sequence (begin-of-sequence, opening text).
        labels: the label ablation.
        no_masking: every token is a target. (The released ablation also trains on padding; there is none here.)
        seed: of what the ablations draw.
        loss_on: which examples are questions.
        alternatives: whether questions carry their wrong options.
        replaced_share: share of the sequences whose labels become random words; below 1, tasks that have no common
            options keep their labels.
        released_free_form: nothing stands between input and output of an example without options, as in the released
            code since February 2022 (its checkpoints are older).
    """

    frame: Frame
    limits: LengthLimits
    context_length: int
    front: Ids = ()
    labels: DemonstrationLabels = DemonstrationLabels.GOLD
    no_masking: bool = False
    seed: int = 0
    loss_on: LossOn = LossOn.QUERY
    alternatives: bool = False
    replaced_share: float = 1.0
    released_free_form: bool = False


def build_sequences(
    episodes: Sequence[Episode], cache: PieceCache, rules: SequenceRules
) -> list[TrainingSequence]:
    """Sequences of `episodes`, after tokenizing in one call what is seen for the first time.

    Raises:
        DataError: an output longer than an example may be, or a task that the label ablation cannot serve.
    """
    plans = [_plan(episode, cache, rules) for episode in episodes]
    cache.prepare(
        np.concatenate([codes for plan in plans for codes in plan.needed]),
        (text for plan in plans for text in plan.texts),
    )
    return [_assemble(episode, plan, cache, rules) for episode, plan in zip(episodes, plans, strict=True)]


@dataclass(frozen=True, slots=True)
class _Plan:
    """The pieces of an episode, demonstrations then query.

    Attributes:
        input_codes: [k + 1] pieces of the inputs.
        output_codes: [k + 1] pieces of the outputs.
        label_texts: what replaces each output; empty where nothing is replaced.
        other_texts: the wrong options by place, for the places that are questions with alternatives.
    """

    input_codes: CodeArray
    output_codes: CodeArray
    label_texts: list[str | None]
    other_texts: dict[int, list[str]]

    @property
    def needed(self) -> list[CodeArray]:
        kept = [text is None for text in self.label_texts]
        return [self.input_codes, self.output_codes[kept] if kept else self.output_codes]

    @property
    def texts(self) -> list[str]:
        replacing = [text for text in self.label_texts if text is not None]
        return [*replacing, *(text for texts in self.other_texts.values() for text in texts)]


def _plan(episode: Episode, cache: PieceCache, rules: SequenceRules) -> _Plan:
    numbers = cache.numbers(episode.task, (*episode.demonstrations, episode.query))
    place = np.arange(len(numbers))
    no_label = (place < len(numbers) - 1) & (rules.labels is DemonstrationLabels.NONE)
    examples = [cache.example(int(number)) for number in numbers]
    bare = np.array([rules.released_free_form and not example.options for example in examples], dtype=bool)
    sides = [
        piece_codes(numbers, is_output=False, first=place == 0, no_label=no_label | bare),
        piece_codes(numbers, is_output=True, first=place == 0, no_label=no_label),
    ]
    labels = sequence_labels(examples, episode.index, rules.labels, rules.replaced_share, rules.seed)
    texts: list[str | None] = []
    if any(label is not None for label in labels.own):
        texts = [
            None if label is None else cache.label_text(label, first=index == 0)
            for index, label in enumerate(labels.own)
        ]
    elif bare.any() and rules.frame.objective is Objective.DIRECT:
        texts = [example.output if alone else None for example, alone in zip(examples, bare, strict=True)]
    others = {
        at: [cache.label_text(label, first=at == 0) for label in labels.others(at)]
        for at in (_question_places(len(examples), rules) if rules.alternatives else ())
    }
    return _Plan(sides[0], sides[1], texts, others)


def _question_places(count: int, rules: SequenceRules) -> range:
    """Places of the examples that are scored; the first of several has no demonstration and is none."""
    every = rules.loss_on is LossOn.EVERY and count > 1
    return range(1 if every else count - 1, count)


def _assemble(episode: Episode, plan: _Plan, cache: PieceCache, rules: SequenceRules) -> TrainingSequence:
    """The ids of an episode, cut to its limit, and the places of its questions.

    Example:
        Two demonstrations and a query, pieces of 3 (inputs) and 1 (outputs) tokens, one id in front, a limit of 10::

            pieces    in0 in0 in0 out0 in1 in1 in1 out1 in2 in2 in2 out2      12 tokens
            ends      3 4 7 8 11 12: the place after each piece
            room      10 - 1 = 9, so cut = 3: `in0` is lost, and demonstration 0 counts as cut
            ids       front out0 in1 in1 in1 out1 in2 in2 in2 out2            10 tokens
            ends      1 2 5 6 9 10: minus cut, plus front
    """
    inputs, outputs, shortened = _fitted_pieces(episode, plan, cache, rules)
    direct = rules.frame.objective is Objective.DIRECT
    # Each example is two neighbouring pieces, what is conditioned on before what is scored.
    pairs = zip(inputs, outputs, strict=True) if direct else zip(outputs, inputs, strict=True)
    pieces = [piece for pair in pairs for piece in pair]
    limit = rules.limits.sequence if episode.demonstrations else rules.limits.per_example
    room = min(limit, rules.context_length) - len(rules.front)
    if len(pieces[-1]) > room:
        task = cache.example(int(cache.numbers(episode.task, (episode.query,))[0])).task
        raise DataError(
            task, f"a target of {len(pieces[-1])} tokens exceeds the limit of {room}", "shorten it"
        )
    ids = np.concatenate(pieces)
    cut = max(0, len(ids) - room)
    ends = np.cumsum([len(piece) for piece in pieces])
    # Example i > 0 begins where example i - 1 ends, at ends[2 i - 1]; it lost something if that lies before the cut.
    shortened[1:] |= ends[1:-1:2] < cut
    shortened[0] |= cut > 0
    ends = ends - cut + len(rules.front)
    ids = np.concatenate([np.asarray(rules.front, dtype=ids.dtype), ids[cut:]])
    if rules.no_masking:
        questions = [Question(0, len(ids), 0)]
    else:
        places = _question_places(len(inputs), rules)
        questions = [_question(at, ends, inputs, outputs, plan, cache, rules) for at in places]
        # Where the cut reaches into an earlier question, it has no whole context left.
        questions = [q for q in questions if q.branch > len(rules.front) or q is questions[-1]]
    shots = len(inputs) - 1
    return TrainingSequence(
        ids,
        tuple(questions),
        task=episode.task,
        index=episode.index,
        cut=cut,
        demonstrations=shots,
        demonstrations_cut=int(shortened[:shots].sum()),
    )


def _fitted_pieces(
    episode: Episode, plan: _Plan, cache: PieceCache, rules: SequenceRules
) -> tuple[list[IdArray], list[IdArray], NDArray[np.bool_]]:
    """Inputs and outputs [k + 1] under the limit of an example, and which examples [k + 1] lost something to it."""
    numbers = cache.numbers(episode.task, (*episode.demonstrations, episode.query))
    inputs, outputs = cache.ids(plan.input_codes), cache.ids(plan.output_codes)
    for place, text in enumerate(plan.label_texts):
        outputs[place] = outputs[place] if text is None else cache.text_ids(text)
    shortened = np.zeros(len(inputs), dtype=bool)
    for place, (input_ids, output_ids) in enumerate(zip(inputs, outputs, strict=True)):
        whole = len(input_ids) + len(output_ids)
        if whole < rules.limits.example_room:
            continue
        is_query = place == len(numbers) - 1
        inputs[place], outputs[place] = _cut(
            cache.example(int(numbers[place])),
            input_ids,
            output_ids,
            cache,
            rules,
            first=place == 0,
            no_label=not is_query and rules.labels is DemonstrationLabels.NONE,
        )
        shortened[place] = len(inputs[place]) + len(outputs[place]) < whole
    return inputs, outputs, shortened


def _question(
    at: int,
    ends: IdArray,
    inputs: list[IdArray],
    outputs: list[IdArray],
    plan: _Plan,
    cache: PieceCache,
    rules: SequenceRules,
) -> Question:
    """The question at place `at`; `ends` [2 (k + 1)] are the places after each piece of the sequence.

    Of example `at`, the piece that is conditioned on ends at `ends[2 * at]`, the one that is scored at the next end.
    """
    start, end = int(ends[2 * at]), int(ends[2 * at + 1])
    start = max(len(rules.front), start)  # the cut may have taken the first tokens of the target
    option_texts = plan.other_texts.get(at, ())
    if rules.frame.objective is Objective.DIRECT:
        others = [Alternative(cache.text_ids(text)[: rules.limits.example_room], 0) for text in option_texts]
        return Question(start, end, start, tuple(others))
    # Channel: the options come first and the input is scored, so an alternative branches off before the option.
    branch = max(len(rules.front), int(ends[2 * at]) - len(outputs[at]))
    options = [cache.text_ids(text) for text in option_texts]
    others = [Alternative(np.concatenate([ids, inputs[at]]), len(ids)) for ids in options]
    return Question(start, end, branch, tuple(others))


def _cut(
    example: Example,
    input_ids: IdArray,
    output_ids: IdArray,
    cache: PieceCache,
    rules: SequenceRules,
    *,
    first: bool,
    no_label: bool,
) -> tuple[IdArray, IdArray]:
    """One example's pieces under the per-example limit; a frame's own text behind an input stays."""
    if isinstance(rules.frame, MetaiclFrame):
        return cut_example(example.task, input_ids, output_ids, rules.limits)  # pyright: ignore
    check_output_fits(example.task, len(output_ids), rules.limits)
    room = rules.limits.example_room - len(output_ids)

    def ids(text: str) -> Ids:
        piece = rules.frame.input_text(text, first=first, no_label=no_label)
        return cache.encode(piece, starts=first and rules.frame.objective is Objective.DIRECT)

    kept = shorten(example.input, room, lambda text: len(ids(text)))
    return np.asarray(ids(kept), dtype=np.int32), output_ids
