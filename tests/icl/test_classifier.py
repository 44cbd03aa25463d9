"""The Python API of the README."""

import pytest
import torch

from metashot.data.errors import DataError
from metashot.engine.errors import ConfigError
from metashot.engine.models.loading import LazyLanguageModel
from metashot.engine.models.sources import named_model
from metashot.icl import InContextClassifier
from metashot.icl.prompting.config import TemplatePrompt

DEMONSTRATIONS = [
    {"input": "What a lovely film.", "output": "positive"},
    {"input": "A waste of two hours.", "output": "negative"},
]
OPTIONS = ["positive", "negative"]


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


def test_an_empty_input_in_channel_scoring_is_a_tie():
    classifier = InContextClassifier.from_pretrained("tiny", method="channel", demonstrations=DEMONSTRATIONS)
    assert classifier.scores([""], options=OPTIONS).tolist() == [[0.0, 0.0]]
    assert classifier.predict([""], options=OPTIONS) == ["positive"]


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
