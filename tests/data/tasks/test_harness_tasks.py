"""lm-evaluation-harness tasks as examples: conversion, the k-shot draw, and every refusal in one line."""

from __future__ import annotations

import json
import random
from dataclasses import fields
from importlib.metadata import version
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


def plain(document: Example) -> Example:
    """A document without what its task reads of it."""
    return Example(*(getattr(document, field.name) for field in fields(Example)))


def test_documents_become_examples_with_options_and_the_tasks_own_wording(tasks):
    source = tasks(description="Answer the questions.\n\n")
    data = source.load("mini", k=2, seed=100)
    assert plain(data.test[1]) == Example("mini", "Question: test 1?\nAnswer:", "two words", tuple(CHOICES))
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
    assert [*map(plain, data.test)] == [Example("mini", "q", "Paris", references=("paris, France",))]


ONLY_BY_TASK = [
    ({"output_type": "loglikelihood_rolling", "doc_to_choice": None}, "is a loglikelihood_rolling task"),
    ({"rows": [GOOD, GOOD | {"answer": 7}]}, "has the answer 7, of 3 choices (document 1)"),
    ({"rows": [GOOD, GOOD | {"choices": []}]}, "has no choices (document 1)"),
    ({"doc_to_target": "four"}, "has the answer 'four', of 3 choices (document 0)"),
    ({"doc_to_target": "{{[0, 1]}}"}, "has several right answers: [0, 1] (document 0)"),
    ({"doc_to_choice": ["yes", "yes"]}, "has a choice twice: ['yes', 'yes'] (document 0)"),
    ({"gen_prefix": "It is"}, "puts words in front of every answer (gen_prefix)"),
    ({"description": "About {{question}}.\n"}, "has a description that differs between documents"),
    ({"description": "question"}, "has a description that differs between documents"),
    (
        {"fewshot_config": {"target_delimiter": " = "}},
        "writes its demonstrations otherwise than its questions (fewshot_config)",
    ),
    ({"rows": [GOOD | {"question": "1"}] * 3, "doc_to_text": "{{question}}", "doc_to_target": "had helped."},
     "puts its choices into the input, with one common continuation (document 0)"),
    ({}, ""),
    ({"description": "Answer.\n"}, ""),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "why"), ONLY_BY_TASK)
def test_what_no_prompt_of_ours_can_hold_is_known_of_a_task(tasks, changes, why):
    assert tasks(**changes).load("mini", k=0, seed=100).only_by_task == why


def refusal(source: HarnessSource, name: str = "mini", k: int = 0) -> str:
    with pytest.raises(MetashotError) as caught:
        source.load(name, k=k, seed=100)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_loaded_is_said_in_one_line(tasks):
    source = tasks(dataset_path="nobody/has_this", dataset_kwargs=None)
    assert refusal(source).startswith("mini: cannot be loaded")
    assert refusal(tasks(), "mini@cloze") == (
        f"data.tasks: 'mini@cloze' asks for a format, which lm-eval {version('lm_eval')} does not have "
        "(name 'mini', or install a version that has task@format)"
    )
    assert refusal(tasks(unsafe_code=True)).startswith("mini: runs code that a model wrote")


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


def test_groups_and_tags_are_their_tasks(tasks, tmp_path):
    for name in ("first", "second"):
        tasks(name, tag="pair")
    group = "group: both\ntask: [{task: second, description: 'Say. '}, first]\naggregate_metric_list: [{metric: acc}]\n"
    (tmp_path / "tasks" / "both.yaml").write_text(group, encoding="utf-8")
    source = HarnessSource(["both"], tmp_path / "tasks")
    assert source.tasks() == ["second", "first"]
    assert source.load("second", k=0, seed=100).wording.instruction == "Say. "
    assert source.groups["both"].has_aggregation
    assert HarnessSource(["pair"], tmp_path / "tasks").tasks() == ["first", "second"]


def test_the_harness_chooses_as_its_sampler_does_with_its_seed(tasks, tmp_path):
    """lm-eval draws for one document after the other from one generator."""
    tasks()
    drawn = HarnessSource(["mini"], tmp_path / "tasks", "harness").load("mini", k=3, seed=100)
    generator = random.Random(1234)
    texts = [f"Question: train {place}?\nAnswer:" for place in range(12)]
    assert [[one.input for one in row] for row in drawn.neighbours] == [
        generator.sample(texts, 3) for _ in drawn.test
    ]
    other = HarnessSource(["mini"], tmp_path / "tasks", "harness", 7).load("mini", k=3, seed=100)
    assert other.neighbours != drawn.neighbours


def test_all_documents_can_share_what_the_sampler_chooses_once(tasks, tmp_path):
    tasks()
    shared = HarnessSource(["mini"], tmp_path / "tasks", "harness", same_demonstrations=True)
    data = shared.load("mini", k=3, seed=13)
    texts = [f"Question: train {place}?\nAnswer:" for place in range(12)]
    assert [one.input for one in data.demonstrations] == random.Random(1234).sample(texts, 3)
    assert not data.neighbours


@pytest.mark.parametrize("how", ["drawn", "harness"])
def test_no_document_stands_among_its_own_demonstrations(tasks, tmp_path, how):
    tasks(fewshot_split="test")
    for same in (False, True):
        found = HarnessSource(["mini"], tmp_path / "tasks", how, same_demonstrations=same)
        data = found.load("mini", k=3, seed=100)
        shown = data.neighbours or [data.demonstrations] * len(data.test)
        assert all(len(row) == 3 and one not in row for one, row in zip(data.test, shown, strict=True))


def test_a_task_that_is_never_shown_examples_stays_so(tasks):
    assert tasks(num_fewshot=0).load("mini", k=3, seed=100).shots == 0


def test_no_names_and_no_folder_are_said(tmp_path):
    with pytest.raises(DataError, match=r"data\.tasks: is not set"):
        HarnessSource([])
    with pytest.raises(DataError, match=r"data\.include_path: no folder"):
        HarnessSource(["mini"], tmp_path / "nowhere")
