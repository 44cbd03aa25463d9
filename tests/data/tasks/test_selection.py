"""The demonstration lab: choices, orders and label changes as properties; a source around any source."""

from dataclasses import dataclass
from math import factorial

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from metashot.base.errors import DataError
from metashot.data.task import Example, TaskData, TaskType
from metashot.data.tasks.selected_source import Labels, SelectedSource, Selection, Shown, Strategy
from metashot.data.tasks.selection import (
    add_label_noise,
    choose_balanced,
    choose_fixed,
    choose_random,
    flip_labels,
    inputs_only,
    labels_only,
    nearest,
    permutation,
    rename_labels,
    reorder,
    word_map,
)

OPTIONS = ("no", "yes", "maybe")
POOL = [Example("t", f"input {i}", OPTIONS[0 if i < 12 else 1 + i % 2], OPTIONS) for i in range(20)]
SEEDS = st.integers(0, 2**32)


def generator(seed=0):
    return np.random.default_rng(seed)


@given(SEEDS, st.integers(0, 20))
def test_a_random_choice_repeats_nothing_and_follows_the_seed(seed, k):
    chosen = choose_random(POOL, k, generator(seed))
    assert len(set(chosen)) == len(chosen) == k
    assert chosen == choose_random(POOL, k, generator(seed))


@given(SEEDS, st.integers(1, 12))
def test_a_balanced_choice_has_equal_counts(seed, k):
    """The pool has 12, 4 and 4 of its labels, so counts differ by one at most while k <= 12."""
    chosen = choose_balanced(POOL, k, generator(seed))
    counts = [sum(example.output == option for example in chosen) for option in OPTIONS]
    assert max(counts) - min(counts) <= 1
    assert len(set(chosen)) == k


def test_a_balanced_choice_takes_what_there_is():
    chosen = choose_balanced(POOL, 15, generator())
    assert [sum(e.output == option for e in chosen) for option in OPTIONS] == [7, 4, 4]


def test_fixed_places_keep_their_order():
    assert choose_fixed(POOL, [3, 0]) == (POOL[3], POOL[0])
    with pytest.raises(DataError, match=r"selection.indices: no example 20 in a pool of 20"):
        choose_fixed(POOL, [20])


def test_a_pool_that_is_too_small_is_refused():
    with pytest.raises(DataError, match=r"k: 't' has a pool of 20 examples, k=21 asked"):
        choose_random(POOL, 21, generator())


def test_the_nearest_neighbour_stands_last():
    """On the unit circle at 0, 30, 80 and 180 degrees; the query at 10 degrees."""
    angles = np.radians([0, 30, 80, 180])
    pool = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    query = 5 * np.array([[np.cos(np.radians(10)), np.sin(np.radians(10))]])
    assert nearest(query, pool, 3).tolist() == [[2, 1, 0]]
    assert nearest(query, np.array([[1.0, 0], [1.0, 0]]), 2).tolist() == [[1, 0]]
    with pytest.raises(DataError, match="pool holds 4 examples, k=5"):
        nearest(query, pool, 5)


@given(st.integers(0, 200))
def test_orders_are_permutations_and_order_0_is_the_same(order):
    changed = reorder(POOL, order)
    assert sorted(changed, key=POOL.index) == POOL
    assert order or list(changed) == POOL


@pytest.mark.parametrize("k", [0, 1, 2, 3, 4, 5])
def test_no_order_repeats_another_before_all_were_there(k):
    orders = [permutation(k, number) for number in range(factorial(k))]
    assert len(set(orders)) == factorial(k)
    assert orders[0] == tuple(range(k))
    assert permutation(k, factorial(k)) == orders[0]


def test_orders_are_numpys_permutations_in_turn_without_those_that_came_before():
    """Three places, seeds 1 to 7: 012 (the identity), 201, 210, 012, 120, 012, 021."""
    drawn = [tuple(np.random.default_rng(seed).permutation(3).tolist()) for seed in range(1, 8)]
    assert drawn[0] == drawn[3] == drawn[5] == (0, 1, 2)
    assert [permutation(3, number) for number in range(5)] == [drawn[place] for place in (0, 1, 2, 4, 6)]


@given(st.integers(5, 16), st.integers(1, 12))
def test_where_no_seed_repeats_an_order_is_the_permutation_of_its_seed(k, order):
    """So the published orders, whose number was the seed, keep their meaning."""
    drawn = [tuple(np.random.default_rng(seed).permutation(k).tolist()) for seed in range(order + 1)]
    assume(len({tuple(range(k)), *drawn[1:]}) == order + 1)
    assert permutation(k, order) == drawn[order]


