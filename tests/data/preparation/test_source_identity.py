"""A recipe's source is in its fingerprint: after the tool's own remedies `stage=prepare` prepares anew."""

import pytest

from metashot.base.identity import identity_of, marked
from metashot.data.recipes import load_recipe
from metashot.data.recipes.keys import Place, Source

CHANGED = {
    "encoding": "latin-1", "quotes": "none", "rename": {"a": "b"}, "delimiter": ";", "header": ["a"], "format": "csv", "field": "rows", "sheet": "other",
    "hub": "x/y", "config": "other", "revision": "other", "files": {"train": "other.csv"}, "sha256": {"train": "0" * 64},
    "archive": "https://example.org/x.zip", "by_class_name": {"label": {"x": 0}}, "fallbacks": [Place(hub="x/z")],
}  # fmt: skip


@pytest.mark.parametrize("key", CHANGED)
def test_every_key_of_a_source_changes_the_fingerprint(key):
    recipe = load_recipe("sms_spam")
    source = recipe.spec.source.model_copy(update={key: CHANGED[key]})
    other = type(recipe)(recipe.spec.model_copy(update={"source": source}))
    assert other.fingerprint != recipe.fingerprint
    assert identity_of(source) != identity_of(recipe.spec.source)


def test_no_other_key_of_a_source_is_left():
    assert set(CHANGED) == set(Source.model_fields) - set(marked(Source))


@pytest.mark.parametrize("key", ["about", "notes", "licence", "citation"])
def test_texts_for_readers_do_not(key):
    recipe = load_recipe("sms_spam")
    value = ["other"] if key == "notes" else "other"
    other = type(recipe)(recipe.spec.model_copy(update={key: value}))
    assert other.fingerprint == recipe.fingerprint
