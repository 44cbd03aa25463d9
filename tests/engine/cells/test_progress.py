"""Progress over cells where nothing is a terminal: lines instead of a bar."""

import io

from rich.console import Console

from metashot.engine.cells import progress as module
from metashot.engine.cells.family import CellKey
from metashot.engine.cells.progress import CellProgress


class Silent:
    def log(self, metrics, step):
        raise AssertionError("no cell was finished")


def said(monkeypatch, *, terminal, stored, moments):
    """What stands on the console after tokens were counted at these (second, part of the first cell)."""
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    progress = CellProgress(console, Silent(), seconds_between_lines=10)
    progress.start(total=4, stored=stored)
    for second, part in moments:
        clock[0] = second
        progress.tokens(CellKey("demo-emotion", 100, "f", 8), part, 100)
    return console.file.getvalue().splitlines()


def test_a_pipe_is_told_what_is_ahead_and_now_and_then_how_far_it_is(monkeypatch):
    # A quarter of the first of 4 cells after 12 s: 15 quarters are left, 3 min. Two seconds later nothing is said.
    lines = said(monkeypatch, terminal=False, stored=0, moments=[(3, 5), (12, 25), (14, 30), (24, 50)])
    assert lines == [
        "4 cells to compute",
        "0.2 of 4 cells, about 3 min left: demo-emotion seed 100",
        "0.5 of 4 cells, about 3 min left: demo-emotion seed 100",
    ]


def test_stored_cells_are_said_apart(monkeypatch):
    assert said(monkeypatch, terminal=False, stored=3, moments=[]) == [
        "3 of 4 cells are stored already and are not computed again",
        "1 cell to compute",
    ]
    assert len(said(monkeypatch, terminal=False, stored=4, moments=[])) == 1


def test_a_terminal_has_a_bar_and_no_lines(monkeypatch):
    assert said(monkeypatch, terminal=True, stored=0, moments=[(12, 25), (24, 50)]) == []
