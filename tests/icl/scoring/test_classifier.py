"""The Python API of the README."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score

from metashot.base.errors import ConfigError, DataError
from metashot.engine.models.loading import LazyLanguageModel
from metashot.engine.models.sources import named_model
from metashot.icl import InContextClassifier
from metashot.icl.prompting.columns import demonstration_pairs, texts
from metashot.icl.prompting.config import TemplatePrompt
from metashot.icl.prompting.methods import named_method

DEMONSTRATIONS = [
    {"input": "What a lovely film.", "output": "positive"},
    {"input": "A waste of two hours.", "output": "negative"},
]
OPTIONS = ["positive", "negative"]
TEXTS = ["one", "two", "three"]


@pytest.mark.parametrize(
    "method", ["direct", "channel", "zero", "channel_zero", "pmi", "calibrated", "domain_pmi"]
)
def test_predictions_are_the_lowest_scores(method):
    classifier = InContextClassifier.from_pretrained("tiny", method=method, demonstrations=DEMONSTRATIONS)
    inputs = ["I loved it.", "Dull from start to end.", "So so."]
    scores = classifier.scores(inputs, options=OPTIONS)
    assert scores.shape == (3, 2)
    assert scores.dtype == torch.float32
    assert torch.isfinite(scores).all()
    assert classifier.predict(inputs, options=OPTIONS) == [OPTIONS[i] for i in scores.argmin(dim=1).tolist()]


def test_scores_are_the_mean_nll_that_transformers_computes():
    classifier = InContextClassifier.from_pretrained("tiny", method="direct", demonstrations=DEMONSTRATIONS)
    model = LazyLanguageModel(named_model("tiny"))
    pieces = ["What a lovely film.", "\npositive", "\n\n\nA waste of two hours.", "\nnegative", "\n\n\nFine."]
    context = [token for piece in pieces for token in model.encode(piece)]
    for column, option in enumerate(OPTIONS):
        target = list(model.encode(f"\n{option}"))
        labels = torch.tensor([[-100] * len(context) + target])
        with torch.no_grad():
            loss = model.load().model(torch.tensor([context + target]), labels=labels).loss
        assert classifier.scores(["Fine."], options=OPTIONS)[0, column] == pytest.approx(
            float(loss), abs=1e-4
        )


@pytest.mark.parametrize("method", ["direct", "channel", "zero", "channel_zero", "calibrated"])
@pytest.mark.parametrize("layout", ["newline", "space"])
def test_empty_inputs_and_options_are_scored_by_their_tokens(method, layout):
    chosen = replace(named_method(method), layout=layout)
    classifier = InContextClassifier.from_pretrained("tiny", method=chosen)
    scores = classifier.scores(["", "text"], options=["", "spam"])
    assert torch.isfinite(scores).all()
    assert (scores != 0).all()


ANSWERS = [
    ("texts", ["a", "b"]),
    ("numbers", [0, 1]),
    ("booleans", [False, True]),
    ("pairs", [("a", 1), ("b", 2)]),
]


@pytest.mark.parametrize(("kind", "options"), ANSWERS, ids=[kind for kind, _ in ANSWERS])
def test_options_come_back_as_they_were_given(kind, options):
    classifier = InContextClassifier.from_pretrained("tiny")
    found = classifier.predict(["one", "two"], options=options)
    assert all(any(one is option for option in options) for one in found)


HELD = [
    list(TEXTS),
    tuple(TEXTS),
    np.array(TEXTS),
    np.array(TEXTS, dtype=object).reshape(-1, 1),
    pd.Series(TEXTS),
    pd.DataFrame({"text": TEXTS}),
    Dataset.from_dict({"text": TEXTS}),
    Dataset.from_dict({"text": TEXTS})["text"],
]


@pytest.mark.parametrize("inputs", HELD, ids=[type(one).__name__ for one in HELD])
def test_inputs_in_the_forms_in_which_people_hold_them(inputs):
    assert texts("inputs", inputs) == TEXTS
    assert texts("inputs", (text for text in TEXTS)) == TEXTS


MISTAKES = [
    (["a", None], r"inputs\[1\]: is missing \(None\)"),
    (pd.Series(["a", float("nan")]), r"inputs\[1\]: is missing \(nan\)"),
    (["a", 3], r"inputs\[1\]: is no text but int 3"),
    (
        pd.DataFrame({"text": ["a"], "label": ["b"]}),
        r"is a table with the columns text, label .*table\['text'\]",
    ),
    ({"text": ["a"]}, r"inputs: is a dict"),
]


@pytest.mark.parametrize(("inputs", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_inputs_that_are_no_texts_are_named_with_their_position(inputs, message):
    with pytest.raises(DataError, match=message):
        texts("inputs", inputs)


def test_demonstrations_as_pairs_and_tables_and_what_is_refused():
    rows = [("x", "a"), ("y", "b")]
    table = pd.DataFrame(rows, columns=["input", "output"])
    assert demonstration_pairs(rows) == demonstration_pairs(table) == rows
    assert demonstration_pairs(Dataset.from_pandas(table)) == rows
    classifier = InContextClassifier.from_pretrained("tiny", demonstrations=rows)
    with pytest.raises(
        DataError, match=r"demonstrations\[1\]: output 'b' is not among the options \['a', 'c'\]"
    ):
        classifier.predict(["text"], options=["a", "c"])
    with pytest.raises(DataError, match=r"1 and '1' read the same"):
        classifier.predict(["text"], options=[1, "1"])


def test_it_is_an_estimator_for_scikit_learn():
    inputs = np.array([f"text {n}" for n in range(8)])
    answers = np.array(["spam", "ham"] * 4)
    classifier = InContextClassifier.from_pretrained("tiny")
    fitted = clone(classifier).fit(inputs, answers)
    assert fitted.classes_.tolist() == ["ham", "spam"]
    proba = fitted.predict_proba(inputs)
    assert proba.shape == (8, 2)
    assert proba.sum(axis=1) == pytest.approx(1)
    assert fitted.predict(inputs).tolist() == fitted.classes_[proba.argmax(axis=1)].tolist()
    assert not hasattr(clone(fitted), "classes_")
    values = cross_val_score(classifier, inputs, answers, cv=2, scoring="roc_auc")
    assert ((values >= 0) & (values <= 1)).all()
    search = GridSearchCV(classifier, {"method": ["direct", "channel"]}, cv=2).fit(inputs, answers)
    assert search.best_params_["method"] in ("direct", "channel")


def test_inputs_that_are_cut_are_said():
    classifier = InContextClassifier.from_pretrained("tiny")
    with pytest.warns(UserWarning, match=r"1 of 2 test inputs are longer .* prompt.overlong"):
        classifier.scores(["short", "word " * 400], options=["a", "b"])


def test_no_inputs_give_no_rows():
    assert InContextClassifier.from_pretrained("tiny").scores([], options=OPTIONS).shape == (0, 2)


def test_mistakes():
    classifier = InContextClassifier.from_pretrained("tiny")
    with pytest.raises(DataError, match=r"inputs: is one string"):
        classifier.predict("text", options=OPTIONS)
    with pytest.raises(DataError, match="options: is empty"):
        classifier.predict(["text"], options=[])
    with pytest.raises(DataError, match="an answer twice"):
        classifier.predict(["text"], options=["a", "a"])
    with pytest.raises(ConfigError, match=r"no choice 'chanel' \(did you mean 'channel'\?\)"):
        InContextClassifier.from_pretrained("tiny", method="chanel")
    with pytest.raises(DataError, match=r"demonstrations\[0\]: has no text output"):
        InContextClassifier.from_pretrained("tiny", demonstrations=[{"input": "x"}])


def test_a_prompt_of_ones_own():
    """The template's text is what is scored; a name means the YAML of `conf/prompt`."""
    template = TemplatePrompt(example="{input}\n{output}", separator="\n\n\n")
    own, released = (
        InContextClassifier.from_pretrained("tiny", demonstrations=DEMONSTRATIONS, prompt=prompt)
        for prompt in (template, "metaicl")
    )
    inputs = ["I loved it.", "So so."]
    # The released newline layout, written as a template, is the same prompt.
    assert torch.equal(own.scores(inputs, OPTIONS), released.scores(inputs, OPTIONS))
    with pytest.raises(ConfigError, match="has no chat template"):
        InContextClassifier.from_pretrained("tiny", prompt="chat").scores(inputs, OPTIONS)


