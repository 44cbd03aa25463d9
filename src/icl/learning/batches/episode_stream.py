"""The sequences of any optimizer step, built on the fly from (seed, step)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from metashot.base.errors import ConfigError
from metashot.data.rows.episodes import EpisodeSampler, bucketed_batches, split_over_ranks
from metashot.data.task import Example
from metashot.engine.models.text_tokenizer import AnyTokenizer
from metashot.icl.learning.training_settings import Batching, MetaTrainSettings
from metashot.icl.learning.writing.piece_cache import PieceCache, batch_encoder
from metashot.icl.learning.writing.sequences import SequenceRules, TrainingSequence, build_sequences
from metashot.icl.prompting.bound import BoundPrompt
from metashot.icl.prompting.boundary import Boundary
from metashot.icl.prompting.frame import TextFrame
from metashot.icl.prompting.prompt import Ids

_FIRST_STEPS = 16


class EpisodeStream:
    """Batches by step number; holds one window of sequences, whatever the number of steps.

    Args:
        sampler: which examples.
        cache: their ids.
        rules: how they become sequences.
        batching: bucketed batches come from windows of many batches, the others from the drawn order.
        batch_size: sequences of an optimizer step, over all ranks.
        bucket_batches: batches of a window under `Batching.BUCKETED`.
    """

    def __init__(
        self,
        sampler: EpisodeSampler,
        cache: PieceCache,
        rules: SequenceRules,
        *,
        batching: Batching,
        batch_size: int,
        bucket_batches: int,
    ) -> None:
        self._sampler = sampler
        self._cache = cache
        self._rules = rules
        self._batching = batching
        self._batch_size = batch_size
        self._bucket_batches = bucket_batches if batching is Batching.BUCKETED else 1
        self._window = -1
        self._batches: list[list[TrainingSequence]] = []

    def step(self, step: int) -> list[TrainingSequence]:
        """All sequences of the 0-based optimizer step, over all ranks; longest first unless padded."""
        window, place = divmod(step, self._bucket_batches)
        if window != self._window:
            self._batches = self._build(window)
            self._window = window
        return self._batches[place]

    def first_sequences(self) -> list[TrainingSequence]:
        """The sequences of the first steps: what lengths are to be expected."""
        return [one for step in range(_FIRST_STEPS) for one in self.step(step)]

    def micro_batches(
        self, step: int, world_size: int, rank: int, micro_batch_size: int
    ) -> list[list[TrainingSequence]]:
        """This rank's share of a step, in forward passes of at most `micro_batch_size` sequences."""
        sequences = self.step(step)
        places = split_over_ranks(range(len(sequences)), world_size, rank, micro_batch_size)
        return [[sequences[place] for place in part] for part in places]

    def _build(self, window: int) -> list[list[TrainingSequence]]:
        count = self._bucket_batches * self._batch_size
        episodes = [self._sampler.episode(index) for index in range(window * count, (window + 1) * count)]
        sequences = build_sequences(episodes, self._cache, self._rules)
        if self._batching is Batching.PADDED:
            return [sequences]
        lengths = [sequence.tokens for sequence in sequences]
        order = bucketed_batches(lengths, self._batch_size, self._sampler.seed, window)
        return [[sequences[place] for place in batch] for batch in order]


def batch_identity(
    step: int, sequences: Sequence[TrainingSequence], task_names: Sequence[str]
) -> dict[str, object]:
    """What finds a batch again: its step, and task and episode number of each sequence."""
    return {
        "step": step,
        "episodes": [
            {"task": task_names[sequence.task], "episode": sequence.index, "tokens": sequence.tokens}
            for sequence in sequences
        ],
    }


def training_prompt(settings: MetaTrainSettings, tokenizer: AnyTokenizer) -> BoundPrompt:
    """The prompt format of the training sequences; released layouts are the newline one, whatever the model.

    Raises:
        ConfigError: a format that sequences built from pieces cannot have.
    """
    if settings.prompt.boundary is Boundary.JOINT:
        raise ConfigError(
            "prompt.boundary",
            "joint, but training sequences are joined from pieces that are tokenized once",
            "use prompt.boundary=separate",
        )
    prompt = settings.prompt.bind(settings.method, "", tokenizer)
    frame = prompt.frame
    if isinstance(frame, TextFrame) and not frame.alike:
        raise ConfigError(
            "prompt",
            "the chat template writes the turn that is answered differently from the others, so demonstrations would "
            "not look like queries",
            "set prompt.options so that they agree, or use prompt=template",
        )
    return prompt


def episode_stream(
    settings: MetaTrainSettings,
    tokenizer: AnyTokenizer,
    context_length: int,
    pools: Mapping[str, Sequence[Example]],
) -> EpisodeStream:
    """The sequences of every step of a run; needs a tokenizer, no weights."""
    episodes = settings.episodes
    prompt = training_prompt(settings, tokenizer)
    encode = batch_encoder(tokenizer)
    sampler = EpisodeSampler(
        tuple(len(pool) for pool in pools.values()),
        settings.shots,
        settings.seed,
        episodes.task_sampling,
        tuple(map(label_numbers, pools.values())) if episodes.balanced_labels else (),
    )

    def encode_one(text: str) -> Ids:
        return tuple(encode([text])[0])

    later = prompt.later_encoder(encode_one) if isinstance(prompt.frame, TextFrame) else None
    cache = PieceCache(list(pools.values()), encode, prompt.frame, later)
    rules = SequenceRules(
        prompt.frame,
        episodes.limits,
        context_length,
        (*prompt.bos, *prompt.opening_ids(encode_one)),
        episodes.demonstration_labels,
        episodes.no_masking,
        settings.seed,
        episodes.loss_on,
        alternatives=episodes.option_weight > 0,
        replaced_share=episodes.replaced_share,
        released_free_form=episodes.released_free_form,
    )
    return EpisodeStream(
        sampler,
        cache,
        rules,
        batching=episodes.batching,
        batch_size=episodes.batch_size,
        bucket_batches=episodes.bucket_batches,
    )


def label_numbers(pool: Sequence[Example]) -> tuple[int, ...]:
    """Number of each example's label among the task's; empty for tasks whose options differ from row to row."""
    options = {frozenset(example.options) for example in pool}
    if len(options) != 1 or not pool[0].options:
        return ()
    places = {label: number for number, label in enumerate(sorted(pool[0].options))}
    return tuple(places[example.output] for example in pool)
