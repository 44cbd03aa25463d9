"""Commands as processes of their own, to be watched and stopped half way."""

import os
import subprocess
import sys
import time

import pytest


@pytest.fixture
def start(repository, tmp_path):
    """`start(*overrides)`: run.py as a process of its own, with its results under tmp_path."""
    started = []

    def call(*overrides):
        environment = {**os.environ, "METASHOT_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
        words = [sys.executable, str(repository / "run.py"), *overrides, f"results_root={tmp_path / 'root'}"]
        process = subprocess.Popen(
            words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield call
    for process in started:
        if process.poll() is None:
            process.kill()


@pytest.fixture
def wait_for():
    """`wait_for(process, file, text)`: until `file` holds `text`; the test fails when it never does."""

    def call(process, file, text=""):
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if file.is_file() and text in file.read_text():
                return
            time.sleep(0.02)
        pytest.fail(f"{file} never held {text!r}: {process.communicate()}")

    return call
