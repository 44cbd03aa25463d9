"""`kill -9` by the clock, at moments that no event of a file marks: the command ends as if never killed."""

import random
import signal
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from commands import COMMANDS

KILLS = 5


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", COMMANDS)
def test_a_command_killed_by_the_clock_ends_like_an_uninterrupted_one(program, holds, kind):
    program.undisturbed(kind, COMMANDS[kind])
    expected = holds(program.folder / "whole")
    begun = time.monotonic()
    assert program(COMMANDS[kind], "timed") == 0, program.said("timed")
    seconds = time.monotonic() - begun
    draw, kills = random.Random(kind), 0
    for attempt in range(KILLS):
        child = program.start(COMMANDS[kind], "killed")
        child.join(draw.uniform(0, seconds))
        child.kill()
        child.join()
        kills += child.exitcode == -signal.SIGKILL
        assert child.exitcode in (0, -signal.SIGKILL), (attempt, program.said("killed"))
    assert program(COMMANDS[kind], "killed") == 0, program.said("killed")
    assert holds(program.folder / "killed") == expected
    assert not list((program.folder / "killed").rglob(".*.tmp"))
    print(f"{kind}: {kills} kills by the clock in {seconds:.1f} s, equal in the end")
