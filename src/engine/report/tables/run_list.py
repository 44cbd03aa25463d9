"""Where every row of a report is from: folder, what differs in its config, commit, date, how exactly it was scored, dashboard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from metashot.engine.report.reading.variants import differing
from metashot.engine.report.systems.results import SystemResults
from metashot.engine.report.tables.table import Table, TableCell, names, shots

_SHOWN_KEYS = 6
_COMMIT_CHARACTERS = 12


def runs_table(answers: Sequence[SystemResults]) -> Table:
    """One row a system and run folder, in the order of the results."""
    every = list({run.folder: run for row in answers for run in row.runs}.values())
    differences = dict(zip((run.folder for run in every), differing(every), strict=True))
    rows = [
        (
            *names(row.system.setting, row.system.name),
            shots(row.system.k),
            *names(row.system.model, str(run.folder), _shown(differences[run.folder])),
            *names(
                _commit(run.facts.get("git_commit", "")), run.facts.get("started", "")[:16].replace("T", " ")
            ),
            *names(run.facts.get("route", "").replace("_", " "), _nats(run.facts.get("self_check", ""))),
            _dashboard(run.facts.get("dashboard", "")),
        )
        for row in answers
        for run in row.runs
    ]
    note = (
        "The folders that each row is from. Differs: config keys in which the folder differs from others of this report, "
        "less those that have a column. `stage=compare` shows two of them side by side. Route: how requests were scored. Off "
        "alone: the largest difference, in nats at any token, of the cells that it computed to a few of their requests run "
        "alone through the model; more than rounding stops a run."
    )
    columns = (
        "Setting",
        "Method",
        "k",
        "Model",
        "Folder",
        "Differs",
        "Commit",
        "Started",
        "Route",
        "Off alone",
        "Dashboard",
    )
    return Table("runs", "Runs", note, columns, tuple(rows), len(columns), True)


def _shown(parts: Sequence[str]) -> str:
    more = f" and {len(parts) - _SHOWN_KEYS} more" if len(parts) > _SHOWN_KEYS else ""
    return ", ".join(parts[:_SHOWN_KEYS]) + more


def _commit(text: str) -> str:
    """The first characters, and whether files differed from it."""
    return text[:_COMMIT_CHARACTERS] + ("-dirty" if text.endswith("-dirty") else "")


def _nats(text: str) -> str:
    return f"{float(text):.0e}" if text else ""


def _dashboard(address: str) -> TableCell:
    if not address.startswith(("https://", "http://")):
        return TableCell("")
    return TableCell(Path(address).name or address, link=address)
