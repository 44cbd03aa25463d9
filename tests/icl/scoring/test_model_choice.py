"""What the model chooses of the demonstrations: orders by entropy (Lu et al. 2022), rows by the input (Peng et al. 2024)."""

import math
from dataclasses import replace
from functools import partial
from itertools import permutations

import numpy as np
import pytest
import torch

from metashot.base.errors import ConfigError, DataError
from metashot.data.task import ChosenBy, TaskType
from metashot.data.tasks.demo import DemoSource
from metashot.data.tasks.selected_source import Order, SelectedSource, Selection, Strategy
from metashot.engine.cells.family import Meter
from metashot.engine.metrics.classification import Metric
from metashot.engine.models.loading import LazyLanguageModel
from metashot.engine.models.sources import TinyModel
from metashot.engine.scoring.makers import prefix_scorer
from metashot.icl.prompting.config import MetaiclPrompt
from metashot.icl.prompting.methods import named_method
from metashot.icl.scoring.cell import Truncation, build_cell, ranking_scores, read_rows
from metashot.icl.scoring.classifier import InContextClassifier
from metashot.icl.scoring.evaluation_settings import EvaluateSettings
from metashot.icl.scoring.model_choice import chosen, entropy_of
from metashot.icl.scoring.ranking import RankedCells
from metashot.icl.scoring.written_inputs import writing_prompt

MODEL = LazyLanguageModel(TinyModel("tiny", "gpt2"))
LOADED = MODEL.load()
TASK = "demo-emotion"


def embed(texts):
    """Vectors that every text has for itself, whatever stands beside it."""
    return np.stack(
        [np.random.default_rng(len(text) * 1000 + sum(map(ord, text))).normal(size=4) for text in texts]
    )


class Few:
    name = "demo"

    def tasks(self):
        return [TASK]

    def load(self, task, *, k, seed, split="test"):
        return DemoSource().load(task, k=k, seed=seed, split=split).first(3)

    def pool(self, task, *, size=16384, seed=100):
        return DemoSource().pool(task, size=size, seed=seed)


def family(selection, k=3, method="direct"):
    source = SelectedSource(Few(), selection, embed)
    settings = EvaluateSettings(
        "demo", (TASK,), (13,), k, "test", named_method(method), Truncation.SHARED, MetaiclPrompt()
    )
    return RankedCells(settings, source, MODEL, partial(prefix_scorer))


def alone(requests):
    """Each request by itself."""
    found = []
    with torch.inference_mode():
        for request in requests:
            ids = torch.tensor([request.context + request.target])
            log_probs = LOADED.model(input_ids=ids).logits[0].log_softmax(-1)
            at = torch.arange(request.length - request.scored - 1, request.length - 1)
            found.append(log_probs[at, ids[0, at + 1]])
    return found


def test_the_entropies_of_three_orders_by_hand():
    """Four rows. One order predicts yes for all; one three times; one twice, and is surest of each row."""
    sure, unsure = np.array([0.9, 0.1]), np.array([0.6, 0.4])
    orders = [
        (["yes"] * 4, [unsure] * 4),
        (["yes", "yes", "yes", "no"], [unsure] * 3 + [sure]),
        (["yes", "no", "yes", "no"], [sure] * 4),
    ]
    over_all = [entropy_of(ChosenBy.GLOBAL_ENTROPY, *order) for order in orders]
    three_to_one = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert over_all == pytest.approx([0, three_to_one, math.log(2)])
    of_each = [entropy_of(ChosenBy.LOCAL_ENTROPY, *order) for order in orders]
    h_unsure, h_sure = (-(p * math.log(p) + (1 - p) * math.log(1 - p)) for p in (0.6, 0.9))
    assert of_each == pytest.approx([h_unsure, (3 * h_unsure + h_sure) / 4, h_sure])


@pytest.mark.parametrize("order", [Order.GLOBALE, Order.LOCALE])
def test_the_order_is_that_of_the_highest_entropy_over_forward_passes_one_by_one(order):
    cells = family(Selection(order=order, probes=6))
    (work,) = cells.work()
    data = cells.data(work)
    assert data.choice.most == 6  # all orders of three
    best, highest = None, -1.0
    seen = set()
    for candidate in permutations(data.demonstrations):
        probed = replace(data, demonstrations=candidate, test=data.choice.probes, choice=None)
        cell = build_cell(probed, MODEL.encode, cells.prompt_rules)
        rows = range(6)
        answers = read_rows(cell, rows, alone([cell.requests[place] for place in cell.places(rows)]))
        shares = [
            torch.tensor(row).neg().softmax(-1).numpy()
            for row in ranking_scores(answers, cells.settings.method)
        ]
        predicted = [data.choice.probes[row].options[int(share.argmax())] for row, share in enumerate(shares)]
        value = entropy_of(data.choice.rule, predicted, shares)
        seen.add(round(value, 6))
        if value > highest + 1e-9:
            best, highest = [candidate], value
        elif abs(value - highest) <= 1e-9:
            best.append(candidate)
    assert len(seen) > 1
    cells.compute(work, range(work.rows), Meter(lambda done, total: None))
    made = cells._chosen[TASK, 13]
    assert made.demonstrations in best
    assert made.choice is None
    text = cells.prompt(work.cells[0], cells.result(work, Metric.MACRO_F1, 0.5)).demonstrations
    places = [text.index(one.input) for one in made.demonstrations]
    assert places == sorted(places)


