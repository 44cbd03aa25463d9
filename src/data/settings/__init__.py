"""Which tasks train and which are tested: the ten published settings and the two diversity lists.

Source: the released config files (`config/*.json`); diversity lists: MetaICL paper, Table 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from metashot.base.errors import DataError, suggestion
from metashot.base.yaml_files import YamlFile, read_yaml

_KEYS = ("name", "title", "train", "test", "unseen_domain_test")


@dataclass(frozen=True, slots=True)
class Setting:
    """A meta-training and a target task list.

    Attributes:
        name: `hr_to_lr` and so on.
        train: meta-training tasks, in the order in which their files are concatenated.
        test: target tasks, in the order in which they are scored.
        unseen_domain_test: the targets whose domain no training task covers.
        title: one line for tables and reports.
    """

    name: str
    train: list[str]
    test: list[str]
    unseen_domain_test: list[str]
    title: str = ""


def setting_names() -> list[str]:
    """The ten published settings."""
    return [name for name in sorted(_shipped()) if name not in diversity_names()]


def diversity_names() -> list[str]:
    """The two 13-task training lists of the diversity ablation, which share the targets of hr_to_lr."""
    return ["hr_to_lr_diverse", "hr_to_lr_not_diverse"]


def load_setting(name: str) -> Setting:
    """Load a setting by name, or from a YAML file of your own (`load_setting("my/setting.yaml")`).

    Raises:
        DataError: no such setting, or the file breaks the format.
    """
    if name.endswith((".yaml", ".yml")):
        return _parse(read_yaml(Path(name)))
    shipped = _shipped()
    if name not in shipped:
        raise DataError("setting", f'no setting is called "{name}"', suggestion(name, shipped))
    return _parse(read_yaml(shipped[name]))


def published_overlap(setting: Setting) -> list[str]:
    """Tasks that a setting both trains on and tests on, although the paper promises none.

    Of the published settings only non_nli_to_nli has one: sick (docs/methods.md, settings).
    An instruction variant counts as its plain task.
    """
    trained = {base_task(task) for task in setting.train}
    return [task for task in setting.test if base_task(task) in trained]


def base_task(task: str) -> str:
    """`wiki_qa` for `wiki_qa`, `inst:wiki_qa` and `inst:wiki_qa:Decide-good-answer`."""
    return task.split(":", 2)[1] if task.startswith("inst:") else task


@cache
def _shipped() -> dict[str, Path]:
    folder = Path(str(files("metashot.data.settings") / "definitions"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _parse(file: YamlFile) -> Setting:
    for key in file.content:
        if key not in _KEYS:
            raise DataError(file.where(key), f'unknown key "{key}"', suggestion(key, _KEYS))
    setting = Setting(
        name=str(file.content.get("name", file.path.stem)),
        train=_task_list(file, "train"),
        test=_task_list(file, "test"),
        unseen_domain_test=_task_list(file, "unseen_domain_test"),
        title=str(file.content.get("title", "")),
    )
    stray = [task for task in setting.unseen_domain_test if task not in setting.test]
    if stray:
        raise DataError(
            file.where("unseen_domain_test"), f'"{stray[0]}" is not a target', "add it to test as well"
        )
    return setting


def _task_list(file: YamlFile, key: str) -> list[str]:
    value: Any = file.content.get(key, [])
    if not isinstance(value, list) or not all(isinstance(task, str) for task in value):
        raise DataError(file.where(key), f"{key} must be a list of task names", "write one `- task` a line")
    repeated = sorted({task for task in value if value.count(task) > 1})
    if repeated:
        raise DataError(file.where(key), f'{key} names "{repeated[0]}" twice', "keep one of them")
    return list(value)
