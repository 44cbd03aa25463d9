"""What others wrote is shown as text: on a terminal, in a spreadsheet, in a record of a run."""

import io
import logging

import pytest
from rich.console import Console
from rich.table import Table as ConsoleTable

from metashot.base.console import PlainConsole
from metashot.base.secrets import (
    HIDDEN,
    environment_secrets,
    hide_in_files,
    recorded_overrides,
    secrets_of,
    without_secrets,
)
from metashot.base.terminal import PrintableRecords, printable
from metashot.engine.cells.summary import Summary, TaskSummary, console_table
from metashot.engine.metrics.statistics import Interval
from metashot.engine.report.formats.text import comma_separated
from metashot.engine.report.tables.table import Table, TableCell


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
    table = Table("k", "t", "n", ("Task",), ((TableCell(text),),), 1)
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


SECRETS = {
    "the environment, by name": ("${oc.env:GH_PAT}", "gh-value-of-mine"),
    "the environment, typed by hand": ("it is gh-value-of-mine indeed", "gh-value-of-mine"),
    "a token": ("run hf_abcdefghijklmnopqrstuvwxyz0123", "hf_abcdefghijklmnopqrstuvwxyz0123"),
    "a key": ("sk-proj-abcdefghijklmnopqrstuvwx", "sk-proj-abcdefghijklmnopqrstuvwx"),
    "a URL": ("https://me:pw@host.example/x", "me:pw@"),
    "a database": ("postgresql://me:pass@db/x", "me:pass@"),
}


@pytest.mark.parametrize("given", SECRETS)
def test_a_secret_is_hidden_under_whatever_key_it_stands(given, monkeypatch, tmp_path):
    monkeypatch.setenv("GH_PAT", "gh-value-of-mine")
    written, secret = SECRETS[given]
    value = written.replace("${oc.env:GH_PAT}", "gh-value-of-mine")
    secrets = secrets_of({"condition": value}, {"condition": written})
    assert without_secrets({"condition": value}, secrets) == {"condition": HIDDEN}
    assert recorded_overrides([f"condition='{value}'", "k=2"], secrets) == ["k=2"]
    (tmp_path / "config.yaml").write_text(f"condition: {value}\nk: 2\n")
    hide_in_files(tmp_path, secrets)
    assert secret not in (tmp_path / "config.yaml").read_text()
    record = logging.LogRecord("x", logging.INFO, "x", 1, "failed: %s", (value,), None)
    assert PrintableRecords().filter(record)
    assert secret not in record.getMessage()


@pytest.mark.parametrize(
    "text",
    ["https://host.example:8080/x", "s3://bucket/key", "sqlite:///search.db", "hf_demo", "sk-learn", "task-seed", "a@b.example",
     "smollm2_135m", "data.tasks=[demo-spam]", "0" * 40],
)  # fmt: skip
def test_what_is_no_secret_is_recorded_as_it_is(text):
    assert without_secrets({"condition": text}, secrets_of({"condition": text}, {"condition": text})) == {
        "condition": text
    }


@pytest.mark.parametrize(
    ("name", "secret"),
    [("HF_TOKEN", True), ("GH_PAT", True), ("PAT_GH", True), ("WANDB_API_KEY", True), ("DB_PASS", True),
     ("PATH", False), ("DISPATCH", False), ("PWD", False), ("HOME", False), ("COMPASS", False)],
)  # fmt: skip
def test_a_variable_is_secret_by_its_name(name, secret, monkeypatch):
    """Used in an interpolation, and when its value stands somewhere by itself."""
    unresolved = {"x": f"${{oc.env:{name}}}"}
    assert secrets_of({"x": "abcd"}, unresolved) >= {"abcd"} if secret else True
    monkeypatch.setenv(name, "/some/value/of/it")
    assert ("/some/value/of/it" in environment_secrets()) is secret


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
