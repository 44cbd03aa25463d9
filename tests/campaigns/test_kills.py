"""`kill -9` at points spread over everything a command does to files: it ends as if never killed, with no leftovers."""

import random
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from commands import COMMANDS

KILLS, PARTS = 40, 4
"""A campaign of 40 kills runs in parts, each of which can be had alone: `-k "sweep and part2"`."""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", COMMANDS)
@pytest.mark.parametrize("part", range(PARTS), ids="part{}".format)
def test_a_killed_command_ends_like_an_uninterrupted_one(program, holds, kind, part):
    program.undisturbed(kind, COMMANDS[kind])
    expected, events = holds(program.folder / "whole"), program.events("whole")
    assert events > 8
    draw, kills, ends = random.Random(part), 0, 0
    while kills < KILLS // PARTS:
        name = f"killed-{ends}"
        while True:
            at = draw.randrange(1, events + 1) if kills < KILLS // PARTS else 0
            status = program(COMMANDS[kind], name, at)
            if status == -signal.SIGKILL:
                kills += 1
                continue
            assert status == 0, program.said(name)
            break
        ends += 1
        found = holds(program.folder / name)
        assert found == expected, f"after kill {kills}"
        assert not list((program.folder / name).rglob(".*.tmp"))
    print(f"{kind}: {kills} kills over {events} events, {ends} ends, all equal")
