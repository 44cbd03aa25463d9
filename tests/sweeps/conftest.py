"""A small Hydra program that sweeps as run.py does, and a way to run programs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
import errno, json, os, sys, time
from pathlib import Path
import hydra
from hydra.core.hydra_config import HydraConfig
from metashot.base.errors import ConfigError

@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def main(config):
    output = Path(HydraConfig.get().runtime.output_dir)
    time.sleep(config.seconds)
    with (Path(config.log) / "started").open("a") as log:
        log.write(f"{config.x} {config.y}\\n")
    if isinstance(config.base, str):
        raise ConfigError("base", f"must be a number, got {config.base}", "write base=10")
    if config.x == 2 and config.y == "bad" and not (Path(config.log) / "mended").exists():
        raise ValueError("x=2 does not go with y=bad")
    if config.y == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "value.json")
    if config.y == "dies":
        os._exit(9)
    (output / "value.json").write_text(json.dumps([config.x, config.y, config.base, os.getpid()]))
    return float(config.x * config.base)

if os.environ.get("LEDGER_IS_FULL"):
    from metashot.engine.sweeps.ledger import Ledger
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "ledger")
    Ledger.start = full
main()
"""

CONFIG = """
defaults:
  - _self_
  - override hydra/sweeper: ledger
x: 1
y: good
base: 10
items: [1]
seconds: 0
log: {folder}
logger: {{folder: "${{hydra:runtime.output_dir}}", group: "${{sweep_group:}}"}}
hydra:
  run: {{dir: {folder}/single}}
  sweep: {{dir: "{folder}/${{sweep_name:}}", subdir: "${{hydra.job.num}}"}}
"""


@pytest.fixture
def program(tmp_path):
    """`program(*overrides)` runs the small program; returns the finished process."""
    folder = tmp_path / "program"
    (folder / "conf").mkdir(parents=True)
    (folder / "main.py").write_text(PROGRAM)
    (folder / "conf" / "config.yaml").write_text(CONFIG.format(folder=folder))

    def run(*overrides):
        environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "160"}
        command = [sys.executable, "main.py", "-m", *overrides]
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
        )

    run.folder = folder
    return run


@pytest.fixture
def sweep_of(program):
    """The one sweep folder of the program: (folder, records by number)."""

    def read():
        (header,) = program.folder.rglob("ledger/ledger.json")
        paths = [path for path in header.parent.glob("*.json") if path != header]
        records = sorted(
            (json.loads(path.read_text()) for path in paths), key=lambda record: record["number"]
        )
        return header.parent.parent, records

    return read
