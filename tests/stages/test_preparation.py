"""The data stages: config in, files and verdicts out."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from metashot.base.components.binding import bind, make
from metashot.base.errors import DataError, MetashotError
from metashot.data.preparation.prepare import PrepareConfig
from metashot.data.tasks.modules import DemoData, HubData
from metashot.stages.context import RunContext
from metashot.stages.preparation import (
    doctor_stage,
    prepare_settings,
    prepare_stage,
    recipe_stage,
    show_data_checks,
)
from metashot.stages.run_config import SettingChoice

RECIPE = """\
name: {name}
about: A task for this test.
task_type: classification
ontology: none
source:
  files: {{train: {name}.csv, test: {name}.csv}}
splits: {{train: train, test: test}}
fields: {{text: text, label: number}}
kind: labelled
input: "{{text}}"
label: label
labels: {{0: bad, 1: good}}
options: [bad, good]
"""


def config(tmp_path: Path, **changes: Any) -> Any:
    prepare: dict[str, Any] = {
        "roles": ["train", "test"],
        "only": [],
        "k": 2,
        "seeds": [100, 13],
        "pool_k": 16384,
        "pool_seeds": [100],
        "workers": 1,
        "source": "recipes",
        "prepared": "allenai/metaicl-data",
        "cache": str(tmp_path / "cache"),
        "online": False,
        "timeout_seconds": 1,
        "promptsource": None,
        "force": False,
    }
    data = HubData(str(tmp_path / "out"), recipe_path=(str(tmp_path),))
    setting = SettingChoice(str(tmp_path / "mine.yaml"))
    node = make(bind(PrepareConfig, prepare | changes, "prepare"))
    return SimpleNamespace(prepare=node, data=data, setting=setting)


def context(tmp_path: Path, values: Any) -> tuple[RunContext, Console]:
    console = Console(record=True, width=200, quiet=False)
    run = RunContext(values, tmp_path / "run", console, cast(Any, None), cast(Any, None))
    return run, console


@pytest.fixture(autouse=True)
def tasks(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / f"{name}.yaml").write_text(RECIPE.format(name=name))
        rows = [f"{name} {i},{i % 2}" for i in range(8)]
        (tmp_path / f"{name}.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    (tmp_path / "mine.yaml").write_text("train: [first]\ntest: [second, piqa]\n")


def test_prepare_then_doctor_then_checks(tmp_path: Path) -> None:
    run, console = context(tmp_path, config(tmp_path))
    prepare_stage(run)
    text = console.export_text(clear=False)
    assert "2 ok, 0 skipped, 1 failed" in text
    assert '"status": "failed"' in (run.output / "prepare.json").read_text()
    with pytest.raises(DataError, match=r"4 faults in 9 files \(run stage=prepare"):
        doctor_stage(run)
    (tmp_path / "mine.yaml").write_text("train: [first]\ntest: [second]\n")
    doctor_stage(run)
    show_data_checks(run)
    text = console.export_text()
    assert "5 files, all whole" in text
    assert "meta-training tasks" in text


def test_nothing_at_all_is_an_error(tmp_path: Path) -> None:
    run, _ = context(tmp_path, config(tmp_path, only=["piqa"]))
    with pytest.raises(DataError, match="none of 1 tasks could be prepared"):
        prepare_stage(run)


def test_without_a_setting_data_tasks_are_prepared(tmp_path: Path) -> None:
    values = config(tmp_path)
    values.setting, values.data = None, replace(values.data, tasks=["second"])
    assert prepare_settings(values).setting.test == ["second"]
    values.data = replace(values.data, tasks=None)
    with pytest.raises(MetashotError, match="setting: is not set"):
        prepare_settings(values)


def test_wrong_keys_are_named(tmp_path: Path) -> None:
    with pytest.raises(MetashotError, match=r"prepare\.rolse: unknown key"):
        config(tmp_path, rolse=[])
    with pytest.raises(MetashotError, match=r"prepare\.workers"):
        config(tmp_path, workers="many")
    values = config(tmp_path)
    values.data = DemoData()
    with pytest.raises(MetashotError, match=r"data\.root: is not set"):
        prepare_settings(values)


def test_a_recipe_is_written_tried_and_the_next_commands_are_printed(tmp_path: Path) -> None:
    (tmp_path / "calls.csv").write_text("text,label\n" + "".join(f"call {n},{n % 2}\n" for n in range(20)))
    run, console = context(tmp_path, config(tmp_path, file=str(tmp_path / "calls.csv")))
    recipe_stage(run)
    text = console.export_text()
    assert "label" in text
    assert "input:   'call 0'" in text
    assert f"setting.name={tmp_path / 'calls_setting.yaml'} prepare.k=8" in text
    assert "'data.tasks=[calls]' k=8" in text
    with pytest.raises(MetashotError, match=r"prepare\.file: is not set"):
        recipe_stage(context(tmp_path, config(tmp_path))[0])


def test_a_preparation_ends_with_the_card_of_each_own_task(tmp_path: Path) -> None:
    (tmp_path / "calls.csv").write_text("text,label\n" + "".join(f"call {n},{n % 2}\n" for n in range(20)))
    (tmp_path / "calls.yaml").write_text(RECIPE.format(name="calls"))
    (tmp_path / "mine.yaml").write_text("test: [calls]\n")
    for _ in range(2):  # what is prepared already has its card too
        run, console = context(tmp_path, config(tmp_path))
        prepare_stage(run)
        text = console.export_text()
        assert "data card: calls" in text
        assert "10 (50%)" in text
