"""What a killed writer left is removed at the next start, in every folder that is written to."""

import os
import subprocess

import pytest

from metashot.base.files import temporary_beside
from metashot.engine.cells.record import RunRecord
from metashot.engine.cells.store import ResultStore
from metashot.engine.sweeps.ledger import Ledger


@pytest.fixture
def left(monkeypatch):
    """`left(path)`: the temporary file of a process that is gone, beside `path`."""
    gone = subprocess.Popen(["true"])
    gone.wait()

    def call(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: gone.pid)
            temporary = temporary_beside(path)
        temporary.write_text("half")
        return temporary

    return call


@pytest.mark.parametrize(
    ("place", "start"),
    [
        ("run.json", lambda root: RunRecord(root, {}, [])),
        ("results.jsonl", lambda root: RunRecord(root, {}, [])),
        ("cells/ab/abc.jsonl", lambda root: ResultStore(root).check_writable()),
        ("cells/.writable", lambda root: ResultStore(root).check_writable()),
        ("ledger/abc.json", Ledger),
    ],
)
def test_a_start_removes_them(tmp_path, left, place, start):
    temporary, own = left(tmp_path / place), temporary_beside(tmp_path / place)
    own.write_text("being written")
    start(tmp_path)
    assert not temporary.exists()
    assert own.exists()


def test_another_rank_leaves_them_to_the_first(tmp_path, left):
    temporary = left(tmp_path / "run.json")
    RunRecord(tmp_path, {}, [], writes=False)
    assert temporary.exists()
