"""Every kind of recipe: its keys, and the function that makes pairs of its rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

from metashot.data.recipes import choice_kinds, kinds, spec, unifiedqa
from metashot.data.recipes.keys import CommonKeys
from metashot.data.recipes.kinds import Generator, PairOf


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of recipe.

    Attributes:
        keys: model of its keys; the Literal of its `kind` is the name in YAML.
        make: (spec, generator) -> (row -> pair).
        row_wise: whether a row's pair depends on this row alone: nothing is drawn or grouped.
    """

    keys: type[CommonKeys]
    make: Callable[[Any, Generator], PairOf]
    row_wise: bool = True

    @property
    def name(self) -> str:
        """What stands after `kind:`."""
        return get_args(self.keys.model_fields["kind"].annotation)[0]


KINDS = {
    kind.name: kind
    for kind in (
        Kind(spec.Labelled, kinds.labelled),
        Kind(spec.TextAnswer, kinds.text_answer),
        Kind(spec.FirstAnswer, kinds.first_answer),
        Kind(spec.Threshold, kinds.threshold),
        Kind(spec.Majority, kinds.majority),
        Kind(spec.CoinPair, kinds.coin_pair, row_wise=False),
        Kind(spec.SupportingParagraphs, kinds.supporting_paragraphs),
        Kind(spec.Cloze, kinds.cloze),
        Kind(spec.Choices, choice_kinds.choices),
        Kind(spec.ShuffledChoices, choice_kinds.shuffled_choices, row_wise=False),
        Kind(spec.GroupedChoices, choice_kinds.grouped_choices, row_wise=False),
        Kind(spec.WrittenChoices, choice_kinds.written_choices),
        Kind(spec.CauseEffect, choice_kinds.cause_effect),
        Kind(spec.UnifiedqaPool, unifiedqa.unifiedqa_pool, row_wise=False),
        Kind(spec.UnifiedqaTarget, unifiedqa.unifiedqa_target),
    )
}
