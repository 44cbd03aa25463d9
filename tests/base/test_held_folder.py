"""A run's folder stays the one it was, or the run says so."""

import os
import shutil

import pytest

from metashot.base.errors import OutputError
from metashot.base.files import HeldFolder, check_held, hold
from metashot.engine.cells.record import RunRecord


def test_a_folder_that_stays_is_held(tmp_path):
    held = hold(tmp_path / "a" / "b")
    (tmp_path / "a" / "b" / "file").write_text("x")
    check_held(held)
    assert not held.is_gone


@pytest.mark.parametrize("made_again", [False, True])
def test_a_folder_that_was_removed_is_gone_even_if_made_again(tmp_path, made_again):
    held = hold(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    if made_again:
        (tmp_path / "run").mkdir()
    with pytest.raises(OutputError, match="run: the folder was removed while the run wrote to it"):
        check_held(held)


def test_nothing_stays_open(tmp_path):
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(5):
        HeldFolder(tmp_path)
    assert before in (0, len(os.listdir("/proc/self/fd")))


def test_a_run_whose_folder_was_removed_is_not_recorded_as_finished(tmp_path):
    record = RunRecord(tmp_path / "run", {}, [])
    record.write("running")
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "run").mkdir()
    with pytest.raises(OutputError, match="was removed"):
        record.write("finished")
    assert not list((tmp_path / "run").iterdir())