def test_probes_are_training_rows_that_are_neither_shown_nor_tested():
    data = SelectedSource(Few(), Selection(order=Order.GLOBALE), embed).load(TASK, k=3, seed=13)
    inputs = {one.input for one in data.choice.probes}
    assert len(inputs) == 24
    assert not inputs & {one.input for one in (*data.demonstrations, *data.test)}
    assert inputs <= {one.input for one in Few().pool(TASK)}


def test_cone_keeps_the_rows_behind_which_the_input_is_likeliest():
    """As forward passes one by one say, the best row last."""
    selection = Selection(strategy=Strategy.CONE, candidates=5)
    cells = family(selection, k=2)
    (work,) = cells.work()
    data = cells.data(work)
    assert {len(row) for row in data.neighbours} == {5}
    assert data.shots == 2
    nearest = SelectedSource(Few(), Selection(strategy=Strategy.NEAREST), embed).load(TASK, k=5, seed=13)
    assert data.neighbours == nearest.neighbours
    made = chosen(data, cells.prompt_rules, lambda requests: alone(requests), MODEL.encode)
    for example, row, kept in zip(data.test, data.neighbours, made.neighbours, strict=True):
        ids = tuple(cells.prompt_rules.prompt.encoder(MODEL.encode)(example.input))
        likelihood = []
        for candidate in row:
            context, _ = writing_prompt(
                replace(data, demonstrations=(candidate,), neighbours=(), choice=None),
                cells.prompt_rules,
                MODEL.encode,
            )
            with torch.inference_mode():
                log_probs = LOADED.model(input_ids=torch.tensor([(*context, *ids)])).logits[0].log_softmax(-1)
            at = range(len(context) - 1, len(context) + len(ids) - 1)
            likelihood.append(float(np.mean([float(log_probs[i, t]) for i, t in zip(at, ids, strict=True)])))
        assert kept == tuple(row[place] for place in np.argsort(likelihood)[-2:])
    assert "each of 5 candidates is scored" in data.notes[-1]


def test_what_the_model_scores_to_choose_is_counted():
    plain, ordered = (Meter(lambda done, total: None) for _ in range(2))
    for selection, meter in (
        (Selection(), plain),
        (Selection(order=Order.GLOBALE, orders=2, probes=4), ordered),
    ):
        cells = family(selection)
        (work,) = cells.work()
        cells.compute(work, range(work.rows), meter)
    assert ordered.cost.tokens_naive > 2 * plain.cost.tokens_naive


def test_a_plan_asks_no_model():
    cells = family(Selection(strategy=Strategy.CONE, candidates=5), k=2)
    cells.without_weights = True
    (work,) = cells.work()
    assert cells.cell(work).shown_least == 2


def test_nearest_last_gives_each_row_its_own_order():
    data = SelectedSource(Few(), Selection(order=Order.NEAREST_LAST), embed).load(TASK, k=3, seed=13)
    drawn = Few().load(TASK, k=3, seed=13).demonstrations
    for row, query in zip(data.neighbours, embed([one.input for one in data.test]), strict=True):
        assert set(row) == set(drawn)
        vectors = embed([one.input for one in row])
        cosines = vectors @ query / np.linalg.norm(vectors, axis=1)
        assert list(cosines) == sorted(cosines)


def test_as_drawn_is_the_published_order():
    assert Selection(order=Order.AS_DRAWN).changes_nothing
    assert not Selection(order=Order.GLOBALE).changes_nothing


def test_one_order_for_all_needs_demonstrations_that_all_share():
    source = SelectedSource(Few(), Selection(strategy=Strategy.NEAREST, order=Order.LOCALE), embed)
    with pytest.raises(DataError, match=r"here each has demonstrations of its own .*nearest_last"):
        source.load(TASK, k=3, seed=13)


def test_globale_needs_one_set_of_labels():
    cells = family(Selection(order=Order.GLOBALE))
    (work,) = cells.work()
    data = replace(cells.data(work), task_type=TaskType.MULTI_CHOICE)
    with pytest.raises(ConfigError, match="globale compares predictions over one set of labels"):
        chosen(data, cells.prompt_rules, alone, MODEL.encode)


def test_the_classifier_takes_the_words():
    rows = Few().pool(TASK)
    shown = [(one.input, one.output) for one in rows[:12]]
    inputs = [one.input for one in Few().load(TASK, k=0, seed=13).test]
    model = InContextClassifier("tiny", k=3, order="globale").fit(*map(list, zip(*shown, strict=True)))
    assert set(model.predict(inputs)) <= {output for _, output in shown}
    with pytest.raises(ConfigError, match="order: no choice 'globalle'"):
        InContextClassifier("tiny", order="globalle").fit(*map(list, zip(*shown, strict=True)))
