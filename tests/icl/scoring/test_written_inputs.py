"""Generative calibration (Jiang et al. 2023): what the model writes, and scores beside one forward pass at a time."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from metashot.base.errors import ConfigError
from metashot.data.tasks.demo import DemoSource
from metashot.engine.cells.family import Meter
from metashot.engine.generation.prefix import PrefixGenerator
from metashot.engine.models.loading import LazyLanguageModel
from metashot.engine.models.sources import TinyModel
from metashot.engine.scoring.makers import prefix_scorer, reads_files
from metashot.icl.prompting.config import MetaiclPrompt, TemplatePrompt
from metashot.icl.prompting.methods import Method, named_method
from metashot.icl.scoring.cell import Truncation
from metashot.icl.scoring.evaluation_settings import EvaluateSettings
from metashot.icl.scoring.ranking import RankedCells
from metashot.icl.scoring.written_inputs import with_written_inputs, writing_prompt

MODEL = LazyLanguageModel(TinyModel("tiny", "gpt2"))
GENERATOR = PrefixGenerator(MODEL.load().model, MODEL.load().tokenizer)
METHOD = replace(named_method("generative_calibrated"), calibration_inputs=3)


class Few:
    """The first test examples of the demo tasks."""

    name = "demo"

    def tasks(self):
        return DemoSource().tasks()

    def load(self, task, *, k, seed, split="test"):
        return DemoSource().load(task, k=k, seed=seed, split=split).first(3)

    def pool(self, task, *, size=16384, seed=100):
        return DemoSource().pool(task, size=size, seed=seed)


def family(method=METHOD, prompt=None, k=2):
    settings = EvaluateSettings(
        "demo", ("demo-emotion",), (13,), k, "test", method, Truncation.SHARED, prompt or MetaiclPrompt()
    )
    return RankedCells(settings, Few(), MODEL, partial(prefix_scorer))


@pytest.mark.parametrize(
    ("prompt", "ending", "between"),
    [
        (MetaiclPrompt(), "\n\n\n", "\n"),
        (TemplatePrompt(example="Text: {input}\nMood: {output}"), "\n\nText: ", "\nMood: "),
    ],
)
def test_the_model_writes_where_the_next_input_would_stand(prompt, ending, between):
    cells = family(prompt=prompt)
    data = Few().load("demo-emotion", k=2, seed=13)
    ids, stop = writing_prompt(data, cells.prompt_rules, MODEL.encode)
    assert MODEL.decode(ids).endswith(data.demonstrations[-1].output + ending)
    assert stop.strip(" ") == between.strip(" ")


def test_scores_divide_by_the_mean_probability_after_the_written_inputs():
    cells = family()
    (work,) = cells.work()
    answers = cells.compute(work, range(work.rows), Meter(lambda done, total: None))
    (finished,) = cells.finish(work, answers)
    data = with_written_inputs(cells.data(work), cells.prompt_rules, GENERATOR, MODEL.encode)
    assert len(data.unlabelled) == 3

    plain = family(Method("direct"))

    def shares(text):
        """p(y | demonstrations, text), one option alone at a time, mean NLL of its tokens."""
        one = replace(data, unlabelled=(), test=(replace(data.test[0], input=text),))
        cell, scores = plain.build(one), []
        for place in cell.index[0][0]:
            request = cell.requests[place]
            with torch.inference_mode():
                logits = MODEL.load().model(torch.tensor([request.context + request.target])).logits[0]
            logs = logits.log_softmax(-1)[len(request.context) - 1 : -1]
            scores.append(-float(logs.gather(1, torch.tensor(request.target)[:, None]).mean()))
        total = sum(math.exp(-score) for score in scores)
        return [math.exp(-score) / total for score in scores]

    nulls = [shares(text) for text in data.unlabelled]
    for example, prediction in zip(data.test, finished.predictions, strict=True):
        expected = [
            -math.log(p / (sum(row[y] for row in nulls) / 3)) for y, p in enumerate(shares(example.input))
        ]
        assert prediction.nll == pytest.approx(expected, abs=1e-4)


def test_what_cannot_be_written_is_refused():
    with pytest.raises(ConfigError, match="shows none"):
        Method("zero", calibration=METHOD.calibration, demonstrations=False)
    cells = family(k=0)
    with pytest.raises(ConfigError, match="'demo-emotion' shows none"):
        cells.cell(cells.work()[0])


def test_a_plan_counts_without_weights():
    cells = family()
    cells.without_weights = True
    cells.model = LazyLanguageModel(TinyModel("tiny", "gpt2", seed=3))
    cells.model.load = None
    assert len(cells.cell(cells.work()[0]).index) == 1 + 3


def test_an_engine_that_scores_and_writes_is_started_once():
    made = []

    class Engine:
        """Scores as ours, and writes as ours."""

        def __init__(self):
            made.append(self)
            self.score = prefix_scorer(MODEL.load().model).score
            self.generate = GENERATOR.generate

    @reads_files(lambda: {"engine": "both"})
    def both(model):
        return Engine()

    cells = RankedCells(family().settings, Few(), MODEL, both)
    (work,) = cells.work()
    cells.compute(work, range(work.rows), Meter(lambda done, total: None))
    assert len(made) == 1
