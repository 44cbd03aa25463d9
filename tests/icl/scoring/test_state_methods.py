"""Hidden calibration and task vectors, beside scikit-learn and prompts run one by one."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestCentroid

from metashot.base.errors import ConfigError, DataError
from metashot.data.tasks.demo import DemoSource
from metashot.engine.cells.family import Meter
from metashot.engine.models.loading import LazyLanguageModel
from metashot.engine.models.sources import TinyModel
from metashot.engine.scoring.makers import plain_scorer, prefix_scorer
from metashot.engine.scoring.states import layer_states, score_with_state
from metashot.icl.prompting.calibration_inputs import with_labelled_rows
from metashot.icl.prompting.config import MetaiclPrompt
from metashot.icl.prompting.methods import Method, named_method
from metashot.icl.scoring.cell import Truncation
from metashot.icl.scoring.classifier import InContextClassifier
from metashot.icl.scoring.evaluation_settings import EvaluateSettings
from metashot.icl.scoring.hidden import HiddenCells
from metashot.icl.scoring.plan import plan_cell
from metashot.icl.scoring.ranking import RankedCells
from metashot.icl.scoring.task_vector import TaskVectorCells

MODEL = LazyLanguageModel(TinyModel("tiny", "gpt2"))
HIDDEN = replace(named_method("hidden_calibrated"), per_label=3)
VECTOR = replace(named_method("task_vector"), per_label=2)


class Few:
    """The first test examples of the demo tasks."""

    name = "demo"

    def tasks(self):
        return DemoSource().tasks()

    def load(self, task, *, k, seed, split="test"):
        data = DemoSource().load(task, k=k, seed=seed, split=split)
        return data.first(6) if split == "test" else data

    def pool(self, task, *, size=16384, seed=100):
        return DemoSource().pool(task, size=size, seed=seed)


def family(kind, method, task="demo-emotion", k=2, scorer=prefix_scorer):
    settings = EvaluateSettings("demo", (task,), (13,), k, "test", method, Truncation.SHARED, MetaiclPrompt())
    return kind(settings, Few(), MODEL, partial(scorer))


def finished(cells):
    (work,) = cells.work()
    answers = cells.compute(work, range(work.rows), Meter(lambda done, total: None))
    return cells.finish(work, answers)[0], cells.data(work)


def state_alone(data, example):
    """The last hidden state behind the demonstrations and one input, from one forward pass of transformers."""
    cell = family(RankedCells, Method("direct")).build(replace(data, labelled=(), test=(example,)))
    context = cell.requests[cell.index[0][0][0]].context
    with torch.inference_mode():
        out = MODEL.load().model(torch.tensor([context]), output_hidden_states=True)
    return out.hidden_states[-1][0, -1].double().numpy()


@pytest.mark.parametrize("scorer", [prefix_scorer, plain_scorer])
def test_hidden_calibration_is_the_nearest_centroid_of_states_taken_one_by_one(scorer):
    cell, data = finished(family(HiddenCells, HIDDEN, scorer=scorer))
    reference = NearestCentroid()
    reference.fit(
        np.stack([state_alone(data, example) for example in data.labelled]),
        [example.output for example in data.labelled],
    )
    tests = np.stack([state_alone(data, example) for example in data.test])
    assert [one.prediction for one in cell.predictions] == reference.predict(tests).tolist()
    for one, state in zip(cell.predictions, tests, strict=True):
        centroids = dict(zip(reference.classes_.tolist(), reference.centroids_, strict=True))
        expected = [float(np.linalg.norm(state - centroids[option])) for option in one.options]
        assert one.nll == pytest.approx(expected, rel=1e-4)


def test_the_scores_of_the_same_pass_are_those_of_the_direct_method():
    cell, data = finished(family(HiddenCells, HIDDEN))
    direct, _ = finished(family(RankedCells, Method("direct")))
    for one, other in zip(cell.predictions, direct.predictions, strict=True):
        assert one.sum_nll == pytest.approx(other.sum_nll, abs=1e-4)
    assert data.labelled


def test_a_task_vector_is_the_mean_state_of_prompts_with_demonstrations_put_into_those_without():
    method = replace(VECTOR, layer=1)
    cell, data = finished(family(TaskVectorCells, method))
    plain = family(RankedCells, Method("direct"))
    shown = plain.build(replace(data, labelled=(), test=data.labelled))
    model = MODEL.load().model
    state = torch.stack([layer_states(model, [shown.requests[row[0]]])[0, 0] for row in shown.index[0]]).mean(
        dim=0
    )
    bare = plain.build(replace(data, labelled=(), demonstrations=()))
    for row, one in enumerate(cell.predictions):
        for place, total in zip(bare.index[0][row], one.sum_nll, strict=True):
            (scores,) = score_with_state(model, [bare.requests[place]], 1, state)
            assert total == pytest.approx(-float(scores.sum()), abs=1e-4)


def test_the_layer_that_is_chosen_answers_most_labelled_examples():
    chosen, data = finished(family(TaskVectorCells, VECTOR))
    right = {}
    for layer in range(1, MODEL.load().model.config.num_hidden_layers + 1):
        cells = family(TaskVectorCells, replace(VECTOR, layer=layer))
        (work,) = cells.work()
        on_labelled = replace(cells.data(work), test=data.labelled)
        cells.data = lambda work, data=on_labelled: data
        cells._built = None
        answers = cells.compute(work, range(len(data.labelled)), Meter(lambda done, total: None))
        ranked = [
            [total / count["tokens"] for total, count in zip(a["sum_nll"][0], a["counts"][0], strict=True)]
            for a in answers
        ]
        right[layer] = sum(
            example.options[int(np.argmin(row))] == example.output
            for example, row in zip(data.labelled, ranked, strict=True)
        )
    best = max(right, key=lambda layer: (right[layer], -layer))
    expected, _ = finished(family(TaskVectorCells, replace(VECTOR, layer=best)))
    assert [one.nll for one in chosen.predictions] == [one.nll for one in expected.predictions]


def test_labelled_rows_are_neither_shown_nor_tested_and_equally_many_of_each_answer():
    data = with_labelled_rows(Few().load("demo-emotion", k=2, seed=13), HIDDEN, Few(), 2)
    answers = [example.output for example in data.labelled]
    assert {answers.count(option) for option in data.test[0].options} <= {1, 2, 3}
    assert not {one.input for one in data.labelled} & {
        one.input for one in (*data.demonstrations, *data.test)
    }


def test_what_states_say_nothing_of_is_refused():
    with pytest.raises(ConfigError, match="objective 'channel'"):
        replace(HIDDEN, objective=named_method("channel").objective)
    with pytest.raises(ConfigError, match="options of its own"):
        family(HiddenCells, HIDDEN, task="demo-story_ending").work()
    with pytest.raises(ConfigError, match="made of demonstrations"):
        finished(family(TaskVectorCells, VECTOR, k=0))
    with pytest.raises(ConfigError, match="99, but the model has"):
        finished(family(TaskVectorCells, replace(VECTOR, layer=99)))
    with pytest.raises(ConfigError, match="learns from labelled examples"):
        InContextClassifier.from_pretrained("tiny", method="hidden_calibrated").fit(["a"], ["b"]).predict(
            ["c"]
        )


def test_an_answer_without_a_training_example_is_said():
    class Poor(Few):
        def pool(self, task, *, size=16384, seed=100):
            return []

        def load(self, task, *, k, seed, split="test"):
            if split == "dev":
                raise DataError(task, "no such file", "prepare it")
            return super().load(task, k=k, seed=seed)

    with pytest.raises(DataError, match="none has the answer"):
        with_labelled_rows(Poor().load("demo-emotion", k=2, seed=13), HIDDEN, Poor(), 2)


def test_a_plan_counts_what_is_computed():
    for kind, method in (
        (HiddenCells, HIDDEN),
        (TaskVectorCells, VECTOR),
        (TaskVectorCells, replace(VECTOR, layer=2)),
    ):
        cells = family(kind, method)
        (work,) = cells.work()
        meter = Meter(lambda done, total: None)
        cells.compute(work, range(work.rows), meter)
        planned = family(kind, method)
        planned.without_weights = True
        found = (
            plan_cell(planned.data(work), planned.cell(work), planned.unshared_tokens(work))
            if planned.work()
            else None
        )
        assert found.tokens_computed == meter.cost.tokens_computed
