"""Downstream tasks: the published patterns to the id, K per label, bad files."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metashot.base.errors import ConfigError, DataError
from metashot.engine.models.loading import LanguageModel
from metashot.metaprompt.template import ContextLimits
from metashot.metaprompt.truncation import CutRule
from metashot.metaprompt.tuning.tasks import (
    TaskRenderer,
    bind_task,
    load_prompt_task,
    load_rows,
    sample_per_label,
    task_names,
)

S = "<extra_id_0>"


def unbound(name: str, model: LanguageModel, max_tokens: int = 256, pattern: int = 0) -> TaskRenderer:
    """A renderer without looking the label words up: the tiny tokenizer does not know them all."""
    task = load_prompt_task(name, pattern)
    limits = ContextLimits(max_tokens, {}, CutRule.LONGEST_SLOT)
    ids = tuple(range(30, 30 + len(task.labels)))
    return TaskRenderer(task, model.tokenizer, limits, model.is_seq2seq, task.verbalizers, ids)


def test_the_thirteen_tasks():
    assert task_names() == sorted(
        ["mr", "cr", "SST-2", "sst-5", "subj", "trec", "boolq", "rte", "cb", "wic", "qnli", "qqp", "mrpc"]
    )


@pytest.mark.parametrize(
    ("name", "row", "pieces"),
    [
        ("SST-2", {"source": "a fish"}, ["a fish", f"It was {S} ?"]),
        ("sst-5", {"source": "a fish"}, ["a fish", f"It was {S} ?"]),
        ("subj", {"source": "a fish"}, ["a fish", "This is", f"{S} ."]),
        ("trec", {"source": "who?"}, ["who?", f"{S} :"]),
        ("boolq", {"passage": "p", "question": "q"}, ["p", ". Question: ", "q", "? Answer: ", f"{S} ."]),
        ("rte", {"premise": "it rains.", "hypothesis": "wet!?"}, ['"', "wet", '" ?', f'{S} , "', "it rains.", '"']),
        ("cb", {"premise": "it rains.", "hypothesis": "wet."}, ['"', "wet", '" ?', f'{S} , "', "it rains.", '"']),
        ("wic", {"sentence1": "a", "sentence2": "b", "word": "bank"},
         ['"', "a", '" / "', "b", '" Similar sense of "bank"?', f"{S} ."]),
        ("qnli", {"sentence": "s", "question": "q"}, ["s", ". Question: ", "q", "? Answer: ", f"{S} ."]),
        ("qqp", {"question1": "a", "question2": "b"}, ["Do ", "a", " and ", "b", " have the same meaning? ", f"{S} ."]),
        ("mrpc", {"sentence1": "a", "sentence2": "b"}, ["Do ", "a", " and ", "b", " have the same meaning? ", f"{S} ."]),
    ],
)  # fmt: skip
def test_published_patterns(t5: LanguageModel, name: str, row: dict[str, Any], pieces: list[str]):
    """Pattern 0 of the released code: pieces tokenized one by one."""
    example = unbound(name, t5).example({**row, "label": 1})
    encode = t5.tokenizer.encode
    assert example.input_ids == tuple(i for piece in pieces for i in encode(piece, add_special_tokens=False))
    assert example.target_ids == (t5.tokenizer.convert_tokens_to_ids(S), 31)


@pytest.mark.parametrize(
    ("name", "pattern", "row", "pieces", "words"),
    [
        ("subj", 1, {"source": "a"}, ["a", "It's all", f"{S} ."], ["subjective", "objective"]),
        ("subj", 3, {"source": "a"}, ["a", "Is it", f"{S} ?"], ["subjective", "objective"]),
        ("boolq", 1, {"passage": "p", "question": "q"}, ["p", ". Question: ", "q", "? Answer: ", f"{S} ."], ["no", "yes"]),
        ("boolq", 4, {"passage": "p", "question": "q"},
         ["Based on the following passage, ", "q", "?", f"{S} .", "p"], ["no", "yes"]),
        ("rte", 1, {"premise": "it rains.", "hypothesis": "wet!?"}, ["wet", "?", f"{S} ,", "it rains."], ["yes", "no"]),
        ("rte", 4, {"premise": "it rains.", "hypothesis": "wet!?"},
         ["it rains.", " question: ", "wet!?", f" True or False? answer: {S}"], ["true", "false"]),
        ("cb", 4, {"premise": "p", "hypothesis": "wet."},
         ["p", " question: ", "wet.", f" true, false or neither? answer: {S}"], ["true", "false", "neither"]),
        ("wic", 2, {"sentence1": "a", "sentence2": "b", "word": "bank"},
         ["bank", ' . Sense (1) (a) "', "a", f'" ( {S} ) "', "b", '"'], ["2", "b"]),
        ("qnli", 3, {"sentence": "s", "question": "q"},
         ["s", ". Based on the previous sentence, ", "q", "?", f"{S} ."], ["true", "false"]),
        ("mrpc", 1, {"sentence1": "a", "sentence2": "b"},
         ["Do ", "a", " and ", "b", " have the same meaning? ", f"{S} ."], ["false", "true"]),
    ],
)  # fmt: skip
def test_further_published_patterns(
    t5: LanguageModel, name: str, pattern: int, row: dict[str, Any], pieces: list[str], words: list[str]
):
    """Wordings as in the released processors; what a pattern leaves out is as in pattern 0."""
    renderer = unbound(name, t5, pattern=pattern)
    encode = t5.tokenizer.encode
    assert renderer.example({**row, "label": 1}).input_ids == tuple(
        i for piece in pieces for i in encode(piece, add_special_tokens=False)
    )
    assert list(renderer.words) == words


def test_counts_of_patterns():
    """The released code has, for subj and trec 4, wic 3, the other pair tasks 5, sentiment 1."""
    counts = dict.fromkeys(("boolq", "rte", "cb", "qnli", "qqp", "mrpc"), 5) | {
        "subj": 4,
        "trec": 4,
        "wic": 3,
    }
    for name in task_names():
        count = counts.get(name, 1)
        assert load_prompt_task(name, count - 1).name == name
        with pytest.raises(
            ConfigError, match=rf"tuning\.pattern: task {name} has no pattern {count} \(give 0"
        ):
            load_prompt_task(name, count)


@pytest.mark.parametrize(
    ("name", "row", "text"),
    [
        ("SST-2", {"source": "a fish"}, "a fish It was"),
        ("cb", {"premise": "it rains.", "hypothesis": "wet."}, "it rains. Question: wet? Answer:"),
        ("mrpc", {"sentence1": "a", "sentence2": "b"}, "Do a and b have the same meaning? Answer:"),
        (
            "wic",
            {"sentence1": "a", "sentence2": "b", "word": "bank"},
            'a / b Similar sense of "bank"? Answer:',
        ),
    ],
)
def test_decoder_only_patterns_end_where_the_answer_starts(
    gpt2: LanguageModel, name: str, row: dict[str, Any], text: str
):
    example = unbound(name, gpt2).example({**row, "label": 0})
    assert gpt2.tokenizer.decode(example.input_ids) == text
    assert example.target_ids == (30,)


def test_over_long_text_keeps_the_pattern(gpt2: LanguageModel):
    example = unbound("SST-2", gpt2, max_tokens=20).example({"source": "fish " * 90, "label": 0})
    assert len(example.input_ids) == 20
    assert gpt2.tokenizer.decode(example.input_ids).endswith(" It was")


def test_boolq_s_words_are_swapped_only_as_released(t5: LanguageModel):
    task = load_prompt_task("boolq")
    assert task.labels == ("False", "True")
    options = {"is_seq2seq": True, "max_tokens": 64, "released_truncation": False}
    assert bind_task(task, t5.tokenizer, released_words=False, **options).words == ("no", "yes")
    assert bind_task(task, t5.tokenizer, released_words=True, **options).words == ("yes", "no")


@given(st.lists(st.integers(0, 3), min_size=4, max_size=200), st.integers(1, 20), st.integers(0, 5))
def test_k_per_label_sample(labels: list[int], k: int, seed: int):
    train, dev = sample_per_label(labels, k, seed)
    assert not set(train) & set(dev)
    available = Counter(labels)
    for chosen in (train, dev):
        counts = Counter(labels[i] for i in chosen)
        assert all(counts.get(label, 0) == min(n // 2, k) for label, n in available.items())
    assert (train, dev) == sample_per_label(labels, k, seed)


def test_sampling_order_is_that_of_datasets_shuffle():
    """numpy's default_rng(100).permutation is what `datasets.Dataset.shuffle(seed=100)` orders by."""
    from datasets import Dataset

    labels = [0, 1] * 20
    shuffled = Dataset.from_dict({"index": list(range(40)), "label": labels}).shuffle(seed=100)
    expected = [row["index"] for label in (0, 1) for row in [r for r in shuffled if r["label"] == label][:3]]
    assert sample_per_label(labels, 3, 100)[0] == expected


