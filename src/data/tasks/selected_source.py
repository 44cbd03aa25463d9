"""A task source with other demonstrations than its own: the demonstration lab around any data group."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import factorial

import numpy as np
from numpy.typing import NDArray

from metashot.base.errors import DataError
from metashot.base.value_kinds import Count, GivenLine, OrderNumber, Positive, Share
from metashot.data.rows.apart import overlap_note, row_key, shared_rows, without_own
from metashot.data.task import ChosenBy, Example, ModelChoice, TaskData, TaskType
from metashot.data.tasks.retrieval import diverse, lexical, voted
from metashot.data.tasks.selection import (
    add_label_noise,
    choose_balanced,
    choose_fixed,
    choose_random,
    flip_labels,
    inputs_only,
    labels_only,
    nearest,
    rename_labels,
    reorder,
    word_map,
)
from metashot.data.tasks.source import TaskSource

Embed = Callable[[list[str]], NDArray[np.float32]]
"""Sentences to vectors [n, d]."""


class Strategy(StrEnum):
    """How demonstrations are chosen."""

    PROTOCOL = "protocol"
    """The published k-shot draw of the seed."""
    RANDOM = "random"
    """Another uniform draw, from the training pool."""
    BALANCED = "balanced"
    """Equally many of each label, from the training pool."""
    FIXED = "fixed"
    """The places `selection.indices` of the training pool."""
    NEAREST = "nearest"
    """For each test example its nearest neighbours by sentence embedding, from the training pool."""
    BM25 = "bm25"
    """For each test example the rows of the highest BM25 score, from the training pool."""
    MMR = "mmr"
    """For each test example near rows that differ from each other, from the training pool."""
    VOTEK = "votek"
    """The nearest neighbours of each test example among `selection.annotated` rows that vote-k chooses of the pool."""
    CONE = "cone"
    """Of the `selection.candidates` nearest rows those behind which the model finds the test input likeliest."""


class Order(StrEnum):
    """In which order demonstrations stand, beside the numbers of permutations."""

    AS_DRAWN = "as_drawn"
    """As they were chosen: of ranked ones the best last."""
    NEAREST_LAST = "nearest_last"
    """By nearness to each test example."""
    GLOBALE = "globale"
    """The most even predictions over labels on training rows, of `selection.orders` orders."""
    LOCALE = "locale"
    """The least sure predictions on training rows, of `selection.orders` orders."""


RANKED = (Strategy.NEAREST, Strategy.BM25, Strategy.MMR, Strategy.VOTEK, Strategy.CONE)
"""Strategies that choose for each test row."""
_DENSE = (Strategy.NEAREST, Strategy.MMR, Strategy.VOTEK, Strategy.CONE)
_BY_ENTROPY = {Order.GLOBALE: ChosenBy.GLOBAL_ENTROPY, Order.LOCALE: ChosenBy.LOCAL_ENTROPY}


DRAWN: Mapping[Strategy, Callable[[Sequence[Example], int, np.random.Generator], tuple[Example, ...]]] = {
    Strategy.RANDOM: choose_random,
    Strategy.BALANCED: choose_balanced,
}
"""Strategies that draw once for all test rows: (pool, k, generator) to k of the pool, in the order of the prompt."""


class Labels(StrEnum):
    """Which labels demonstrations show."""

    GOLD = "gold"
    FLIPPED = "flipped"
    """Every label is consistently another one."""
    RANDOM_WORDS = "random_words"
    """Labels of demonstrations and options are random English words, one map per (task, seed).

    The rule of MetaICL's Table 13, with other words: the released list is no longer published, and the released
    code draws all tasks of a seed from one stream, so that a task's words depend on the tasks before it.
    """


class Shown(StrEnum):
    """Which part of a demonstration is shown."""

    ALL = "all"
    LABELS = "labels"
    INPUTS = "inputs"


@dataclass(frozen=True, slots=True)
class Selection:
    """`conf/config.yaml`, node `selection`."""

    strategy: Strategy = Strategy.PROTOCOL
    """How demonstrations are chosen."""
    indices: tuple[Count, ...] = ()
    """Places in the pool, for `fixed`."""
    order: OrderNumber | Order = 0
    """0 and `as_drawn` keep the order, n is the n-th other one: all different, k! in all; `nearest_last`; `globale` and
    `locale` have the model choose."""
    label_noise: Share = 0.0
    """Share of demonstrations with a wrong label, 0 to 1."""
    labels: Labels = Labels.GOLD
    """Which labels are shown."""
    shown: Shown = Shown.ALL
    """Which part is shown."""
    encoder: GivenLine = "all-MiniLM-L6-v2"
    """Sentence encoder of `nearest`, `mmr` and `votek`: the embedded one, or any sentence-transformers id or folder."""
    relevance: Share = 0.5
    """Weight of nearness against difference, for `mmr`: 1 is `nearest`."""
    annotated: Positive = 100
    """Rows of the pool that `votek` has answers of; at most the pool's."""
    candidates: Positive = 30
    """Nearest rows of which `cone` takes the best."""
    orders: Positive = 24
    """Orders that `globale` and `locale` try; at most k!."""
    probes: Positive = 24
    """Training rows, without their answers, on which they compare orders; never test rows."""

    def __post_init__(self) -> None:
        """Refuse contradictions.

        Raises:
            DataError: indices without `fixed` and vice versa.
        """
        if (self.strategy is Strategy.FIXED) != bool(self.indices):
            raise DataError(
                "selection.indices",
                f"{len(self.indices)} given with strategy {self.strategy.value!r}",
                "indices belong to selection.strategy=fixed, which needs them",
            )

    @property
    def changes_nothing(self) -> bool:
        """Whether this is the published protocol."""
        number = 0 if self.order is Order.AS_DRAWN else self.order
        unread = {name: getattr(self, name) for name in _OF_SOME}
        return type(self) is Selection and replace(self, order=number) == replace(Selection(), **unread)

    @property
    def needs_encoder(self) -> bool:
        """Whether sentence vectors are compared."""
        return self.strategy in _DENSE or self.order is Order.NEAREST_LAST

    def ranking(self, inputs: Sequence[str], pool: Sequence[Example], k: int) -> NDArray[np.int64] | None:
        """For a class of one's own: places [inputs, k] of pool rows for each test input, the best last.

        None, as here, is what `strategy` says. A test row is left out of its own demonstrations behind it.
        """
        return None

    @property
    def ranks(self) -> bool:
        """Whether each test row has demonstrations of its own."""
        return self.strategy in RANKED or type(self).ranking is not Selection.ranking


