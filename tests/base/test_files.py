"""Files are whole or absent, and a full disk is said."""

import errno
import json
import multiprocessing
import os
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metashot.base.errors import OutputError
from metashot.base.files import (
    append_lines,
    read_lines,
    remove_leftovers,
    replacing,
    write_atomic,
    write_json,
)
from metashot.base.json_text import digest_of


def test_an_interrupted_write_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_json(path, {"old": True})

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_json(path, {"new": True})
    assert json.loads(path.read_text()) == {"old": True}
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.json"]


def test_a_file_is_readable_by_whom_the_umask_allows(tmp_path):
    before = os.umask(0o022)
    try:
        write_atomic(tmp_path / "x.json", "new")
    finally:
        os.umask(before)
    assert (tmp_path / "x.json").stat().st_mode & 0o777 == 0o644


def test_a_full_disk_is_said_and_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_json(path, {"old": True})

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot write: No space left on device \(free the disk"):
        write_atomic(path, "new")
    assert json.loads(path.read_text()) == {"old": True}
    assert len(list(tmp_path.iterdir())) == 1


def test_a_torn_last_line_is_closed_and_passed_over(tmp_path):
    path = tmp_path / "rows.jsonl"
    append_lines(path, [{"n": 1}])
    with path.open("a") as stream:
        stream.write('{"n": 2, "te')
    append_lines(path, [{"n": 3}])
    assert list(read_lines(path)) == [{"n": 1}, {"n": 3}]


@given(
    st.lists(
        st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=5), max_size=3), max_size=5
    )
)
def test_lines_round_trip(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    append_lines(path, rows)
    assert list(read_lines(path)) == rows


def test_a_digest_does_not_depend_on_key_order():
    assert digest_of({"a": 1, "b": [2]}) == digest_of({"b": [2], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})


def test_temporary_files_of_processes_that_are_gone_are_removed(tmp_path):
    """A forked writer is killed half way; files of a living writer, and other files, stay."""
    process = multiprocessing.get_context("fork").Process(
        target=_killed_while_writing, args=(tmp_path / "a",)
    )
    process.start()
    process.join()
    (left,) = tmp_path.iterdir()
    folder = left.with_name(left.name.replace(".a.", ".folder."))
    (folder / "inner").mkdir(parents=True)
    (tmp_path / ".other.tmp").write_text("")
    with replacing(tmp_path / "b") as stream:
        remove_leftovers(tmp_path)
        stream.write(b"whole")
    assert not left.exists()
    assert not folder.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.tmp", "b"]


def _killed_while_writing(path):
    with replacing(path) as stream:
        stream.write(b"half")
        os.kill(os.getpid(), signal.SIGKILL)


def test_the_first_write_into_a_folder_removes_what_killed_writers_left(tmp_path):
    process = multiprocessing.get_context("fork").Process(
        target=_killed_while_writing, args=(tmp_path / "tables" / "a",)
    )
    process.start()
    process.join()
    (left,) = (tmp_path / "tables").iterdir()
    write_atomic(tmp_path / "tables" / "b", "whole")
    assert not left.exists()
    assert [path.name for path in (tmp_path / "tables").iterdir()] == ["b"]
