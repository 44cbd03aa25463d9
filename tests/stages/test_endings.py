"""How a command ends whose place cannot be written: one line with the file, and no traceback."""

import errno
import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from metashot.engine.training.signals import Interrupted, sigterm_interrupts
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
    with pytest.raises(OSError, match="Protocol error"), one_line_errors():
        raise OSError(errno.EPROTO, "Protocol error")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EFBIG, "File too large"), "error: the output folder: File too large (raise the limit"),
        (OSError(errno.EMFILE, "Too many open files"), "error: open files: Too many open files ("),
        (MemoryError(), "error: memory: Cannot allocate memory ("),
        (RuntimeError("can't start new thread"), "error: memory: can't start new thread ("),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes\nmore"),
            "error: memory: DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes (",
        ),
        (
            ImportError("libtorch_cpu.so: failed to map segment from shared object"),
            "error: memory: libtorch_cpu.so",
        ),
    ],
)
def test_a_limit_that_is_reached_is_one_line(error, said, capsys):
    with pytest.raises(SystemExit) as ended, one_line_errors():
        raise error
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert told.startswith(said)
    assert told.count("\n") == 1


COMMAND = "import sys; from metashot.stages.command import main; sys.argv[1:] = ['stage=plan']; main()"


def test_a_working_folder_that_was_removed_is_one_line(tmp_path):
    (tmp_path / "gone").mkdir()
    words = "import os, sys; os.rmdir(os.getcwd()); " + COMMAND
    done = subprocess.run(
        [sys.executable, "-c", words], cwd=tmp_path / "gone", capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert (
        done.stderr
        == "error: the working folder: No such file or directory (HYDRA_FULL_ERROR=1 shows where)\n"
    )


PRINTS = """
from metashot.base.console import PlainConsole
from metashot.stages.endings import one_line_errors
import sys
with one_line_errors():
    for line in range(10 ** 6):
        {}
"""


@pytest.mark.parametrize("print_", ["print(line, flush=True)", "PlainConsole().print(line)"])
def test_a_reader_that_goes_away_is_one_line(print_):
    """`metashot ... | head -1`, of what is printed and of what a console prints."""
    process = subprocess.Popen(
        [sys.executable, "-c", PRINTS.format(print_)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=120) == 1
    told = process.stderr.read()
    process.stderr.close()
    assert told.startswith("error: the output: Broken pipe (its reader has gone")
    assert told.count("\n") == 1


def swallowed():
    """A SIGTERM below a library's bare `except:`."""
    with suppress(BaseException):
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_sigterm_that_a_library_swallows_ends_the_run_all_the_same():
    with pytest.raises(Interrupted), sigterm_interrupts():
        swallowed()
    with sigterm_interrupts():  # what was honoured is over
        pass


def test_after_a_swallowed_sigterm_no_further_stage_begins():
    begun = []

    def run():
        with sigterm_interrupts():
            swallowed()
            with sigterm_interrupts():
                begun.append("a stage")

    with pytest.raises(Interrupted):
        run()
    assert begun == []
