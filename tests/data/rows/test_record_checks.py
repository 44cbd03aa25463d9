"""What is asked of prepared records, and remedies that work as they are printed."""

import json
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from metashot.base.errors import DataError
from metashot.data.rows.record_checks import type_override
from metashot.data.task import TaskType
from metashot.data.tasks.source import JsonlSource
from metashot.stages.command_line import with_new_keys

TYPED = [
    "plain",
    "with-dash_1",
    "inst:x",
    "two words",
    "a=b",
    "a{b}",
    "a,b",
    "back\\slash",
    "x[1]",
    "f(y)",
    "a.b/c",
]
IN_A_FILE = ["007", "it's", 'say "x"', "naïve", "a#b", "semi;colon", "{brace}"]


@pytest.mark.parametrize("name", TYPED)
def test_the_printed_override_names_the_task_as_it_is_called(name: str, repository: Path) -> None:
    """Read as a shell and Hydra read it, the remedy sets the type of this task and of no other."""
    arguments = with_new_keys(shlex.split(type_override(name, TaskType.MULTI_CHOICE)))
    with initialize_config_dir(str(repository / "conf"), version_base="1.3"):
        config = compose("config", ["data=jsonl", "data.root=x", *arguments])
    assert OmegaConf.to_container(config.data.task_types) == {name: "multi-choice"}


@pytest.mark.parametrize("name", IN_A_FILE)
def test_a_name_that_no_argument_can_hold_is_declared_in_a_file(name: str) -> None:
    """Hydra's grammar has no escape for quotes and most signs, so the remedy is YAML."""
    yaml = type_override(name, TaskType.MULTI_CHOICE).removesuffix(" in an experiment's file")
    assert OmegaConf.to_container(OmegaConf.create(yaml)) == {"data": {"task_types": {name: "multi-choice"}}}


def write(folder: Path, test: list[dict]) -> JsonlSource:
    (folder / "t").mkdir()
    for split, rows in (("train", test[:2]), ("test", test)):
        (folder / "t" / f"t_2_100_{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return JsonlSource(folder)


def record(*options: str) -> dict:
    return {"task": "t", "input": "x", "output": options[0], "options": list(options)}


def test_a_few_options_that_differ_are_named_with_the_override_that_allows_them(tmp_path: Path) -> None:
    source = write(tmp_path, [record("a", "b")] * 4 + [record("a", "c")])
    with pytest.raises(
        DataError, match=r"t_2_100_test.jsonl:5: labels \['a', 'c'\] differ .* data.task_types.t=multi-"
    ):
        source.load("t", k=2, seed=100)
    declared = JsonlSource(tmp_path, {"t": "multi-choice"}).load("t", k=2, seed=100)
    assert declared.task_type is TaskType.MULTI_CHOICE
    assert not any("taken for" in note for note in declared.notes)


def test_a_judged_type_is_said_with_the_override_that_changes_it(tmp_path: Path) -> None:
    data = write(tmp_path, [record("a", "b")] * 4).load("t", k=2, seed=100)
    assert data.task_type is TaskType.CLASSIFICATION
    assert any("data.task_types.t=multi-choice scores it by accuracy" in note for note in data.notes)


def test_an_unknown_type_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"data.task_types.t: no type is called 'multi_choice' \(did you mean"
    ):
        JsonlSource(tmp_path, {"t": "multi_choice"})
