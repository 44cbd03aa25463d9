"""Every key of the config with what it takes, its default and what it is; `metashot --help-keys [group]` prints it."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from functools import lru_cache
from typing import Annotated, Any, cast, get_args, get_origin

import yaml

from metashot.base.components.binding import PARTIAL, TARGET, signature, types_of
from metashot.base.components.choices import CONFIG_FOLDER, choice_names, choice_node
from metashot.base.components.documentation import documented, in_words, meanings, summary
from metashot.base.components.targets import import_target
from metashot.base.errors import ConfigError, suggestion
from metashot.engine.metrics.rules import CALIBRATIONS, NORMALIZATIONS, Calibration, Normalization
from metashot.metaprompt.prompt_starts import STARTS, PromptStart
from metashot.stages.run_config import RunConfig

_WIDTH = 100
_UNSET = "???"
_WHOLE_RUN = {
    "experiment": "Prepared experiments: files that choose and set whatever they need.",
    "debug": "Small runs that show whether an experiment holds together.",
}
"""Groups whose choices set keys of any node."""
_OWN = ("name", "title", "row")
"""Keys that every choice sets for itself."""
_REGISTERED = {Calibration: CALIBRATIONS, Normalization: NORMALIZATIONS, PromptStart: STARTS}
"""Kinds of objects that a key takes by name."""
_PYTHON = {"None": "null", "True": "true", "False": "false"}


@dataclass(frozen=True, slots=True)
class Key:
    """One key.

    Attributes:
        name: dotted, from the top of the config.
        takes: the values, in words.
        default: as YAML; empty where there is none.
        text: what it is.
        meanings: of named values, where each has one.
        optional: whether it stands below a node that is null unless the user gives it.
    """

    name: str
    takes: str
    default: str
    text: str
    meanings: Mapping[str, str]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """What one class or function of a group takes.

    Attributes:
        name: of the class.
        text: what it is.
        keys: in the order of its declaration.
        choices: the files that make it.
    """

    name: str
    text: str
    keys: tuple[Key, ...]
    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One file of a group.

    Attributes:
        name: as the command line writes it.
        text: its first comment.
        sets: what it sets otherwise than other choices, as `key=value`.
    """

    name: str
    text: str
    sets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """A folder of `conf`, or a node of `config.yaml`.

    Attributes:
        name: of the folder or node.
        text: what it is.
        default: the choice that is taken when none is named.
        choices: its files.
        kinds: what they make.
    """

    name: str
    text: str
    default: str
    choices: tuple[Choice, ...]
    kinds: tuple[Kind, ...]


@lru_cache(maxsize=1)
def main_config() -> tuple[Mapping[str, Any], Mapping[str, str]]:
    """The keys of `conf/config.yaml`, and the default choice of each group."""
    content: dict[str, Any] = yaml.safe_load((CONFIG_FOLDER / "config.yaml").read_text("utf-8"))
    chosen: dict[str, str] = {}
    for entry in content.pop("defaults"):
        if isinstance(entry, dict):
            for name, choice in cast(dict[str, Any], entry).items():
                if " " not in name:
                    chosen[name] = "null" if choice is None else str(choice)
    return content, chosen


def group_names() -> list[str]:
    """The groups of choices, in the order of `conf/config.yaml`."""
    return [name for name in main_config()[1] if name != "hydra"]


def plain_keys() -> tuple[Key, ...]:
    """The keys at the top of the config that are neither groups nor nodes."""
    values, groups = main_config()
    return tuple(
        key
        for key in _keys(RunConfig, [values], "")
        if "." not in key.name and key.name not in groups and key.name not in node_names()
    )


def node_names() -> list[str]:
    """The nodes at the top of the config that have keys but no choices."""
    values, groups = main_config()
    return [name for name, value in values.items() if name not in groups and isinstance(value, Mapping)]


