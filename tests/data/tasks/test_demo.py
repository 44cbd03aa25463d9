"""The embedded tasks keep the promises that the README makes for them."""

import re
from collections import Counter
from operator import add, mul, sub, truediv

import pytest

from metashot.base.errors import DataError
from metashot.data.kshot import k_shot_split
from metashot.data.task import TaskType
from metashot.data.tasks.demo import DemoSource, demo_index


def test_thirteen_tasks_of_three_types():
    types = Counter(entry["type"] for entry in demo_index().values())
    assert types == {"classification": 8, "multi-choice": 3, "free-form": 2}


@pytest.mark.parametrize("task", list(demo_index()))
def test_each_task_is_large_enough_clean_and_disjoint(task):
    source = DemoSource()
    train, test = source.pool(task), list(source.load(task, k=0, seed=100).test)
    reasoned = task == "demo-word_problems"
    assert len(train) >= (12 if reasoned else 64)
    assert len(test) >= (30 if reasoned else 48)
    assert all(bool(example.rationale) == reasoned for example in (*train, *test))
    inputs = [example.input.lower() for example in (*train, *test)]
    assert len(set(inputs)) == len(inputs) or task == "demo-entailment"
    assert not {example.input for example in train} & {example.input for example in test}
    for example in (*train, *test):
        assert example.task == task
        assert not example.options or example.output in example.options
        assert example.input.isascii()


def test_classification_tasks_are_balanced_with_two_to_six_labels():
    source = DemoSource()
    for task, entry in demo_index().items():
        if entry["type"] == "classification":
            test = source.load(task, k=0, seed=100).test
            counts = Counter(example.output for example in test)
            assert 2 <= len(counts) <= 6
            assert set(counts) == set(test[0].options)
            assert max(counts.values()) <= 1.35 * min(counts.values())


def test_the_reasons_of_a_word_problem_are_true_and_end_with_its_answer():
    data = DemoSource().load("demo-word_problems", k=12, seed=100)
    for example in (*data.demonstrations, *data.test):
        steps = re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", example.rationale)
        assert len(steps) >= 2
        for left, sign, right, result in steps:
            done = {"+": add, "-": sub, "*": mul, "/": truediv}[sign](int(left), int(right))
            assert done == int(result), example.rationale
        assert steps[-1][-1] == example.output
        given = re.findall(r"\d+", example.input)
        made = [result for *_, result in steps]
        said = {one for left, _, right, _ in steps for one in (left, right)} - set(made)
        assert len(said - set(given)) <= 2, example.input  # numbers in words: three friends, a week, half


def test_demonstrations_follow_the_k_shot_protocol():
    source = DemoSource()
    pool = source._examples("demo-spam", "train")
    data = source.load("demo-spam", k=16, seed=13)
    assert list(data.demonstrations) == [
        pool[index] for index in k_shot_split(len(pool), k=16, seed=13).train
    ]
    assert data.task_type is TaskType.CLASSIFICATION


def test_errors():
    with pytest.raises(DataError, match=r"no task 'demo-spm' .*demo-spam"):
        DemoSource().load("demo-spm", k=4, seed=100)
    with pytest.raises(DataError, match=r"has 72 training examples, k=100"):
        DemoSource().load("demo-spam", k=100, seed=100)
