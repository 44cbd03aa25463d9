"""SIGTERM and Ctrl-C in every stage: no success, no result of something half done, and the same command goes on."""

import json
import random
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from commands import COMMANDS, FURTHER
from program import Signal

EXIT = {signal.SIGTERM: 143, signal.SIGINT: 130}
PLACES = 4
"""Signals of each kind, spread over the command's changes of files."""
STAGES = {**COMMANDS, **FURTHER}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("stage", STAGES)
def test_an_interrupted_command_says_so_and_goes_on(program, holds, stage):
    program.undisturbed(stage, STAGES[stage])
    expected, events = _newest(holds(program.folder / "whole")), program.events("whole")
    draw, told = random.Random(1), 0
    for number, status in EXIT.items():
        for place in range(PLACES):
            name = f"{number.name}-{place}"
            first, last = 1 + place * events // PLACES, 1 + (place + 1) * events // PLACES
            ended = program(STAGES[stage], name, draw.randrange(first, last), Signal(number))
            said = program.said(name)
            assert ended == status, (name, ended, said)
            assert f"interrupted: {number.name}" in said or "interrupted: Ctrl-C" in said, said
            assert "Traceback" not in said, said
            for record in (program.folder / name).rglob("run.json"):
                if not _was_finished(record, said):
                    assert json.loads(record.read_text())["status"] == "interrupted", said
            found = holds(program.folder / name)
            # Written when every cell is there, so never of something half done.
            for file in (file for file in found if file.endswith("summary.json")):
                assert found[file] == expected[file], name
            assert program(STAGES[stage], name) == 0, program.said(name)
            assert _newest(holds(program.folder / name)) == expected, name
            told += 1
    print(f"{stage}: {told} signals over {events} events, all told, all ends equal")


def _newest(found):
    """Without the checkpoints before the last: an interruption saves one more, which counts among those kept."""
    steps = [name.partition("step-")[2][:8] for name in found if "step-" in name]
    return {
        name: content
        for name, content in found.items()
        if "step-" not in name or f"step-{max(steps)}" in name
    }


def _was_finished(record, said):
    """A job of a multirun that ended before the signal, or a run that the signal reached while it wrote its end."""
    return json.loads(record.read_text())["status"] in ("finished", "running")