def write(root: Path, rows: list[dict[str, Any]]) -> None:
    (root / "SST-2").mkdir(parents=True)
    for split in ("train", "test"):
        (root / "SST-2" / f"{split}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_bad_task_data_is_said_with_its_line(tmp_path: Path):
    task = load_prompt_task("SST-2")
    write(tmp_path / "a", [{"source": "x", "label": 0}, {"source": "y"}])
    with pytest.raises(DataError, match=r"SST-2/train\.json:2: no label"):
        load_rows(task, "folder", str(tmp_path / "a"))
    write(tmp_path / "b", [{"source": "x", "label": 2}])
    with pytest.raises(DataError, match=r"label 2 \(give a number from 0 to 1 \(negative, positive\)"):
        load_rows(task, "folder", str(tmp_path / "b"))
    with pytest.raises(DataError, match="cannot be read"):
        load_rows(task, "folder", str(tmp_path / "c"))
    with pytest.raises(ConfigError, match=r"tuning\.data_root: is not set"):
        load_rows(task, "folder", None)
    with pytest.raises(ConfigError, match="'SST-2' is not on the hub"):
        load_rows(task, "hub", None)


@pytest.mark.parametrize("labels", [(0, 1), ("0", "1"), ("negative", "positive"), (False, True)])
def test_rows_of_any_table_are_the_rows_of_json_lines(tmp_path: Path, labels: tuple[Any, Any]):
    """One reader for recipes and prompt tasks: a CSV file with twins or names of labels gives equal rows and digest."""
    task = load_prompt_task("SST-2")
    write(tmp_path / "json", [{"source": "one, two", "label": 0}, {"source": "three", "label": 1}])
    expected = load_rows(task, "folder", str(tmp_path / "json"))
    folder = tmp_path / "csv" / "SST-2"
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        (folder / f"{split}.csv").write_text(
            f'more,source,label\nx,"one, two",{labels[0]}\ny,three,{labels[1]}\n'
        )
    assert load_rows(task, "folder", str(tmp_path / "csv")) == expected
    assert expected.train == ({"source": "one, two", "label": 0}, {"source": "three", "label": 1})


def test_bad_task_files_are_said(tmp_path: Path):
    from importlib.resources import files

    text = (files("metashot.metaprompt.tuning") / "task_files" / "SST-2.yaml").read_text()
    (tmp_path / "a.yaml").write_text(text.replace("labels:", "lables:"))
    with pytest.raises(DataError, match=r"unknown key 'lables'"):
        load_prompt_task(str(tmp_path / "a.yaml"))
    (tmp_path / "b.yaml").write_text(text.replace("[negative, positive]", "[negative]"))
    with pytest.raises(DataError, match="1 labels but 2 verbalizers"):
        load_prompt_task(str(tmp_path / "b.yaml"))
    (tmp_path / "c.yaml").write_text(text + "further_patterns:\n  - {template: x}\n")
    with pytest.raises(DataError, match="unknown keys: template"):
        load_prompt_task(str(tmp_path / "c.yaml"), 1)
    with pytest.raises(ConfigError, match="unknown task 'SST2'"):
        load_prompt_task("SST2")
    (tmp_path / "d.yaml").write_text("name: d\nverbalizers: [bad, good]\n")
    with pytest.raises(DataError, match=r"no pattern \(a task needs name, verbalizers and pattern"):
        load_prompt_task(str(tmp_path / "d.yaml"))
    for pattern, problem in (
        ("It was", "names no field"),
        ("{text} was {answer} and {answer}", "has two answers"),
        ("{text:>3} was", "a field is"),
        ("{text was", "expected '}'"),
    ):
        (tmp_path / "e.yaml").write_text(f"name: e\nverbalizers: [bad, good]\npattern: '{pattern}'\n")
        with pytest.raises(DataError, match=problem):
            load_prompt_task(str(tmp_path / "e.yaml"))


THREE_LINES = """name: tickets
pattern: 'Ticket ({subject}): {body} This is {answer}.'
verbalizers: [okay, bad]
"""


@pytest.mark.parametrize(
    ("architecture", "text"),
    [
        ("t5", f"Ticket ( | a | ): | b c |  This is {S}."),
        ("gpt2", "Ticket (|a|):| b c| This is"),
    ],
)
def test_an_own_task_is_three_lines(
    request: pytest.FixtureRequest, tmp_path: Path, architecture: str, text: str
):
    """Fields, labels and templates for both kinds of model follow from name, pattern and verbalizers."""
    model: LanguageModel = request.getfixturevalue(architecture)
    (tmp_path / "tickets.yaml").write_text(THREE_LINES)
    task = load_prompt_task(str(tmp_path / "tickets.yaml"))
    assert (task.fields, task.labels) == (("subject", "body"), ("okay", "bad"))
    renderer = bind_task(
        task, model.tokenizer, is_seq2seq=model.is_seq2seq, max_tokens=99, released_words=False,
        released_truncation=False,
    )  # fmt: skip
    example = renderer.example({"subject": "a", "body": "b c", "label": 1})
    encode = model.tokenizer.encode
    pieces = text.split(" | ") if model.is_seq2seq else text.split("|")
    assert example.input_ids == tuple(i for p in pieces for i in encode(p, add_special_tokens=False))
    assert example.target_ids[-1] == renderer.label_ids[1]


def test_a_pattern_that_a_decoder_only_model_cannot_answer_is_refused(gpt2: LanguageModel, tmp_path: Path):
    """Rte's published patterns 1 to 3 answer before the premise; pattern 4 ends with the answer."""

    def bind(name: str, pattern: int = 0) -> TaskRenderer:
        return bind_task(
            load_prompt_task(name, pattern), gpt2.tokenizer, is_seq2seq=False, max_tokens=99, released_words=False,
            released_truncation=False,
        )  # fmt: skip

    row = {"premise": "it rains.", "hypothesis": "wet.", "label": 0}
    assert bind("rte", 4).example(row).input_ids != bind("rte").example(row).input_ids
    for pattern in (1, 2, 3):
        with pytest.raises(
            ConfigError,
            match=f"tuning.pattern: pattern {pattern} of task rte has no template for a decoder-only",
        ):
            bind("rte", pattern)
    (tmp_path / "own.yaml").write_text("name: own\npattern: '{a}? {answer}, {b}'\nverbalizers: [okay, bad]\n")
    with pytest.raises(ConfigError, match="pattern 0 of task own has no template for a decoder-only"):
        bind(str(tmp_path / "own.yaml"))


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("pattern: '{text} It was {answer}.'\nverbalizers: [yes, yes]", "verbalizers holds 'yes' twice"),
        (
            "pattern: '{text} It was {answer}.'\nverbalizers: [no, yes]\nlabels: [a, a]",
            "labels holds 'a' twice",
        ),
        ("pattern: '{text} This is it.'\nverbalizers: [no, yes]", r"has no \{answer\}"),
    ],
)
def test_labels_that_cannot_be_told_apart_and_a_pattern_without_an_answer_are_refused(
    tmp_path: Path, lines: str, problem: str
) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        f"name: own\n{lines}\n".replace("[yes, yes]", '["yes", "yes"]').replace("[no, yes]", '["no", "yes"]')
    )
    with pytest.raises(DataError, match=problem):
        load_prompt_task(str(path))
