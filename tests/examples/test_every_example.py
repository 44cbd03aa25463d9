"""Every folder of `examples/` says how it is run, and every command that it says runs, on random weights and one seed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDERS = sorted(path for path in (REPOSITORY / "examples").iterdir() if path.is_dir())
COMMANDS = [
    (folder.name, line)
    for folder in FOLDERS
    for line in re.findall(r"^metashot .+$", (folder / "README.md").read_text(encoding="utf-8"), re.M)
]


def test_every_example_says_how_it_is_run() -> None:
    assert {name for name, _ in COMMANDS} == {folder.name for folder in FOLDERS}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[command for _, command in COMMANDS])
def test_a_command_of_an_example_runs(name: str, command: str, tmp_path: Path) -> None:
    folder = REPOSITORY / "examples" / name
    small = [] if " model=" in command else ["model=tiny"]
    done = subprocess.run(
        [sys.executable, REPOSITORY / "run.py", *shlex.split(command)[1:], *small, "seeds=[100]",
         f"hydra.run.dir={tmp_path / 'out'}", f"results_root={tmp_path / 'store'}"],
        cwd=folder, capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "METASHOT_TRUSTED_TARGETS": name, "PYTHONPATH": "."},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "results.jsonl").read_text()