@pytest.mark.parametrize(("k", "order"), [(1, 1), (2, 2), (3, 6), (4, 24)])
def test_an_order_that_would_be_another_one_again_is_refused(k, order):
    message = (
        rf"selection.order: {k} demonstrations have {order} orders, 0 to {order - 1}, got {order} \(use one"
    )
    with pytest.raises(DataError, match=message):
        load(k=k, order=order)
    assert len({load(k=k, order=number).demonstrations for number in range(order)}) == order


def test_where_nothing_is_shown_every_order_is_the_same():
    assert load(k=0, order=7).demonstrations == ()


@given(SEEDS, st.floats(0, 1))
def test_label_noise_makes_exactly_its_share_wrong(seed, share):
    noisy = add_label_noise(POOL, share, generator(seed))
    wrong = [new for old, new in zip(POOL, noisy, strict=True) if new.output != old.output]
    assert len(wrong) == round(share * len(POOL))
    assert all(example.output in OPTIONS for example in wrong)
    assert [example.input for example in noisy] == [example.input for example in POOL]


def test_an_example_with_one_option_cannot_be_wrong():
    with pytest.raises(DataError, match="no label is wrong"):
        add_label_noise([Example("t", "x", "a", ("a",))], 1.0, generator())


def test_flipping_is_consistent_and_never_right():
    flipped = flip_labels(POOL)
    assert {(old.output, new.output) for old, new in zip(POOL, flipped, strict=True)} == {
        ("maybe", "no"),
        ("no", "yes"),
        ("yes", "maybe"),
    }


def test_parts_can_be_hidden():
    assert {(e.input, e.output) for e in labels_only(POOL[:1])} == {("", "no")}
    assert {(e.input, e.output) for e in inputs_only(POOL[:1])} == {("input 0", "")}


@given(SEEDS)
def test_words_are_distinct_and_answers_keep_their_places(seed):
    names = word_map(OPTIONS, [f"w{i}" for i in range(5)], generator(seed))
    assert len(set(names.values())) == 3
    for old, new in zip(POOL, rename_labels(POOL, names), strict=True):
        assert new.options.index(new.output) == old.options.index(old.output)


@dataclass
class Source:
    """Twenty examples a task; the protocol takes the first k."""

    name: str = "made"
    task_type: TaskType = TaskType.CLASSIFICATION

    def tasks(self):
        return ["t"]

    def load(self, task, *, k, seed, split="test"):
        test = tuple(Example(task, f"test {i}", "yes", OPTIONS) for i in range(3))
        return TaskData(task, seed, self.task_type, tuple(POOL[:k]), test)

    def pool(self, task, *, size=16384, seed=100):
        return list(POOL)


def load(k=4, seed=1, source=None, **changes):
    def embed(sentences):
        return np.stack([[len(text), int(text.split()[-1])] for text in sentences]).astype(np.float32)

    words = [f"word{i}" for i in range(50)]
    return SelectedSource(source or Source(), Selection(**changes), embed, words).load("t", k=k, seed=seed)


def test_the_protocol_is_left_alone():
    assert load().demonstrations == tuple(POOL[:4])
    assert Selection().changes_nothing
    assert not Selection(order=1).changes_nothing


def test_selected_cells_depend_on_task_and_seed_only():
    one, again, other = (load(seed=seed, strategy=Strategy.RANDOM) for seed in (1, 1, 2))
    assert one == again
    assert one.demonstrations != other.demonstrations
    assert one.test == other.test


def test_neighbours_belong_to_test_examples():
    data = load(k=2, strategy=Strategy.NEAREST)
    assert data.demonstrations == ()
    assert (len(data.neighbours), data.shots) == (3, 2)
    assert data.neighbours[0][-1].input == "input 0"


def test_vote_k_shows_the_nearest_of_the_rows_that_it_chose():
    """With as many chosen rows as a prompt shows, every test row has the same ones."""
    data = load(k=3, strategy=Strategy.VOTEK, annotated=3)
    assert len({frozenset(one.input for one in row) for row in data.neighbours}) == 1
    all_chosen = load(k=2, strategy=Strategy.VOTEK, annotated=len(POOL))
    assert {one.input for one in all_chosen.neighbours[0]} == {
        one.input for one in load(k=2, strategy=Strategy.NEAREST).neighbours[0]
    }


