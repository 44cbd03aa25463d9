"""Which source fields a recipe names, key by key."""

from __future__ import annotations

from collections.abc import Iterator

from metashot.data.recipes.keys import CommonKeys, ReleasedRule
from metashot.data.recipes.rows import (
    template_fields,
)
from metashot.data.recipes.spec import (
    CauseEffect,
    Choices,
    Cloze,
    CoinPair,
    FirstAnswer,
    GroupedChoices,
    Labelled,
    Majority,
    ShuffledChoices,
    SupportingParagraphs,
    TextAnswer,
    Threshold,
    WrittenChoices,
)

_FIELD_KEYS: dict[type[CommonKeys], tuple[str, ...]] = {
    Labelled: ("label",),
    TextAnswer: ("answer",),
    FirstAnswer: ("answers",),
    Threshold: ("value",),
    Majority: ("votes",),
    CoinPair: ("wanted", "other"),
    SupportingParagraphs: ("titles", "sentences", "supporting", "answer"),
    Cloze: ("template", "subject", "answer"),
    Choices: ("choices", "letters"),
    ShuffledChoices: ("choices", "answer"),
    GroupedChoices: ("group_by", "choice", "right"),
    WrittenChoices: ("index",),
    CauseEffect: ("premise", "relation", "choices", "label"),
}


def template_named(spec: CommonKeys) -> Iterator[tuple[str, str]]:
    """(key, field path) of the fields that a template shows."""
    extra = {"first", "second"} if isinstance(spec, CoinPair) else {"paragraphs"}
    for key in ("input", "context"):
        for path in template_fields(getattr(spec, key, None) or ""):
            if path not in extra:
                yield key, path


def value_named(spec: CommonKeys) -> Iterator[tuple[str, str]]:
    """(key, field path) of the fields that a key of the recipe's kind names."""
    for key in _FIELD_KEYS.get(type(spec), ()):
        value = getattr(spec, key)
        for path in [value] if isinstance(value, str) else value or []:
            yield key, path
    if isinstance(spec, Choices):
        for key in ("label", "letter", "index", "number", "text"):
            if getattr(spec.gold, key) is not None:
                yield "gold", getattr(spec.gold, key)


def named_fields(spec: CommonKeys) -> Iterator[tuple[str, str]]:
    """(key, field path) of every field that a recipe names."""
    yield from template_named(spec)
    yield from value_named(spec)
    places = {"input", "choices", "context"}
    for step in spec.clean:
        yield from (("clean", place) for place in step.places if place not in places)
    for field in spec.optional:
        yield "optional", field
    for rule in spec.drop:
        # Published recipes also look for columns that a source may lack.
        if not (rule.missing and spec.follows(ReleasedRule.STOPS)):
            yield "drop", rule.field


def read_fields(spec: CommonKeys) -> list[str]:
    """Paths of the fields that an example is made of, each once."""
    return list(dict.fromkeys(path for _, path in (*template_named(spec), *value_named(spec))))
