"""One line for each way in which Hydra and OmegaConf refuse a command line or a config."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from metashot.base.components.choices import CONFIG_FOLDER, choice_names
from metashot.base.errors import suggestion
from metashot.stages.command_line import program

GROUP_NULL = "Config group override must be"
SEARCH_PATH = "provider="
"""How Hydra's warning about a folder of configs that is not there begins."""
PLUGIN = ("Invalid plugin", "Unknown plugin class", "Could not instantiate plugin")
"""How Hydra refuses a launcher or sweeper that is no plugin."""
LAUNCHER_EXTRAS = {"joblib": "sweep", "submitit_local": "sweep", "submitit_slurm": "sweep", "ray": "ray"}
"""Choices of hydra/launcher that a plugin brings, and the extra that installs it."""


def explain(error: Exception) -> str:
    """One line for a composition error: the key, the fault, the way out."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        if group == "hydra/launcher" and choice in LAUNCHER_EXTRAS:
            extra = LAUNCHER_EXTRAS[choice]
            return f"{group}: {choice!r} is not installed (pip install 'metashot[{extra}]')"
        if not group:
            names = [path.stem for path in CONFIG_FOLDER.glob("*.yaml")]
            return f"--config-name: no config is called {choice!r} ({suggestion(choice, names)})"
        return f"{group}: no choice {choice!r} ({suggestion(choice, error.options or choice_names(group))})"
    cause = next((link for link in chain(error) if isinstance(link, OmegaConfBaseException)), None)
    if isinstance(error, OverrideParseException):
        return unparsed(error.override)
    if cause is None:
        return explain_text(" ".join(str(error).split()))
    if match := re.search(r"Missing mandatory value: ([\w.]+)", str(cause)):
        full = str(cause.full_key or "")
        name = full if full.endswith(match[1]) else match[1]
        return f"{name}: is not set (give {name}=<value>)"
    if match := re.search(r"Environment variable '([^']*)' not found", str(cause)):
        return (
            f"{cause.full_key or f'${{oc.env:{match[1]}}}'}: the environment variable {match[1]!r} is not set (set it, or write a value that serves "
            f"without it: ${{oc.env:{match[1]},<value>}})"
        )
    key = cause.full_key or str(cause.key)
    parent = cause.parent_node if cause.parent_node is not None else None
    known = [str(name) for name in parent] if isinstance(parent, DictConfig) else []
    fault = str(cause.msg or cause).split("\n")[0]
    if "is not in struct" in fault or re.fullmatch(r"Key '.*' not in '\w+'", fault):
        way_out = suggestion(str(cause.key), map(str, known)) if known else f"to add it, write +{key}=<value>"
        return f"{key}: unknown key ({way_out})"
    return f"{key}: {fault} (correct the value)"


def explain_text(text: str) -> str:
    """Errors of Hydra's own parser and command line."""
    if match := re.search(r"Ambiguous value for argument '([^']*)'", text):
        key = match[1].split("=")[0]
        return f"{key}: several values in {match[1]!r} (sweep with -m, or write a list: '{key}=[...]')"
    if match := re.search(r"Error parsing override '(.*?)'", text):
        return unparsed(match[1])
    if match := re.search(r"Could not override '([^']*)'. No match in the defaults list", text):
        return f"{match[1]}: no such config group ({suggestion(match[1], [path.name for path in CONFIG_FOLDER.iterdir() if path.is_dir() and path.name != '__pycache__'])})"
    if match := re.search(r"path=(\S+) is not available", text):
        return f"hydra.searchpath: no folder {match[1]!r} (give file:///<folder> or pkg://<package>)"
    if match := re.search(r"Additional config directory '([^']*)' not found", text):
        return f"--config-dir: no folder {match[1]!r} (give the folder that holds your groups)"
    if text.startswith(PLUGIN):
        named = re.search(r"plugin(?: class :)? '?([\w.]+)", text)
        name = named[1] if named else text
        return (
            f"hydra.launcher._target_ or hydra.sweeper._target_: {name!r} is no plugin that is installed "
            "(choose one by name: hydra/launcher=<name>, hydra/sweeper=<name>)"
        )
    if text.startswith(GROUP_NULL):
        return "config: a config group cannot be set to null (leave the override out, or drop the group with ~group)"
    return f"config: {text} (see {program()} --help)"


def unparsed(word: str) -> str:
    """An override that Hydra's grammar does not know."""
    return f"{word}: cannot be parsed as an override (write key=value, and put values with special characters in quotes)"


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and what caused it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