@lru_cache
def group(name: str) -> Group:
    """A group or node by name.

    Raises:
        ConfigError: no such one.
    """
    values, groups = main_config()
    if name in node_names():
        kind = types_of(RunConfig)[name]
        return Group(name, documented(RunConfig)[name], "", (), (_kind(kind, {"": values[name]}, name),))
    if name not in groups:
        raise ConfigError("--help-keys", f"no group or node {name!r}", suggestion(name, topics()))
    if name in _WHOLE_RUN:
        choices = [Choice(choice, comment_of(name, choice), ()) for choice in choice_names(name)]
        return Group(name, _WHOLE_RUN[name], groups[name], tuple(choices), ())
    nodes = {choice: dict(_node(name, choice)) for choice in _default_first(name, groups[name])}
    kinds = _kinds(name, nodes)
    choices: list[Choice] = []
    for kind in kinds:
        common = {key.name: key.default for key in kind.keys}
        for choice in kind.choices:
            sets = tuple(_differing(nodes[choice], common, name))
            choices.append(Choice(choice, comment_of(name, choice), sets))
    choices.sort(key=lambda choice: choice.name)
    return Group(name, documented(RunConfig)[name], groups[name], tuple(choices), kinds)


def topics() -> list[str]:
    """What `--help-keys` may be asked for."""
    return [*group_names(), *node_names()]


def comment_of(name: str, choice: str) -> str:
    """The comment at the top of a choice's file, on one line."""
    lines: list[str] = []
    for line in (CONFIG_FOLDER / name / f"{choice}.yaml").read_text("utf-8").splitlines():
        if not line.startswith("#"):
            break
        if "@package" not in line:
            lines.append(line.removeprefix("#").strip())
    return " ".join(lines)


def help_keys(topic: str | None) -> str:
    """What `--help-keys` prints: a commented config of a group or node, or of the top.

    Raises:
        ConfigError: no such group or node.
    """
    if topic is None:
        keys = "\n".join(_commented(key, key.name) for key in plain_keys())
        return f"{keys}\n\n# Further keys: --help-keys <name>, with one of {', '.join(topics())}"
    found = group(topic)
    lines = [_comment(found.text)]
    if found.choices:
        lines += [_comment(f"{topic}={one.name}: {one.text}") for one in found.choices]
    for kind in found.kinds:
        made_by = f" (of {topic}={', '.join(kind.choices)})" if len(found.kinds) > 1 else ""
        lines += ["", _comment(f"{kind.name}{made_by}: {kind.text}"), f"{topic}:", *_tree(kind.keys, topic)]
    return "\n".join(lines)


def _default_first(name: str, default: str) -> list[str]:
    return sorted(choice_names(name), key=lambda choice: choice != default)


def _node(name: str, choice: str) -> Mapping[str, Any]:
    """The node of a choice; a file of `@package _global_` has it below its group."""
    node = choice_node(name, choice)
    return node[name] if name in node and TARGET not in node else node


def _kinds(name: str, nodes: Mapping[str, Mapping[str, Any]]) -> tuple[Kind, ...]:
    by_target: dict[Any, dict[str, Mapping[str, Any]]] = {}
    for choice, node in nodes.items():
        target = (
            import_target(str(node[TARGET]), name)
            if TARGET in node
            else _without_none(types_of(RunConfig)[name])
        )
        by_target.setdefault(target, {})[choice] = node
    return tuple(_kind(target, made, name) for target, made in by_target.items())


def _kind(target: Any, nodes: Mapping[str, Any], where: str) -> Kind:
    default = nodes.get(main_config()[1].get(where, ""))
    keys = tuple(_keys(target, list(nodes.values()) if default is None else [default], where))
    return Kind(target.__name__, summary(target), keys, tuple(filter(None, nodes)))


