"""How a command ends whose place cannot be written: one line with the file, and no traceback."""

import logging.config

import pytest

from metashot.stages.endings import one_line_errors


def test_a_log_file_that_cannot_be_opened_is_one_line(tmp_path, capsys):
    """logging hides the system's error below a ValueError of its own; so ends a run in a read-only folder."""
    handlers = {"file": {"class": "logging.FileHandler", "filename": str(tmp_path / "gone" / "run.log")}}
    with pytest.raises(SystemExit) as ended, one_line_errors():
        logging.config.dictConfig({"version": 1, "handlers": handlers, "disable_existing_loggers": False})
    assert ended.value.code == 1
    path = tmp_path / "gone" / "run.log"
    assert capsys.readouterr().err == (
        f"error: {path}: No such file or directory (HYDRA_FULL_ERROR=1 shows where)\n"
    )


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
