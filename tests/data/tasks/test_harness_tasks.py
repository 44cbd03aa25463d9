"""lm-evaluation-harness tasks as examples: conversion, the k-shot draw, and every refusal in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

pytest.importorskip("lm_eval")

from metashot.base.errors import DataError, MetashotError
from metashot.data.kshot import k_shot_split
from metashot.data.task import Example, TaskType, Wording
from metashot.data.tasks.harness_tasks import HarnessSource

CHOICES = ["one", "two words", "three"]
GOOD = {"question": "q", "choices": CHOICES, "answer": 1}


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes a task's YAML over local rows, and opens it."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def write(name: str = "mini", rows: list[dict] | None = None, **changes: object) -> HarnessSource:
        files = {}
        for split, count in (("train", 12), ("test", 4)):
            path = tmp_path / f"{name}_{split}.jsonl"
            own = rows or [
                {"question": f"{split} {place}?", "choices": CHOICES, "answer": place % 3}
                for place in range(count)
            ]
            path.write_text("".join(json.dumps(row) + "\n" for row in own), encoding="utf-8")
            files[split] = str(path)
        config = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": files},
            "training_split": "train",
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "Question: {{question}}\nAnswer:",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "{{answer}}",
            "metric_list": [{"metric": "acc"}],
        } | changes
        folder = tmp_path / "tasks"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.yaml").write_text(
            yaml.safe_dump({key: value for key, value in config.items() if value is not None}),
            encoding="utf-8",
        )
        return HarnessSource([name], folder)

    return write


def test_documents_become_examples_with_options_and_the_tasks_own_wording(tasks):
    source = tasks(description="Answer the questions.\n\n")
    data = source.load("mini", k=2, seed=100)
    assert data.test[1] == Example("mini", "Question: test 1?\nAnswer:", "two words", tuple(CHOICES))
    assert [example.input for example in data.demonstrations] == [
        f"Question: train {place}?\nAnswer:" for place in k_shot_split(12, k=2, seed=100).train
    ]
    assert data.wording == Wording("Answer the questions.\n\n", " ", "\n\n")
    assert data.task_type is TaskType.MULTI_CHOICE


def test_a_generation_task_is_free_form_and_keeps_every_answer(tasks):
    rows = [{"question": "q", "answers": ["Paris", "paris, France"]}]
    source = tasks(
        rows=rows, output_type="generate_until", doc_to_choice=None, doc_to_target="{{answers}}",
        doc_to_text="{{question}}", generation_kwargs={"until": ["\n"]}, metric_list=[{"metric": "exact_match"}],
    )  # fmt: skip
    data = source.load("mini", k=0, seed=100)
    assert data.task_type is TaskType.FREE_FORM
    assert data.test == (Example("mini", "q", "Paris", references=("paris, France",)),)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"output_type": "loglikelihood_rolling", "doc_to_choice": None},
            "mini: is a loglikelihood_rolling task",
        ),
        ({"rows": [GOOD, GOOD | {"answer": 7}]}, "document 1: has the answer 7, of 3 choices"),
        ({"rows": [GOOD, GOOD | {"choices": []}]}, "document 1: has no choices"),
        ({"doc_to_target": "four"}, "'four', which is no choice"),
        ({"dataset_path": "nobody/has_this", "dataset_kwargs": None}, "mini: cannot be loaded"),
    ],
)
def test_what_cannot_be_converted_is_said_in_one_line(tasks, changes, words):
    with pytest.raises(DataError) as caught:
        tasks(**changes).load("mini", k=0, seed=100)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def refusal(source: HarnessSource, name: str = "mini") -> str:
    with pytest.raises(MetashotError) as caught:
        source.load(name, k=0, seed=100)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_task_with_its_choices_in_the_input_is_refused(tasks):
    """As winogrande is written: the text is a number, the choices are inputs, the target is their continuation."""
    row = {
        "question": "1",
        "choices": ["Ann thanked Eve because Ann", "Ann thanked Eve because Eve"],
        "answer": "had helped.",
    }
    said = refusal(tasks(rows=[row] * 3, doc_to_text="{{question}}"))
    assert said == (
        "mini: puts its choices into the input, with one common continuation (leave it out of data.tasks)"
    )


UNREACHABLE = [
    (
        "Dataset 'org/set' is a gated dataset on the Hub. You must be authenticated to access it.",
        "ask for access on the hub, then log in: hf auth login",
    ),
    (
        "Couldn't reach 'org/set' on the Hub (OfflineModeIsEnabled)",
        "load it once where the hub can be reached, with the same HF_HOME",
    ),
    (
        "Dataset scripts are no longer supported, but found set.py",
        "look at the task's YAML file and its data",
    ),
]


@pytest.mark.parametrize(("message", "remedy"), UNREACHABLE)
def test_a_set_that_cannot_be_had_says_the_way_out(tasks, monkeypatch, message, remedy):
    import datasets

    def fails(*_: object, **__: object) -> None:
        raise datasets.exceptions.DatasetNotFoundError(message + "\nmore of it")

    monkeypatch.setattr(datasets, "load_dataset", fails)
    said = refusal(tasks())
    assert said.startswith(f"mini: cannot be loaded: DatasetNotFoundError: {message} more of it")
    assert said.endswith(f"({remedy})")


def test_offline_a_set_that_is_not_here_says_the_way_out(tasks, monkeypatch):
    import datasets
    import huggingface_hub

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    said = refusal(tasks(dataset_path="org/not_here", dataset_kwargs=None))
    assert "mini: cannot be loaded" in said
    assert said.endswith("(load it once where the hub can be reached, with the same HF_HOME)")


def test_another_version_of_the_harness_is_said(monkeypatch, tmp_path):
    import sys
    from types import ModuleType

    monkeypatch.setitem(sys.modules, "lm_eval.tasks", ModuleType("lm_eval.tasks"))
    said = refusal(HarnessSource(["mini"], tmp_path))
    assert said.startswith(
        "data: needs the package lm-eval, which cannot be imported (cannot import name 'TaskManager'"
    )
    assert said.endswith("(pip install 'metashot[harness]')")


def test_without_a_split_to_draw_from_only_zero_shot_works(tasks):
    source = tasks(training_split=None)
    assert len(source.load("mini", k=0, seed=100).test) == 4
    with pytest.raises(DataError, match=r"has 0 examples to draw demonstrations from, k=1 asked \(set k=0"):
        source.load("mini", k=1, seed=100)


def test_a_group_names_its_members(tasks, tmp_path):
    tasks("first")
    tasks("second")
    (tmp_path / "tasks" / "both.yaml").write_text("group: both\ntask: [first, second]\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"'both' is a group of 2 tasks \(name its members: first, second\)"):
        HarnessSource(["both"], tmp_path / "tasks").load("both", k=0, seed=100)


def test_no_names_and_no_folder_are_said(tmp_path):
    with pytest.raises(DataError, match=r"data\.tasks: is not set"):
        HarnessSource([])
    with pytest.raises(DataError, match=r"data\.include_path: no folder"):
        HarnessSource(["mini"], tmp_path / "nowhere")
