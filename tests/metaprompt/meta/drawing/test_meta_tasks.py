"""Which sentences meet in a task: draws, halves, splits."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metashot.base.errors import ConfigError, DataError
from metashot.engine.models.loading import LanguageModel
from metashot.metaprompt.clusters.store import ClusterStore
from metashot.metaprompt.meta.drawing.domains import Domains, Half, _can_be_parted, split_domains, task_halves
from metashot.metaprompt.meta.drawing.draws import ADJACENT, DRAWS, OTHER_DOCUMENT, Record, RecordsWanted
from metashot.metaprompt.meta.drawing.formats import RenderRules, bind_format, load_format
from metashot.metaprompt.meta.drawing.tasks import TaskStream, check_stream

FORMATS = ("nsp", "nss", "scsp", "scss", "scc")


def domains_of(store: ClusterStore, min_sentences: int = 8) -> dict[str, Domains]:
    return dict(split_domains(store, held_out_fraction=0.25, min_sentences=min_sentences, seed=0))


def stream_of(store: ClusterStore, model: LanguageModel, repeats: bool = False, seed: int = 0) -> TaskStream:
    rules = RenderRules(200, bare_pieces=False, released_truncation=False, third_position=False)
    renderers = tuple(
        bind_format(load_format(name), model.tokenizer, rules, is_seq2seq=model.is_seq2seq)
        for name in FORMATS
    )
    domains = domains_of(store)
    return TaskStream(renderers, domains["meta_train"], domains["meta_test"], seed, 3, 2, repeats)


def draw(
    store: ClusterStore, name: str, clusters: tuple[int, ...], count: int = 16
) -> tuple[Half, list[Record]]:
    generator = np.random.default_rng(1)
    support, _ = task_halves(domains_of(store)["meta_train"], clusters, generator, shared=False)
    return support, DRAWS[load_format(name).draw](
        support, RecordsWanted(clusters, count, 4, False), generator
    )


def place(store: ClusterStore, sentence: str) -> int:
    return next(i for i in range(len(store.sentences)) if store.sentences[i] == sentence)


def test_train_and_held_out_tasks_share_no_document(store: ClusterStore):
    domains = domains_of(store)
    assert not set(domains["meta_train"].documents) & set(domains["meta_test"].documents)
    assert domains["meta_train"].eligible == domains["meta_test"].eligible == (0, 1, 2, 3, 4, 5)


def test_next_sentence_labels_say_where_the_partner_stands(store: ClusterStore):
    _, records = draw(store, "nsp", (2,), 60)
    starts = store.sentences.starts
    for record in records:
        first, second = place(store, record.slots["first"]), place(store, record.slots["second"])
        same = np.searchsorted(starts, first, "right") == np.searchsorted(starts, second, "right")
        adjacent = bool(same) and abs(first - second) == 1
        assert record.label == (ADJACENT if adjacent else 1 if same else OTHER_DOCUMENT)
    assert {record.label for record in records} == {0, 1, 2}


def test_next_sentence_choice_has_one_adjacent_option(store: ClusterStore):
    _, records = draw(store, "nss", (2,))
    for record in records:
        anchor = place(store, record.slots["anchor"])
        distance = [abs(place(store, str(option)) - anchor) for option in record.options]
        assert distance[record.label] == 1
        assert len(record.options) == 4


@pytest.mark.parametrize("name", ["scsp", "scss"])
def test_cluster_formats_are_balanced_and_true(store: ClusterStore, name: str):
    _, records = draw(store, name, (3,))
    cluster = {store.sentences[i]: int(store.assignment[i]) for i in range(len(store.sentences))}
    for record in records:
        if name == "scsp":
            assert (cluster[record.slots["second"]] == 3) == (record.label == 0)
            assert record.slots["first"] != record.slots["second"]
        else:
            assert [cluster[str(o)] == 3 for o in record.options] == [i == record.label for i in range(4)]
            assert record.slots["anchor"] not in record.options
    counts = np.bincount([record.label for record in records])
    assert counts.tolist() == ([8, 8] if name == "scsp" else [4, 4, 4, 4])


def test_cluster_classification_is_balanced(store: ClusterStore):
    _, records = draw(store, "scc", (4, 0, 2, 1))
    assert np.bincount([record.label for record in records]).tolist() == [4, 4, 4, 4]
    assert all(f"of {['river', 'bread', 'chess', 'storm', 'piano', 'train'][(4, 0, 2, 1)[r.label]]} " in r.slots["anchor"]
               for r in records)  # fmt: skip


def test_support_and_query_share_no_document(store: ClusterStore):
    domains = domains_of(store)["meta_train"]
    for seed in range(20):
        support, query = task_halves(domains, (1, 4), np.random.default_rng(seed), shared=False)
        assert not (support.allowed & query.allowed).any()
        assert all(len(half.members(c)) >= 2 for half in (support, query) for c in (1, 4))
    support, query = task_halves(domains, (1,), np.random.default_rng(0), shared=True)
    assert support.allowed.all()
    assert query.allowed.all()


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6))
def test_a_domain_is_a_cluster_that_some_deal_of_its_documents_parts(sentences: list[int]):
    """Against every deal of the documents in turn: one half gets the odd ones, and either needs two sentences."""
    documents = np.repeat(np.arange(len(sentences)), sentences)
    deals = permutations(sentences)
    parted = any(min(sum(deal[::2]), sum(deal[1::2])) >= 2 for deal in deals)
    assert _can_be_parted(documents) == parted


def test_support_and_query_contexts_are_disjoint_unless_released(store: ClusterStore, gpt2: LanguageModel):
    for step in range(6):
        for task in stream_of(store, gpt2).step_tasks(step):
            assert not {e.input_ids for e in task.support} & {e.input_ids for e in task.query}
            assert (len(task.support), len(task.query), len(task.augmentation)) == (16, 16, 16)


def test_released_repeats_pair_sentences_with_themselves(store: ClusterStore):
    domains = domains_of(store)["meta_train"]
    generator = np.random.default_rng(0)
    half, _ = task_halves(domains, (0,), generator, shared=True)
    plan = RecordsWanted((0,), 200, 0, True)
    pairs = [r.slots for r in DRAWS["same_cluster_pair"](half, plan, generator)]
    assert any(slots["first"] == slots["second"] for slots in pairs)


def test_tasks_are_a_pure_function_of_seed_and_step(store: ClusterStore, gpt2: LanguageModel):
    one, two = stream_of(store, gpt2), stream_of(store, gpt2)
    late_first = [two.step_tasks(5), two.step_tasks(0)]
    assert one.step_tasks(0) == late_first[1]
    assert one.step_tasks(5) == late_first[0]
    assert one.step_tasks(0) != stream_of(store, gpt2, seed=1).step_tasks(0)


def test_two_steps_share_a_format_and_no_domain(store: ClusterStore, gpt2: LanguageModel):
    stream = stream_of(store, gpt2)
    seen: set[str] = set()
    for draw_number in range(12):
        tasks = [*stream.step_tasks(2 * draw_number), *stream.step_tasks(2 * draw_number + 1)]
        assert len({task.format for task in tasks}) == 1
        seen.add(tasks[0].format)
        if tasks[0].format != "scc":
            assert len({task.clusters for task in tasks}) == 6
            assert all(task.clusters != task.augmentation_clusters for task in tasks)
    assert len(seen) >= 4


def test_too_little_text_is_said_in_numbers(store: ClusterStore, gpt2: LanguageModel):
    with pytest.raises(DataError, match=r"no cluster has 250 meta_test sentences .*the largest has 12"):
        domains_of(store, min_sentences=1000)
    stream = stream_of(store, gpt2)
    few = replace(stream.train, eligible=(0, 1))
    with pytest.raises(ConfigError, match="2 eligible meta_train clusters, but a task needs 4"):
        check_stream(replace(stream, train=few), {"meta_train": few})


@pytest.mark.parametrize("name", ["nss", "scss"])
def test_options_never_repeat_even_where_the_corpus_does(store: ClusterStore, name: str):
    """A corpus whose every second sentence says the same: options, right one and anchor all differ."""
    lines = [f"sentence {i // 2 if i % 2 else 0} here." for i in range(len(store.sentences))]
    text = np.frombuffer("".join(lines).encode(), dtype=np.uint8)
    offsets = np.cumsum([0, *map(len, lines)])
    poor = replace(store, sentences=replace(store.sentences, text=text, offsets=offsets))
    for cluster in range(4):
        _, records = draw(poor, name, (cluster,), 40)
        for record in records:
            assert len(set(record.options)) == len(record.options)


def test_a_corpus_too_poor_for_different_options_is_refused(store: ClusterStore):
    lines = ["always the same." for _ in range(len(store.sentences))]
    text = np.frombuffer("".join(lines).encode(), dtype=np.uint8)
    poor = replace(
        store, sentences=replace(store.sentences, text=text, offsets=np.cumsum([0, *map(len, lines)]))
    )
    with pytest.raises(DataError, match="too few different sentences outside cluster 1 for 4 options"):
        draw(poor, "scss", (1,))
