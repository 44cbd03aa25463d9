"""The pages of `docs/reference`, as Markdown: `python -m metashot.stages.reference.pages docs/reference` writes them."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from metashot.base.components.binding import types_of
from metashot.base.components.documentation import documented, in_words, summary
from metashot.base.errors import ExitStatus
from metashot.base.files import write_atomic
from metashot.engine.cells.results import PREDICTIONS_FILE, RESULTS_FILE, Prediction, Result
from metashot.engine.cells.summary import SUMMARY_FILE, Summary, TaskSummary
from metashot.stages.reference.environment import VARIABLES
from metashot.stages.reference.keys import Group, Key, Kind, group, group_names, node_names, plain_keys
from metashot.stages.stage_table import STAGES

_MADE = "<!-- Made from the declarations by `make reference`; edit those. -->\n"
_REPLAY = "A recorded run (`run=<folder>`) composed again with today's files, and run."


def pages() -> dict[str, str]:
    """Every page by its file's name."""
    made = {"keys.md": _keys_page(), "stages.md": _stages_page(), "environment.md": _environment_page(),
            "files.md": _files_page(), "sweeps.md": _sweeps_page()}  # fmt: skip
    made |= {f"{name}.md": _group_page(group(name)) for name in group_names()}
    made["index.md"] = _index_page(sorted(made))
    return {name: f"{_MADE}\n{text.rstrip()}\n" for name, text in made.items()}


def write_pages(folder: Path) -> None:
    """Write every page into `folder`, and remove pages that are none any more."""
    made = pages()
    for old in folder.glob("*.md"):
        if old.name not in made and old.read_text("utf-8").startswith(_MADE):
            old.unlink()
    for name, text in made.items():
        write_atomic(folder / name, text)


def _index_page(names: Sequence[str]) -> str:
    first = [
        ("keys.md", "keys at the top of the config, and nodes without choices"),
        ("stages.md", "what `stage=` takes"),
        ("sweeps.md", "keys of `-m`: products, run lists, searches"),
        ("environment.md", "environment variables and exit statuses"),
        ("files.md", "files of results"),
    ]
    lines = [f"* [{name.removesuffix('.md')}]({name}): {text}" for name, text in first]
    groups = [f"* [{name}]({name}.md): {group(name).text}" for name in group_names()]
    assert {f"{name}.md" for name in group_names()} | {name for name, _ in first} == set(names)
    return "\n".join(
        ["# Reference", "", *_fold("Every key, choice, stage, file and variable, made from the declarations in the code. On the "
         "screen: `metashot --help-keys` and `metashot --help-keys <name>`."), "", *lines, "", "Groups of choices, `<group>=<choice>`:", "", *groups]
    )  # fmt: skip


def _keys_page() -> str:
    parts = ["# Keys", "", *_fold("Keys at the top of the config, `key=value` on the command line. `metashot --cfg job` prints them "
             "all with their values."), "", *_key_table(plain_keys())]  # fmt: skip
    for name in node_names():
        node = group(name)
        parts += ["", f"## {name}", "", *_fold(node.text), "", *_key_table(node.kinds[0].keys)]
    return "\n".join(parts)


def _group_page(found: Group) -> str:
    parts = [f"# {found.name}", "", *_fold(found.text), "", *_fold(f"`{found.name}=<choice>` chooses; the default is `{found.default}`."), ""]  # fmt: skip
    sets = any(one.sets for one in found.choices)
    rows = [
        (f"`{one.name}`", _without_command(one.text), ", ".join(f"`{text}`" for text in one.sets))
        for one in found.choices
    ]
    parts += _table(("choice", "what it is", "sets") if sets else ("choice", "what it is"), rows)
    for kind in found.kinds:
        parts += ["", *_kind_part(kind, several=len(found.kinds) > 1)]
    return "\n".join(parts)


def _kind_part(kind: Kind, *, several: bool) -> Iterator[str]:
    yield f"## {kind.name}"
    yield ""
    yield from _fold(kind.text)
    if several:
        yield ""
        yield from _fold(f"Of {', '.join(f'`{name}`' for name in kind.choices)}.")
    yield ""
    yield from _key_table(kind.keys)


