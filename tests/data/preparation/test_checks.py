"""Checks on data: figures of small lists worked out by hand, and leakage found by a slow reference too."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from metashot.base.errors import DataError
from metashot.data.preparation.checks import check_setting, check_task
from metashot.data.preparation.leakage import overlaps
from metashot.data.settings import Setting
from metashot.data.task import Example


def examples(task: str, *texts: str, output: str = "a") -> list[Example]:
    return [Example(task, text, output, ("a", "b")) for text in texts]


def test_figures_of_a_small_task() -> None:
    rows = [
        Example("t", "one two three", "a", ("a", "b")),
        Example("t", "one two three", "a", ("a", "b")),
        Example("t", "one two three", "b", ("a", "b")),
        Example("t", "one", "c", ("a", "b")),
    ]
    check = check_task("t", rows)
    assert (check.n, check.duplicates, check.conflicts, check.outside_options) == (4, 1, 1, 1)
    assert check.labels == (("a", 2), ("b", 1), ("c", 1))
    assert check.majority_share == 0.5
    assert (check.input.mean, check.input.median, check.input.largest) == (2.5, 3.0, 3)
    assert (check.output.mean, check.output.p95) == (1.0, 1.0)


def test_free_form_tasks_have_no_labels() -> None:
    check = check_task("t", [Example("t", "x", "y"), Example("t", "z", "w")])
    assert check.labels == ()
    assert check.majority_share == 0.0
    with pytest.raises(DataError, match="t: has no examples"):
        check_task("t", [])


def test_equal_inputs_are_found_up_to_case_and_blanks() -> None:
    (found,) = overlaps(
        {"source": examples("source", "The  CAT sat", "other")},
        {"target": examples("target", "the cat sat", "a dog")},
    )
    assert (found.n, found.exact, found.ngram) == (2, 1, 0)
    assert found.sources == (("source", 1),)


def test_long_common_sequences_are_found_inside_other_text() -> None:
    shared = " ".join(f"w{i}" for i in range(13))
    train = {
        "one": examples("one", f"before {shared} after"),
        "two": examples("two", shared.rsplit(" ", 1)[0]),
    }
    (found,) = overlaps(train, {"target": examples("target", f"{shared} tail", "nothing")})
    assert (found.exact, found.ngram, found.sources) == (0, 1, (("one", 1),))


WORDS = st.lists(st.sampled_from("abc"), min_size=0, max_size=8).map(" ".join)


@given(train=st.lists(WORDS, max_size=5), test=st.lists(WORDS, max_size=5))
def test_overlap_equals_a_plain_search(train: list[str], test: list[str]) -> None:
    def sequences(text: str) -> set[tuple[str, ...]]:
        words = text.split()
        return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}

    (found,) = overlaps({"s": examples("s", *train)}, {"t": examples("t", *test)}, n=3)
    seen = {sequence for text in train for sequence in sequences(text)}
    assert found.exact == sum(text in train for text in test)
    assert found.ngram == sum(bool(sequences(text) & seen) for text in test)


def test_a_setting_is_checked_from_its_folder(tmp_path: Path) -> None:
    files = {"source_16384_100_train": ["shared", "x"], "target_16_100_test": ["shared", "y", "z"]}
    for name, texts in files.items():
        path = tmp_path / name.split("_")[0] / f"{name}.jsonl"
        path.parent.mkdir()
        path.write_text(
            "".join(
                json.dumps({"task": "t", "input": text, "output": "a", "options": ["a", "b"]}) + "\n"
                for text in texts
            )
        )
    check = check_setting(tmp_path, Setting("mine", ["source", "gone", "target"], ["target"], []))
    assert [one.task for one in check.train] == ["source"]
    assert check.missing == ("gone/gone_16384_100_train.jsonl", "target/target_16384_100_train.jsonl")
    assert check.published_overlap == ("target",)
    assert check.leakage[0].exact == 1
    console = Console(record=True, width=160)
    console.print(check.tables())
    text = console.export_text()
    assert "in training and target lists, as published: target" in text
    assert "2 files missing" in text
