"""What others wrote is shown as text: on a terminal, in a spreadsheet, in a record of a run."""

import io
import logging

import pytest
from rich.console import Console
from rich.table import Table as ConsoleTable

from metashot.base.console import PlainConsole
from metashot.base.terminal import PrintableRecords, printable
from metashot.engine.cells.summary import Summary, TaskSummary, console_table
from metashot.engine.metrics.statistics import Interval
from metashot.engine.report.formats import comma_separated
from metashot.engine.report.table import Cell, Table
from metashot.stages.secrets import HIDDEN, hide_in_files, recorded_overrides, secrets_of, without_secrets


def test_control_sequences_are_shown_and_lines_stay():
    assert printable("a\x1b]0;title\x07b\n\tc \u202e d é 日") == "a\\x1b]0;title\\x07b\n\tc \\u202e d é 日"


def test_markup_in_names_is_text():
    figure = Interval(50.0, 40.0, 60.0)
    task = TaskSummary("[red]t[/b]", "accuracy", figure, figure, {"100": 50.0}, 4)
    console = Console(file=io.StringIO(), width=200)
    console.print(console_table(Summary("s", "direct", "[/b]", 4, figure, figure, (task,))))
    assert "direct, [/b], s" in console.file.getvalue()
    assert "[red]t[/b]" in console.file.getvalue()


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ('=HYPERLINK("x")', "'=HYPERLINK"),
        ("@SUM(A1)", "'@SUM"),
        ("-2+3+cmd()", "'-2+3"),
        ("-1.5", "-1.5"),
        ("+3.2 *", "+3.2 *"),
    ],
)
def test_a_csv_cell_is_no_formula(text, written):
    table = Table("k", "t", "n", ("Task",), ((Cell(text),),), 1)
    assert written in comma_separated(table).replace('""', '"').splitlines()[1]


def test_secrets_of_the_environment_are_not_recorded():
    unresolved = {
        "a": {"key": "${oc.env:HF_TOKEN}", "home": "${oc.env:HOME}"},
        "b": ["x", "Bearer ${a.key}"],
        "none": "${oc.env:API_KEY,null}",
    }
    resolved = {"a": {"key": "hf_abc", "home": "/h"}, "b": ["x", "Bearer hf_abc"], "none": None}
    assert without_secrets(resolved, secrets_of(resolved, unresolved)) == {
        "a": {"key": HIDDEN, "home": "/h"},
        "b": ["x", HIDDEN],
        "none": None,
    }


def test_values_under_a_secret_name_are_recorded_nowhere(tmp_path):
    config = {
        "logger": {"api_key": "abcdef", "project": "p"}, "max_tokens": "abc", "token_weight": "2", "url": "http://x/?k=abcdef",
    }  # fmt: skip
    secrets = secrets_of(config, config)
    assert secrets == {"abcdef"}
    assert without_secrets(config, secrets) == {
        **config, "logger": {"api_key": HIDDEN, "project": "p"}, "url": HIDDEN,
    }  # fmt: skip
    assert recorded_overrides(["+logger.api_key=abcdef", "+logger.api_key='abcdef'", "k=2"], secrets) == [
        "k=2"
    ]
    (tmp_path / "overrides.yaml").write_text("- +logger.api_key=abcdef\n- k=2\n")
    hide_in_files(tmp_path, secrets)
    assert (tmp_path / "overrides.yaml").read_text() == f"- +logger.api_key={HIDDEN}\n- k=2\n"


def test_a_console_and_a_log_show_text_as_it_is():
    foreign = "[/b] [red]x[/red] :smile: \x1b]0;title\x07"
    shown = "[/b] [red]x[/red] :smile: \\x1b]0;title\\x07"
    console = PlainConsole(file=io.StringIO(), width=200)
    console.print(foreign)
    table = ConsoleTable(title=foreign)
    table.add_column(foreign)
    table.add_row(foreign)
    console.print(table)
    assert console.file.getvalue().count(shown) == 4
    record = logging.LogRecord("x", logging.INFO, "x", 1, "task %s", (foreign,), None)
    assert PrintableRecords().filter(record)
    assert record.getMessage() == f"task {shown}"