def test_a_temperature_changes_probabilities_and_no_prediction_and_is_saved(tmp_path):
    classifier = InContextClassifier.from_pretrained("tiny").fit(["a b", "c d", "e"], ["x", "y", "x"])
    inputs, right = ["f", "g h", "i", "j"], ["x", "y", "y", "x"]
    before = classifier.predict_proba(inputs)
    predicted = classifier.predict(inputs).tolist()
    classifier.fit_temperature(inputs, right)
    after = classifier.predict_proba(inputs)
    gold = [["x", "y"].index(one) for one in right]

    def nll(probabilities):
        return -sum(np.log(row[place]) for row, place in zip(probabilities, gold, strict=True))

    assert nll(after) <= nll(before) + 1e-9
    assert classifier.predict(inputs).tolist() == predicted
    classifier.save(tmp_path / "saved.json")
    assert InContextClassifier.load(tmp_path / "saved.json").predict_proba(inputs) == pytest.approx(after)
    with pytest.raises(DataError, match=r"y\[0\] 'z' is no answer of fit"):
        classifier.fit_temperature(["f"], ["z"])
    assert classifier.fit(["a", "b"], ["x", "y"]).predict_proba(inputs) != pytest.approx(after)


@pytest.mark.parametrize("method", ["direct", "channel", "pmi", "calibrated"])
def test_inputs_one_by_one_are_answered_as_in_one_call_and_demonstrations_run_once(method):
    """Tokens that run through the model are counted: a later call has few beside those of the demonstrations."""
    given, answers = [f"this is text number {i}" for i in range(6)], ["good", "bad"] * 3
    inputs = [f"words {i}" for i in range(4)]
    made = InContextClassifier.from_pretrained("tiny", method=method).fit(given, answers)
    plain = InContextClassifier.from_pretrained("tiny", method=method, keep_mb=0).fit(given, answers)
    together = plain.scores(inputs)
    made.scores(inputs[:1])
    counts = []
    embedding = made.model.load().model.get_input_embeddings()
    hook = embedding.register_forward_pre_hook(lambda _, ids: counts.append(ids[0].numel()))
    one_by_one = torch.cat([made.scores([text]) for text in inputs])
    mine = sum(counts)
    assert made.predict(inputs).tolist() == plain.predict(inputs).tolist()
    counts.clear()
    torch.cat([plain.scores([text]) for text in inputs])
    theirs = sum(counts)
    hook.remove()
    torch.testing.assert_close(one_by_one, together, atol=1e-5, rtol=0)
    assert 2 * mine < theirs
    made.free()
    torch.testing.assert_close(made.scores(inputs), together, atol=1e-5, rtol=0)