def _keys(target: Any, nodes: Sequence[Any], where: str) -> Iterator[Key]:
    """The keys of a class or function, those of nested dataclasses below them.

    Args:
        target: what takes them.
        nodes: nodes that make one.
        where: dotted name of the node.
    """
    texts, kinds = documented(target), types_of(target)
    waits = any(PARTIAL in node for node in nodes)
    for name, parameter in signature(target).items():
        if waits and parameter.default is parameter.empty:  # the code gives it
            continue
        dotted = f"{where}.{name}" if where else name
        kind, text = kinds.get(name, Any), _for_users(texts.get(name, ""))
        given = [node[name] for node in nodes if name in node]
        default = _agreed(given) if given else _as_yaml(_default(target, name, parameter))
        nested: Any = _without_none(kind)
        own = inspect.isclass(nested) and is_dataclass(nested)
        if nested in _REGISTERED:
            rules = {rule: one.title for rule, one in _REGISTERED[nested].items()}
            yield Key(dotted, " | ".join(rules), default, text, rules)
        elif own and default.endswith(f".{nested.__name__}"):
            yield Key(dotted, f"the keys of {nested.__name__}", "", text, {})
        elif own and not inspect.isabstract(nested):
            nodes_below = [value for value in given if value is not None]
            yield Key(dotted, "keys of its own", "" if nodes_below else default, text, {})
            for key in _keys(nested, nodes_below, dotted):
                yield key if nodes_below else replace(key, optional=True)
        else:
            yield Key(dotted, in_words(kind), default, text, meanings(kind))


def _for_users(text: str) -> str:
    """Values as YAML writes them."""
    return re.sub(r"\b(None|True|False)\b", lambda match: _PYTHON[match[1]], text)


def _agreed(values: Sequence[Any]) -> str:
    """The value that all nodes give; empty where they differ."""
    texts = set(map(_as_yaml, values))
    return texts.pop() if len(texts) == 1 else ""


def _default(target: Any, name: str, parameter: inspect.Parameter) -> Any:
    if inspect.isclass(target) and is_dataclass(target):
        (field,) = [field for field in fields(target) if field.name == name]
        if field.default_factory is not MISSING:
            return _plain(field.default_factory())
    return MISSING if parameter.default is parameter.empty else _plain(parameter.default)


def _plain(value: Any) -> Any:
    """A default as the config would write it; a component's has no short form."""
    if isinstance(value, tuple):
        return [_plain(item) for item in cast(tuple[Any, ...], value)]
    if isinstance(value, str | int | float | list | dict) or value is None:
        return getattr(value, "value", value)
    return getattr(value, "name", MISSING)


def _as_yaml(value: Any) -> str:
    if value is MISSING or value == _UNSET:
        return ""
    if isinstance(value, Mapping) and TARGET in value:
        return str(cast(Mapping[str, Any], value)[TARGET])
    if "\\n" in repr(value):
        return json.dumps(value, ensure_ascii=False)
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def _differing(node: Mapping[str, Any], common: Mapping[str, str], where: str) -> Iterator[str]:
    for name, value in node.items():
        dotted = f"{where}.{name}"
        if name in (TARGET, PARTIAL, *_OWN):
            continue
        if isinstance(value, Mapping) and TARGET not in value:
            yield from _differing(cast(Mapping[str, Any], value), common, dotted)
        elif common.get(dotted) != _as_yaml(value) and _as_yaml(value):
            yield f"{dotted}={_as_yaml(value)}"


def _without_none(kind: Any) -> Any:
    if get_origin(kind) is Annotated:
        return _without_none(get_args(kind)[0])
    parts = [part for part in get_args(kind) if part is not type(None)]
    return parts[0] if len(parts) == 1 and type(None) in get_args(kind) else kind


def _tree(keys: Sequence[Key], topic: str) -> Iterator[str]:
    for key in keys:
        below = key.name.removeprefix(f"{topic}.")
        yield textwrap.indent(_commented(key, below.rpartition(".")[2]), "  " * (1 + below.count(".")))


def _commented(key: Key, name: str) -> str:
    lines = [_comment(f"{key.text} ({key.takes})".strip())]
    lines += [_comment(f"  {value}: {text}") for value, text in key.meanings.items()]
    return "\n".join([*lines, f"{'# ' if key.optional else ''}{name}: {key.default}".rstrip()])


def _comment(text: str) -> str:
    start = re.match(r" *", text)
    indent = " " * (2 if start and start.end() else 0)
    return textwrap.fill(
        text.strip(), _WIDTH, initial_indent=f"# {indent}", subsequent_indent=f"# {indent}", break_on_hyphens=False,
        break_long_words=False,
    )  # fmt: skip
