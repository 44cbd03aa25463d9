"""`InContextClassifier` in other people's code: mistakes are named, demonstrations are chosen, it is stored and read."""

import datetime as dt
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from metashot.base.errors import ConfigError, DataError, MetashotError
from metashot.data.tasks.selected_source import Selection, Strategy
from metashot.icl import InContextClassifier
from metashot.icl.prompting.config import MetaiclPrompt, TemplatePrompt

X = [f"text number {n}" for n in range(8)]
Y = ["spam", "ham"] * 4


def made(**given):
    return InContextClassifier.from_pretrained("tiny", **given)


def quiet(call, *given, **named):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(*given, **named)


MISTAKES = {
    "truncation": (lambda: made(truncation="sharred"), r"truncation: no choice 'sharred' \(did you mean 'shared'\?\)"),
    "model": (lambda: made().set_params(model="smolm2_135m"), r"no model 'smolm2_135m'.*did you mean 'smollm2_135m'\?"),
    "from_pretrained": (
        lambda: InContextClassifier.from_pretrained("tinny"), r"no model 'tinny'.*did you mean 'tiny'\?"
    ),
    "method": (lambda: made().set_params(method="chanel"), r"no choice 'chanel' \(did you mean 'channel'\?\)"),
    "prompt": (lambda: made().set_params(prompt="metaicll"), r"no choice 'metaicll' \(did you mean 'metaicl'\?\)"),
    "prompt object": (lambda: made().set_params(prompt=3), r"prompt: is int"),
    "parameter": (lambda: made().set_params(promt="x"), r"promt: is no parameter .*did you mean 'prompt'\?"),
    "selection": (lambda: made(selection="nearst"), r"selection: no choice 'nearst' \(did you mean 'nearest'\?\)"),
    "k": (lambda: made(k=-1), r"k: must be a whole number, 0 or more, got -1"),
    "k missing": (lambda: made(selection="balanced").fit(X, Y), r"k: is None, but selection='balanced' chooses k"),
    "k large": (lambda: made(k=9).fit(X, Y), r"k: .* has a pool of 8 examples, k=9 asked"),
    "surrogate": (
        lambda: made().predict(["fine", "half \ud83d"], options=["a", "b"]), r"inputs\[1\]: holds a lone surrogate, '\\ud83d', at character 5"
    ),
    "surrogate answer": (lambda: made().fit(["x", "y"], ["a", "b\ud83d"]), r"y\[1\]: holds a lone surrogate"),
    "0-d array": (lambda: made().predict(np.array("text"), options=["a", "b"]), r"inputs: is a single value"),
    "0-d labels": (lambda: made().fit(["x"], np.array("a")), r"y: is a single value"),
    "lengths": (lambda: quiet(made().fit, X, Y).score(X[:3], Y[:2]), r"score: got 3 inputs and 2 answers"),
    "fit lengths": (lambda: made().fit(X, Y[:3]), r"fit: got 8 inputs and 3 answers"),
    "table lengths": (
        lambda: made(demonstrations={"input": ["a", "b"], "output": ["c"]}), r"demonstrations: got 2 inputs and 1 answers"
    ),
    "weights": (lambda: quiet(made().fit, X, Y).score(X, Y, [1, 2]), r"sample_weight: got 2 numbers for 8 inputs"),
    "options for inputs": (
        lambda: made().predict(["a", "b"], options=[["x", "y"]]), r"options: got 2 inputs and 1 answers"
    ),
    "no such file": (lambda: InContextClassifier.load("nothing.json"), r"nothing\.json: is no file of InContextClassifier\.save"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named_with_place_and_remedy(name):
    call, message = MISTAKES[name]
    with pytest.raises(MetashotError, match=message) as caught:
        call()
    assert caught.value.args
    assert "\n" not in str(caught.value)


def test_names_are_taken_wherever_objects_are():
    classifier = made().set_params(model="tiny", prompt="template", truncation="shared", selection="random")
    assert isinstance(classifier.prompt, TemplatePrompt)
    assert classifier.model.name == "tiny"
    again = InContextClassifier("tiny", prompt="metaicl")
    assert again.prompt == MetaiclPrompt()


def test_a_generator_of_options_is_read_once():
    classifier = made()
    found = classifier.predict(["one", "two"], options=(word for word in ("a", "b")))
    assert found == classifier.predict(["one", "two"], options=["a", "b"])


HELD = {
    "pyarrow": (pa.array(["spam", "ham"]), ["ham", "spam"]),
    "chunked": (pa.chunked_array([["spam"], ["ham"]]), ["ham", "spam"]),
    "torch": (torch.tensor([1, 0]), [0, 1]),
    "tensors": ([torch.tensor(1), torch.tensor(0)], [0, 1]),
    "dates": ([dt.date(2024, 1, 2), dt.date(2024, 1, 1)], [dt.date(2024, 1, 1), dt.date(2024, 1, 2)]),
    "times": (pd.Series(pd.to_datetime(["2024-01-02", "2024-01-01"])), [pd.Timestamp("2024-01-01"), pd.Timestamp("2024-01-02")]),
    "numpy times": (np.array(["2024-01-02", "2024-01-01"], "M8[D]"), [np.datetime64("2024-01-01"), np.datetime64("2024-01-02")]),
}  # fmt: skip


@pytest.mark.parametrize("name", HELD)
def test_answers_in_the_forms_in_which_people_hold_them(name):
    answers, classes = HELD[name]
    classifier = made().fit(["x", "y"], answers)
    assert list(classifier.classes_) == classes
    found = classifier.predict(["z"])
    assert any(found[0] == one for one in classes)
    assert classifier.score(["x", "y"], answers) in (0, 0.5, 1)


def test_a_prompt_that_holds_the_last_class_only_is_said():
    inputs = [f"a sentence of some words, number {n}" for n in range(300)]
    classifier = made()
    one_answer = r"have one answer only, 'b'.*selection='balanced'"
    dropped = r"prompts hold \d+ of 300 demonstrations, the last ones"
    with pytest.warns(UserWarning, match=one_answer), pytest.warns(UserWarning, match=dropped):
        classifier.fit(inputs, ["a"] * 150 + ["b"] * 150)
    assert 0 < classifier.shown_ < 150
    few = made(demonstrations=[("x", "a")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        few.predict(["text"], options=["a", "b"])
        chosen = made(k=4, selection="balanced").fit(inputs, ["a"] * 150 + ["b"] * 150)
    assert few.shown_ == 1
    assert chosen.shown_ == 4


def prompts(classifier, inputs=("query",)):
    data, _ = classifier._written(list(inputs), classifier._options(None, len(inputs)))
    return data.neighbours or data.demonstrations


def test_k_selection_order_and_seed_choose_the_demonstrations():
    rows = dict(zip(X, Y, strict=True))
    drawn = [one.input for one in prompts(made(k=4).fit(X, Y))]
    assert len(set(drawn)) == 4
    assert set(drawn) < set(X)
    assert drawn == [one.input for one in prompts(made(k=4).fit(X, Y))]
    assert drawn != [one.input for one in prompts(quiet(made(k=4, seed=7).fit, X, Y))]
    balanced = [rows[one.input] for one in prompts(made(k=4, selection="balanced").fit(X, Y))]
    assert sorted(balanced) == ["ham", "ham", "spam", "spam"]
    ordered = [one.input for one in prompts(quiet(made(k=4, order=3).fit, X, Y))]
    assert ordered != drawn
    assert sorted(ordered) == sorted(drawn)
    fixed = prompts(made(selection=Selection(Strategy.FIXED, indices=(5, 2))).fit(X, Y))
    assert [one.input for one in fixed] == [X[5], X[2]]
    assert [one.input for one in prompts(made().fit(X, Y))] == X
    # A row is never among its own demonstrations.
    assert X[0] not in [one.input for one in prompts(quiet(made(k=7).fit, X, Y), [X[0]])]


def test_grid_search_over_k():
    search = GridSearchCV(made(k=2), {"k": [0, 2, 4], "order": [0]}, cv=2, error_score="raise")
    quiet(search.fit, np.array(X), np.array(Y))
    assert search.best_params_["k"] in (0, 2, 4)
    assert clone(made(k=3, seed=5)).get_params()["seed"] == 5


def test_options_of_its_own_for_each_input():
    classifier = made()
    rows = [["a", "b", "c"], ["d", "e"]]
    scores = classifier.scores(["one", "two"], options=rows)
    assert scores.shape == (2, 3)
    assert scores[1, 2] == float("inf")
    for place, (text, own) in enumerate(zip(["one", "two"], rows, strict=True)):
        assert scores[place, : len(own)] == pytest.approx(classifier.scores([text], options=own)[0], abs=1e-4)
    found = classifier.predict(["one", "two"], options=rows)
    assert found == [row[scores[place].argmin()] for place, row in enumerate(rows)]
    assert classifier.predict_proba(["one", "two"], options=rows).sum(axis=1) == pytest.approx(1)


def test_log_probabilities_and_weights():
    classifier = quiet(made().fit, X, Y)
    assert np.exp(classifier.predict_log_proba(X)) == pytest.approx(classifier.predict_proba(X))
    right = np.array([one == other for one, other in zip(classifier.predict(X), Y, strict=True)])
    weights = np.arange(1.0, 9.0)
    assert classifier.score(X, Y, sample_weight=weights) == pytest.approx((right * weights).sum() / 36)


def test_generate_writes_answers():
    classifier = quiet(made(method="generate").fit, X[:2], Y[:2])
    found = classifier.predict(["one", "two"])
    assert len(found) == 2
    assert all(isinstance(one, str) and "\n" not in one for one in found)
    # Graded by the method's own metric: what the model writes is right, anything else is not.
    assert classifier.score(["one"], [found[0] or "?"]) == float(bool(found[0]))
    with pytest.raises(ConfigError, match="'generate' writes answers and scores no options"):
        classifier.predict_proba(["one"])
    with pytest.raises(ConfigError, match="options: are given, but method='generate' ranks none"):
        classifier.predict(["one"], options=["a", "b"])


def test_it_is_written_and_read(tmp_path):
    classifier = made(method="channel", prompt="template", k=4, selection="balanced", seed=3).fit(X, Y)
    path = tmp_path / "classifier.json"
    classifier.save(path)
    again = InContextClassifier.load(path)
    assert torch.equal(again.scores(X), classifier.scores(X))
    assert again.classes_.tolist() == classifier.classes_.tolist()
    assert repr(again) == (
        "InContextClassifier('tiny', method='channel', demonstrations=<8 examples>, prompt='template', k=4, "
        "selection='balanced', seed=3)"
    )
    dated = quiet(made().fit, ["x", "y"], [dt.date(2024, 1, 1), dt.date(2024, 1, 2)])
    with pytest.raises(DataError, match=r"demonstrations\.given\[0\]\[1\]: .* which JSON does not hold"):
        dated.save(path)


def test_repr_names_what_differs():
    assert repr(made()) == "InContextClassifier('tiny', prompt='metaicl')"
