"""How a command ends whose place cannot be written: one line with the file, and no traceback."""

import errno
import subprocess
import sys

import pytest

from metashot.stages.endings import one_line_errors

LOGS = """
import logging.config, sys
from metashot.stages.endings import one_line_errors
with one_line_errors():
    handlers = {"file": {"class": "logging.FileHandler", "filename": sys.argv[1]}}
    logging.config.dictConfig({"version": 1, "handlers": handlers})
"""


def test_a_log_file_that_cannot_be_opened_is_one_line(tmp_path):
    """logging hides the system's error below a ValueError of its own; so ends a run in a read-only folder.

    In a process of its own: configuring logging closes the handlers of everybody.
    """
    path = tmp_path / "gone" / "run.log"
    done = subprocess.run(
        [sys.executable, "-c", LOGS, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == f"error: {path}: No such file or directory (HYDRA_FULL_ERROR=1 shows where)\n"


def test_an_output_folder_that_is_a_file_is_one_line(tmp_path, capsys):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(SystemExit) as ended, one_line_errors():
        (tmp_path / "out").mkdir()
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        f"error: {tmp_path / 'out'}: File exists (HYDRA_FULL_ERROR=1 shows where)\n"
    )


def test_other_values_that_are_wrong_keep_their_traceback():
    with pytest.raises(ValueError, match="a bug"), one_line_errors():
        raise ValueError("a bug") from OSError(2, "No such file or directory", "x")


def test_a_disk_that_fills_as_a_buffer_is_written_out_is_one_line(capsys):
    """Then the system names no file: so ended a run while Hydra wrote its own files."""
    with pytest.raises(SystemExit) as ended, one_line_errors():
        raise OSError(errno.ENOSPC, "No space left on device")
    assert ended.value.code == 1
    assert (
        capsys.readouterr().err
        == "error: the output folder: No space left on device (HYDRA_FULL_ERROR=1 shows where)\n"
    )


def test_other_errors_of_the_system_without_a_name_keep_their_traceback():
    with pytest.raises(OSError, match="Broken pipe"), one_line_errors():
        raise OSError(errno.EPIPE, "Broken pipe")
