"""Instruction variants of tasks: PromptSource templates, chosen and rendered as MetaICL did.

Sources: the released `preprocess/utils.py`, and PromptSource's `templates.py` at commit 4e67a38
(docs/methods.md, instructions). The templates themselves are the user's: a PromptSource checkout or package folder.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import BaseLoader
from jinja2.sandbox import SandboxedEnvironment

from metashot.base.errors import DataError, suggestion
from metashot.base.yaml_files import load_bounded
from metashot.data.recipes.rows import (
    Pair,
    Row,
    left_out,
    stopped,
)
from metashot.data.settings import base_task

TEXT_LIMIT = 2048
"""Characters to which every printed expression is cut (PromptSource's default)."""
SUBSETS = {
    "ai2_arc": "ARC-Challenge",
    "codah": "fold_0",
    "discovery": "discovery",
    "financial_phrasebank": "sentences_allagree",
    "openbookqa": "main",
    "paws": "labeled_final",
    "scitail": "snli_format",
    "swag": "regular",
    "tab_fact": "tab_fact",
}
"""PromptSource subset per task; tasks not named have none."""
DROPPED = {"circa": ("possible_qn", "question_declarative")}
_PREFERRED = ("multiple_choice", "most_correct", "most_suitable")
_PINNED = {"dream": "read_the_following_conversation_and_answer_the_question"}
_PROTECTED_BAR = "3ed2dface8203c4c9dfb1a5dc58e41e0"
_CHOICE_FILTER = re.compile(r"\|\s*choice\b")
_FIXED_OPTIONS = {"sick": ("entailment", "neutral", "contradiction")}


@dataclass(frozen=True, slots=True)
class Template:
    """One PromptSource template.

    Attributes:
        name: its name there.
        jinja: the text, with `|||` between input and output.
        answer_choices: text with `|||` between choices, itself a template; None if it has none.
    """

    name: str
    jinja: str
    answer_choices: str | None

    @property
    def draws_at_random(self) -> bool:
        """Whether rendering draws: the original did so unseeded, so such lines are not the published ones."""
        return _CHOICE_FILTER.search(self.jinja) is not None


def is_instruction(task: str) -> bool:
    """Whether a task name is an instruction variant."""
    return task.startswith("inst:")


def suffix_of(template_name: str) -> str:
    """The template's part of a training variant's name: blanks, slashes and underscores become hyphens."""
    return template_name.replace(" ", "-").replace("/", "-").replace("_", "-")


def read_templates(promptsource: Path, task: str) -> list[Template]:
    """Templates of a task's subset, sorted by name.

    Args:
        promptsource: a checkout, the package folder, or its `templates` folder.
        task: plain task name.

    Raises:
        DataError: no such folder or file, or the file breaks PromptSource's format.
    """
    path = _templates_folder(promptsource) / task / SUBSETS.get(task, "") / "templates.yaml"
    return list(_read(path))


def choose_template(task: str, templates: Sequence[Template]) -> Template:
    """The template behind `inst:<task>` or `inst:<task>:<suffix>`.

    Raises:
        DataError: no template fits.
    """
    plain = base_task(task)
    if task.count(":") > 1:
        suffix = task.split(":", 2)[2]
        usable = {suffix_of(one.name): one for one in templates if one.name not in DROPPED.get(plain, ())}
        if suffix not in usable:
            raise DataError("task", f'"{task}" names no template', suggestion(suffix, usable))
        return usable[suffix]
    names = [one.name for one in templates if "no_option" not in one.name]
    if plain in _PINNED:
        names = [_PINNED[plain]]
    for keyword in _PREFERRED:
        names = [name for name in names if keyword in name] or names
    chosen = next((one for one in templates if names and one.name == names[0]), None)
    if chosen is None:
        raise DataError("task", f'"{task}" has no usable template', "check prepare.promptsource")
    return chosen


class Renderer:
    """A template compiled once, for many rows.

    Args:
        template: what to render.
        task: setting name of the variant; decides the options of targets and seeds random draws.
    """

    def __init__(self, template: Template, task: str) -> None:
        self.task = task
        self._draw = random.Random(0)
        environment = _environment(lambda items: self._draw.choice(items))
        # Every printed expression is cut, in the output part too: PromptSource rewrites the closing braces.
        cut = template.jinja.replace("}}", f" | string | truncate({TEXT_LIMIT}) }}}}")
        self._text = environment.from_string(cut)
        self._choices = environment.from_string(template.answer_choices) if template.answer_choices else None

    def pair(self, row: Row, number: int) -> Pair:
        """Row `number` of its split as input and output; random draws depend on task and number only.

        Raises:
            Dropped: an empty rendering (a template with a condition), or not exactly two parts.
        """
        self._draw.seed(f"{self.task}/{number}")
        values = _protected(row)
        choices = self.answer_choices(row)
        if choices is not None:
            values["answer_choices"] = choices
        parts = _parts(self._text.render(**values))
        if parts == [""]:
            raise left_out("the template renders to nothing for this row")
        if len(parts) != 2:
            raise stopped("the template does not render to input and output")
        return Pair(*parts)

    def answer_choices(self, row: Row) -> list[str] | None:
        """The template's answer choices for a row, uncut; None if it has none."""
        return None if self._choices is None else _parts(self._choices.render(**_protected(row)))

    def options(self, row: Row) -> list[str]:
        """Options of a target row: the answer choices, or for three tasks without them the row's own.

        Raises:
            Dropped: there are none.
        """
        choices = self.answer_choices(row)
        if choices is None:
            plain = base_task(self.task)
            if plain == "commonsense_qa":
                choices = list(row["choices"]["text"])
            elif plain == "codah":
                choices = [answer.strip() for answer in row["candidate_answers"]]
            else:
                choices = list(_FIXED_OPTIONS.get(plain, ()))
        if not choices:
            raise stopped("no options")
        return choices


def _parts(rendered: str) -> list[str]:
    return [part.strip().replace(_PROTECTED_BAR, "|||") for part in rendered.split("|||")]


def _protected(row: Row) -> dict[str, Any]:
    return {
        key: value.replace("|||", _PROTECTED_BAR) if isinstance(value, str) else value
        for key, value in row.items()
    }


def _environment(choice: Callable[[Sequence[Any]], Any]) -> Any:
    environment: Any = SandboxedEnvironment(loader=BaseLoader())
    environment.globals["zip"] = zip
    environment.filters["choice"] = choice
    environment.filters["most_frequent"] = _most_frequent
    return environment


def _most_frequent(items: Sequence[Any]) -> list[Any]:
    counts = Counter(items).most_common()
    return [item for item, count in counts if count == counts[0][1]]


def _templates_folder(promptsource: Path) -> Path:
    root = promptsource.expanduser()
    for candidate in (root / "promptsource" / "templates", root / "templates", root):
        if (candidate / "ag_news").is_dir() or any(candidate.glob("*/templates.yaml")):
            return candidate
    raise DataError(
        "prepare.promptsource",
        f'"{promptsource}" holds no templates',
        "give a PromptSource checkout or package folder",
    )


class _Loader(yaml.SafeLoader):
    """Reads PromptSource's tagged objects as plain mappings."""


_Loader.add_multi_constructor("!Template", lambda loader, _, node: loader.construct_mapping(node, deep=True))


@lru_cache(maxsize=64)
def _read(path: Path) -> tuple[Template, ...]:
    try:
        _, content = load_bounded(path.read_text(encoding="utf-8"), _Loader)
        found: Iterable[Mapping[str, Any]] = content["templates"].values()
        templates = [Template(one["name"], one["jinja"], one.get("answer_choices")) for one in found]
    except FileNotFoundError:
        raise DataError(
            str(path), "no such template file", "give a PromptSource checkout with this task"
        ) from None
    except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(str(path), f"is no PromptSource file: {error}", "check out commit 4e67a38") from error
    return tuple(sorted(templates, key=lambda one: one.name))