_OF_SOME = ("encoder", "relevance", "annotated", "candidates", "orders", "probes")
"""Keys that only some strategies and orders read."""


class SelectedSource:
    """`source` with demonstrations as `selection` says.

    Args:
        source: any data group.
        selection: what to change.
        embed: sentence encoder, where the selection `needs_encoder`.
        words: English words; used by `random_words` only.
    """

    def __init__(
        self, source: TaskSource, selection: Selection, embed: Embed | None = None, words: Sequence[str] = ()
    ) -> None:
        self._source, self._selection = source, selection
        self._embed, self._words = embed, words
        self.name = source.name

    def tasks(self) -> list[str]:
        """The source's tasks."""
        return self._source.tasks()

    def pool(self, task: str, *, size: int = 16384, seed: int = 100) -> list[Example]:
        """The source's pool, unchanged."""
        return self._source.pool(task, size=size, seed=seed)

    def load(self, task: str, *, k: int, seed: int, split: str = "test") -> TaskData:
        """One cell with the selected demonstrations.

        Raises:
            DataError: a pool that is too small, an order that k demonstrations do not have, or a selection that the
                task cannot have.
        """
        fixed = self._selection.strategy is Strategy.FIXED
        if fixed and k not in (0, len(self._selection.indices)):
            raise DataError(
                "k", f"k={k}, but selection.indices names {len(self._selection.indices)}", "make them equal"
            )
        protocol = self._selection.strategy is Strategy.PROTOCOL and not self._selection.ranks
        data = self._source.load(task, k=k if protocol else 0, seed=seed, split=split)
        generator = np.random.default_rng(_seed_of(task, seed))
        if k and not protocol:
            data = self._choose(data, k, generator)
        self._check_order(data)
        if k:
            data = self._left_to_the_model(self._nearest_last(data), k, generator)
        return self._rename(self._change(data, generator), generator)

    def _nearest_last(self, data: TaskData) -> TaskData:
        """Where the order asks for it, each test row's demonstrations by nearness to it; equally near ones stay in order."""
        if self._selection.order is not Order.NEAREST_LAST:
            return data
        if self._embed is None:
            raise ValueError("selection.order=nearest_last needs a sentence encoder")
        shown = data.neighbours or (data.demonstrations,) * len(data.test)
        texts = list(dict.fromkeys(one.input for row in shown for one in row))
        place_of = {text: place for place, text in enumerate(texts)}
        queries, vectors = self._embed([one.input for one in data.test]), self._embed(texts)
        rows = [
            tuple(
                row[i]
                for i in nearest(query[None], vectors[[place_of[one.input] for one in row]], len(row))[0]
            )
            for row, query in zip(shown, queries, strict=True)
        ]
        return replace(data, demonstrations=(), neighbours=tuple(rows))

    def _left_to_the_model(self, data: TaskData, k: int, generator: np.random.Generator) -> TaskData:
        """With what the model has to choose, as the strategy and the order say.

        Raises:
            DataError: an order for everyone of demonstrations that each test row has its own of; no rows to try it on.
        """
        selection = self._selection
        if selection.strategy is Strategy.CONE:
            note = f"each of {selection.candidates} candidates is scored with each test input first (selection=cone)"
            return replace(
                data,
                choice=ModelChoice(ChosenBy.CONDITIONAL_ENTROPY, k),
                notes=(*data.notes, f"{data.task}: {note}"),
            )
        rule = _BY_ENTROPY.get(selection.order) if isinstance(selection.order, Order) else None
        if rule is None:
            return data
        if data.neighbours:
            raise DataError(
                "selection.order",
                f"{selection.order!s} chooses one order for all test rows, and here each has demonstrations of its own",
                "use selection.order=nearest_last, or selection=protocol, random, balanced or fixed",
            )
        key = row_key(data.task_type)
        taken = {key(one) for one in (*data.test, *data.demonstrations)}
        pool = [one for one in self._source.pool(data.task, seed=data.seed) if key(one) not in taken]
        if not pool:
            raise DataError(
                "selection.order",
                f"task {data.task!r} has no training rows besides its demonstrations",
                "lower k",
            )
        places = generator.permutation(len(pool))[: selection.probes]
        orders = min(selection.orders, factorial(len(data.demonstrations)))
        note = f"{data.task}: {orders} orders are tried on {len(places)} training rows first ({selection.order!s})"
        choice = ModelChoice(rule, orders, tuple(pool[place] for place in places))
        return replace(data, choice=choice, notes=(*data.notes, note))

    def _check_order(self, data: TaskData) -> None:
        """Raise DataError for an order that the demonstrations do not have: it would repeat another one."""
        most = max(map(len, (data.demonstrations, *data.neighbours)))
        order, orders = self._selection.order, factorial(most)
        if most and not isinstance(order, Order) and order >= orders:
            raise DataError(
                "selection.order",
                f"{most} demonstrations have {orders} orders, 0 to {orders - 1}, got {order}",
                "use one of these, or raise k",
            )

    def _choose(self, data: TaskData, k: int, generator: np.random.Generator) -> TaskData:
        selection = self._selection
        pool = self._source.pool(data.task, seed=data.seed)
        key = row_key(data.task_type)
        shared = shared_rows(data.test, pool, data.task_type)
        count = sum(key(example) in shared for example in data.test)
        note = overlap_note(data.task, count, len(data.test), "in the training pool")
        if selection.ranks:
            chosen = self._neighbours(data, pool, k, max(shared.values(), default=0))
            data = replace(data, demonstrations=(), neighbours=chosen)
            what = "each is left out of its own demonstrations"
        elif selection.strategy is Strategy.FIXED:
            data = replace(data, demonstrations=choose_fixed(pool, selection.indices))
            what = "selection.indices may show some of them"
        else:
            data, what = self._drawn(
                data, pool, [one for one in pool if key(one) not in shared], k, generator
            )
        return replace(data, notes=(*data.notes, f"{note}: {what}")) if count else data

    def _drawn(
        self,
        data: TaskData,
        pool: Sequence[Example],
        others: Sequence[Example],
        k: int,
        generator: np.random.Generator,
    ) -> tuple[TaskData, str]:
        """One draw from the rows that are no test rows; where they are too few, from all, and each row without itself."""
        choose = DRAWN[self._selection.strategy]
        if len(others) >= k or len(pool) < k:
            chosen = choose(others if len(others) >= k else pool, k, generator)
            return replace(data, demonstrations=chosen), "they are left out of the demonstrations"
        order = choose(pool, len(pool), generator)
        neighbours = without_own(data.test, [order] * len(data.test), k, data.task_type)
        fewer = sum(len(row) < k for row in neighbours)
        short = f", {fewer} of them with fewer than {k}" if fewer else ""
        data = replace(data, demonstrations=(), neighbours=neighbours)
        return data, f"each is left out of its own demonstrations{short}"

    def _neighbours(
        self, data: TaskData, pool: Sequence[Example], k: int, repeats: int
    ) -> tuple[tuple[Example, ...], ...]:
        """The best pool rows of each test row but itself, which stands in the pool `repeats` times at most."""
        if self._selection.strategy is Strategy.CONE and k <= len(pool):
            k = min(max(k, self._selection.candidates), len(pool))
        asked = k if k > len(pool) else min(len(pool), k + repeats)
        places = self._selection.ranking([one.input for one in data.test], pool, asked)
        if places is None:
            places = self._ranked(data, pool, k, asked)
        best_first = [[pool[place] for place in reversed(row)] for row in places.tolist()]
        kept = without_own(data.test, best_first, k, data.task_type)
        return tuple(tuple(reversed(row)) for row in kept)

    def _ranked(self, data: TaskData, pool: Sequence[Example], k: int, asked: int) -> NDArray[np.int64]:
        """Places of the `asked` best rows of the pool for each test row, the best last; of vote-k perhaps fewer."""
        selection = self._selection
        texts, queries = [one.input for one in pool], [one.input for one in data.test]
        if selection.strategy is Strategy.BM25:
            return lexical(queries, texts, asked)
        if self._embed is None:
            raise ValueError(f"selection.strategy={selection.strategy.value} needs a sentence encoder")
        of_pool, of_queries = self._embed(texts), self._embed(queries)
        if selection.strategy is Strategy.MMR:
            key = row_key(data.task_type)
            keys = [key(one) for one in pool]
            own = np.array([[one == key(row) for one in keys] for row in data.test])
            return diverse(of_queries, of_pool, asked, selection.relevance, own)
        if selection.strategy is Strategy.VOTEK and k <= len(pool):
            rows = voted(of_pool, min(max(selection.annotated, k), len(pool)))
            return rows[nearest(of_queries, of_pool[rows], min(asked, len(rows)))]
        return nearest(of_queries, of_pool, asked)

    def _change(self, data: TaskData, generator: np.random.Generator) -> TaskData:
        selection = self._selection

        def changed(demonstrations: tuple[Example, ...]) -> tuple[Example, ...]:
            if not isinstance(selection.order, Order):
                demonstrations = reorder(demonstrations, selection.order)
            if selection.label_noise:
                demonstrations = add_label_noise(demonstrations, selection.label_noise, generator)
            if selection.labels is Labels.FLIPPED:
                demonstrations = flip_labels(demonstrations)
            return demonstrations

        return replace(
            data,
            demonstrations=changed(data.demonstrations),
            neighbours=tuple(map(changed, data.neighbours)),
        )

    def _rename(self, data: TaskData, generator: np.random.Generator) -> TaskData:
        if self._selection.labels is Labels.RANDOM_WORDS:
            if data.task_type is not TaskType.CLASSIFICATION:
                raise DataError(
                    "selection.labels",
                    f"random_words needs one label set, task {data.task!r} is {data.task_type.value}",
                    "leave it out of data.tasks",
                )
            names = word_map(sorted(set(data.test[0].options)), self._words, generator)
            data = replace(
                data,
                test=rename_labels(data.test, names),
                demonstrations=rename_labels(data.demonstrations, names),
                neighbours=tuple(rename_labels(row, names) for row in data.neighbours),
                choice=data.choice and replace(data.choice, probes=rename_labels(data.choice.probes, names)),
            )
        if self._selection.shown is Shown.ALL:
            return data
        show = labels_only if self._selection.shown is Shown.LABELS else inputs_only
        return replace(
            data,
            demonstrations=show(data.demonstrations),
            neighbours=tuple(map(show, data.neighbours)),
        )


def _seed_of(task: str, seed: int) -> int:
    """A seed per (task, seed), whatever tasks come before it."""
    return int.from_bytes(hashlib.sha256(f"{task}\0{seed}".encode()).digest()[:8], "big")