def _key_table(keys: Sequence[Key]) -> Iterator[str]:
    rows: list[tuple[str, ...]] = []
    for key in keys:
        named = [f"`{value}`: {text}" for value, text in key.meanings.items()]
        default = f"`{key.default}`" if key.default else ""
        rows.append((f"`{key.name}`", key.takes, default, "<br>".join(filter(None, [key.text, *named]))))
    yield from _table(("key", "takes", "default", "what it is"), rows)


def _stages_page() -> str:
    rows: list[tuple[str, ...]] = []
    for name, functions in STAGES.items():
        texts = [f"{summary(_function(path))}" for path in functions.values()]
        rows.append((f"`{name}`", "<br>".join(dict.fromkeys(texts))))
    rows.append(("`rerun`", _REPLAY))
    text = "`stage=<name>`, or several in order: `'stage=[train,evaluate]'`. Where two texts stand, the second is of methods that tune prompts."  # fmt: skip
    return "\n".join(["# Stages", "", *_fold(text), "", *_table(("stage", "what it does"), rows)])


def _function(path: str) -> Any:
    module, _, name = path.partition(".")
    return getattr(import_module(f"metashot.stages.{module}"), name)


def _environment_page() -> str:
    texts = documented(ExitStatus)
    variables = [(f"`{name}`", text) for name, text in VARIABLES.items()]
    statuses = [(f"`{status.value}`", texts[status.name]) for status in ExitStatus]
    return "\n".join(
        ["# Environment variables and exit statuses", "", *_table(("variable", "what it does"), variables),
         "", "## Exit statuses", "", *_table(("status", "when"), statuses)]
    )  # fmt: skip


def _sweeps_page() -> str:
    from hydra_plugins.metashot_sweeps.sweeper import SearchConf, SweeperConf

    parts = ["# Sweeps", "", *_fold("`metashot -m key=a,b other=c,d` runs every combination; the same command goes on where it was "
             "stopped. Keys of `hydra.sweeper`:")]  # fmt: skip
    for kind, where in ((SweeperConf, "hydra.sweeper"), (SearchConf, "hydra.sweeper.search")):
        parts += ["", f"## {where}", "", *_fold(summary(kind)), "", *_record_table(kind, f"{where}.")]
    return "\n".join(parts)


def _files_page() -> str:
    parts = ["# Files of results", "", *_fold("Of the output folder of a run; [data](../data.md) has the formats of input files, "
             "[trust](../trust.md) what is checked when a file is read.")]  # fmt: skip
    files = ((RESULTS_FILE, "One JSON object a line.", Result), (PREDICTIONS_FILE, "One JSON object a line.", Prediction),
             (SUMMARY_FILE, "One JSON object.", Summary), (f"{SUMMARY_FILE}, an entry of tasks", "", TaskSummary))  # fmt: skip
    for name, text, kind in files:
        parts += [
            "",
            f"## {name}",
            "",
            *_fold(f"{text} {summary(kind)}".strip()),
            "",
            *_record_table(kind, ""),
        ]
    return "\n".join(parts)


def _record_table(kind: Any, prefix: str) -> Iterator[str]:
    texts = documented(kind)
    kinds = types_of(kind)
    rows = [(f"`{prefix}{name}`", in_words(kinds[name]), texts.get(name, "")) for name in kinds if name != "_target_"]  # fmt: skip
    yield from _table(("key", "holds", "what it is"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(_cell(text) for text in row[: len(head)])} |"


def _cell(text: str) -> str:
    """Text inside a table: a bar would end the cell, a bracket outside code begin a tag."""
    parts = text.replace("|", "\\|").replace("\n", " ").split("`")
    parts[::2] = [re.sub(r"<(?!br>)", "&lt;", part) for part in parts[::2]]
    return "`".join(parts)


def _without_command(text: str) -> str:
    """A choice's comment up to the command that it ends in."""
    return re.split(r"[:.]? python run\.py ", text)[0]


def _fold(text: str) -> Iterator[str]:
    yield from textwrap.wrap(text, 118, break_on_hyphens=False, break_long_words=False)


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]))