class Shortest(Selection):
    """A selection of one's own: the shortest inputs of the pool, for every test row."""

    def ranking(self, inputs, pool, k):
        shortest = sorted(range(len(pool)), key=lambda place: (len(pool[place].input), place))[:k]
        return np.array([shortest[::-1]] * len(inputs))


def test_a_class_of_ones_own_ranks_the_pool():
    assert not Shortest().changes_nothing
    data = SelectedSource(Source(), Shortest()).load("t", k=2, seed=1)
    assert [[one.input for one in row] for row in data.neighbours] == [["input 1", "input 0"]] * 3
    assert SelectedSource(Source(), Shortest()).load("t", k=0, seed=1).neighbours == ()


@dataclass
class Overlapping(Source):
    """The first `overlap` rows of the pool are its test rows, with other blanks and capitals."""

    overlap: int = 3

    def load(self, task, *, k, seed, split="test"):
        test = tuple(Example(task, f"  Input   {i}", POOL[i].output, OPTIONS) for i in range(self.overlap))
        return TaskData(task, seed, self.task_type, tuple(POOL[:k]), test)


def inputs(examples):
    return {example.input for example in examples}


@pytest.mark.parametrize("strategy", [Strategy.RANDOM, Strategy.BALANCED])
@given(seed=SEEDS)
def test_test_rows_are_never_drawn_as_demonstrations_and_the_note_counts_them(strategy, seed):
    data = load(k=6, seed=seed, source=Overlapping(), strategy=strategy)
    assert inputs(data.demonstrations).isdisjoint({"input 0", "input 1", "input 2"})
    assert data.notes == (
        "task 't': 3 of 3 test rows stand in the training pool: they are left out of the demonstrations",
    )


def test_where_others_are_too_few_each_row_is_left_out_of_its_own_demonstrations():
    """18 of the 20 pool rows are test rows, so a draw of 6 needs them."""
    data = load(k=6, source=Overlapping(overlap=18), strategy=Strategy.RANDOM)
    assert data.demonstrations == ()
    assert [len(row) for row in data.neighbours] == [6] * 18
    for number, row in enumerate(data.neighbours):
        assert f"input {number}" not in inputs(row)
    assert data.notes[-1].endswith("each is left out of its own demonstrations")


def test_the_nearest_row_of_a_test_row_in_the_pool_is_not_itself():
    data = load(k=2, source=Overlapping(), strategy=Strategy.NEAREST)
    assert [f"input {number}" in inputs(row) for number, row in enumerate(data.neighbours)] == [False] * 3
    assert [len(row) for row in data.neighbours] == [2] * 3


@pytest.mark.parametrize("strategy", [Strategy.PROTOCOL, Strategy.BALANCED, Strategy.NEAREST])
def test_changes_apply_to_every_strategy(strategy):
    data = load(strategy=strategy, labels=Labels.FLIPPED, shown=Shown.LABELS)
    rows = data.neighbours or (data.demonstrations,)
    assert all(example.input == "" for row in rows for example in row)
    assert data.test[0].output == "yes"


def test_random_words_replace_labels_everywhere():
    data = load(labels=Labels.RANDOM_WORDS)
    assert all(option.startswith("word") for example in data.test for option in example.options)
    assert {e.output for e in data.demonstrations} <= set(data.test[0].options)
    assert data.test[0].options != load(seed=2, labels=Labels.RANDOM_WORDS).test[0].options
    with pytest.raises(DataError, match="random_words needs one label set"):
        load(source=Source(task_type=TaskType.MULTI_CHOICE), labels=Labels.RANDOM_WORDS)


def test_fixed_places_decide_k():
    assert load(k=2, strategy=Strategy.FIXED, indices=(5, 7)).demonstrations == (POOL[5], POOL[7])
    with pytest.raises(DataError, match=r"k=4, but selection.indices names 2"):
        load(k=4, strategy=Strategy.FIXED, indices=(5, 7))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"indices": (1,)}, "selection.indices: 1 given with strategy 'protocol'"),
        ({"strategy": Strategy.FIXED}, "selection.indices: 0 given with strategy 'fixed'"),
    ],
)
def test_contradictions_are_refused(changes, message):
    with pytest.raises(DataError, match=message):
        Selection(**changes)
