"""The data stages of `run.py`: prepare a setting's files, see whether a folder is whole, show data checks."""

from __future__ import annotations

import shlex
from itertools import islice
from pathlib import Path

from rich.table import Table

from metashot.base.components.values import fields_of
from metashot.base.errors import ConfigError, DataError
from metashot.base.files import write_json
from metashot.data.preparation.card import show_card
from metashot.data.preparation.checks import check_setting
from metashot.data.preparation.doctor import doctor
from metashot.data.preparation.draft import draft_recipe
from metashot.data.preparation.place import Reach, open_split
from metashot.data.preparation.prepare import PrepareSettings, prepare
from metashot.data.recipes import DropCounts, load_recipe
from metashot.data.settings import Setting, load_setting
from metashot.data.tasks.modules import HubData, JsonlData
from metashot.stages.command_line import program
from metashot.stages.context import RunContext
from metashot.stages.run_config import RunConfig

REPORT_FILE = "prepare.json"
_SHOWN_CARDS = 4
"""Tasks whose data card is printed; `manifest.json` has those of all."""


def recipe_stage(run: RunContext) -> None:
    """Look at the table `prepare.file`, write a first recipe and its setting beside it, and try the recipe on it.

    Raises:
        ConfigError: no `prepare.file`.
        DataError: a table that cannot be read, or that holds nothing to ask and answer.
    """
    path = run.config.prepare.file
    if path is None:
        raise ConfigError("prepare.file", "is not set", "give a table: stage=recipe prepare.file=my.csv")
    draft = draft_recipe(path.expanduser(), run.config.prepare.force)
    table = Table(title=f"{path}: {draft.rows} rows looked at", title_justify="left")
    for column in ("column", "holds", "for example"):
        table.add_column(column, overflow="fold")
    for one in draft.columns:
        table.add_row(one.name, one.describe(), one.example)
    run.console.print(table)
    recipe = load_recipe(draft.task, path=[draft.recipe.parent])
    drops = DropCounts(released=False)
    rows = open_split(recipe, recipe.spec.splits.train, Reach(online=False))
    first = next(recipe.stream(islice(rows, draft.rows), drops=drops), None)
    if first is None:
        raise DataError(str(draft.recipe), f"makes no example: {dict(drops.dropped)}", "correct the recipe")
    shown = (
        f"wrote {draft.recipe} and {draft.setting}; the first example:",
        f"  input:   {first.input!r}",
        f"  output:  {first.output!r}" + (f"   options: {list(first.options)}" if first.options else ""),
        "read the recipe, correct it, then:",
        f"  {program()} stage=prepare data=hub data.root=prepared {_argument('data.recipe_path', draft.recipe.parent)} "
        f"setting=custom setting.name={shlex.quote(str(draft.setting))} prepare.k={draft.k}",
        f"  {program()} data=jsonl data.root=prepared 'data.tasks=[{draft.task}]' k={draft.k}"
        + ("" if first.options else " method=generate"),
    )
    for line in shown:
        run.console.print(line, soft_wrap=True, markup=False, highlight=False)


def _argument(key: str, folder: Path) -> str:
    return shlex.quote(f"{key}=[{folder}]")


def prepare_stage(run: RunContext) -> None:
    """Make the files of the setting and write what became of each task to the output folder.

    Raises:
        DataError: not one task could be had. Otherwise failed tasks stand in the printed table.
    """
    settings = prepare_settings(run.config)
    report = prepare(settings, run.console)
    rows = [
        {"task": one.task, "role": one.role, "status": one.status, "reason": one.reason}
        for one in report.outcomes
    ]
    write_json(run.output / REPORT_FILE, rows)
    cards = [(one.task, one.record) for one in report.outcomes if one.record and one.record.card.get("parts")]
    for task, record in cards[:_SHOWN_CARDS]:
        run.console.print(show_card(task, record), soft_wrap=True, markup=False, highlight=False)
    failed = report.with_status("failed")
    if report.outcomes and len(failed) == len(report.outcomes):
        raise DataError(
            "stage=prepare",
            f"none of {len(failed)} tasks could be prepared",
            f"the reasons stand above and in {run.output / REPORT_FILE}",
        )


def doctor_stage(run: RunContext) -> None:
    """Compare the prepared folder with its manifest and the setting.

    Raises:
        DataError: files are missing, truncated, changed or of unknown origin.
    """
    settings = prepare_settings(run.config)
    report = doctor(
        settings.root,
        settings.setting,
        k=settings.k,
        seeds=settings.seeds,
        roles=settings.roles,
        pool_k=settings.pool_k,
        pool_seed=settings.pool_seeds[0],
        console=run.console,
    )
    if not report.is_healthy:
        raise DataError(
            str(report.root),
            f"{len(report.findings)} faults in {report.n_files} files",
            "run stage=prepare: it makes what is missing",
        )


def show_data_checks(run: RunContext) -> None:
    """Balance, lengths, duplicates and leakage of the chosen setting, for `stage=plan`; nothing without files."""
    if run.config.setting is None or not isinstance(run.config.data, HubData | JsonlData):
        return
    settings = prepare_settings(run.config)
    seed = settings.seeds[0]
    run.console.print(
        check_setting(
            settings.root, settings.setting, k=settings.k, seed=seed, pool_k=settings.pool_k
        ).tables()
    )


def prepare_settings(config: RunConfig) -> PrepareSettings:
    """`prepare.*`, with the folder, recipes and corrections of `data.*` and the task lists of `setting`.

    Raises:
        ConfigError: an unknown key or wrong type, no `data.root`, or neither a setting nor `data.tasks`.
    """
    data = config.data
    if not isinstance(data, HubData | JsonlData):
        raise ConfigError(
            "data.root", "is not set", "choose data=hub data.root=<folder for the prepared files>"
        )
    return PrepareSettings(
        **fields_of(config.prepare),
        root=Path(data.root).expanduser(),
        setting=_setting(config),
        raw=data.raw if isinstance(data, HubData) else None,
        recipe_path=data.recipe_path if isinstance(data, HubData) else (),
        fixes=data.fixes,
    )


def _setting(config: RunConfig) -> Setting:
    tasks = config.data.tasks
    if config.setting is None:
        if not tasks:
            raise ConfigError("setting", "is not set", "choose setting=<name>, or name data.tasks=[...]")
        return Setting("data.tasks", [], tasks, [])
    setting = load_setting(config.setting.name)
    return setting if tasks is None else Setting(setting.name, setting.train, tasks, [], setting.title)
