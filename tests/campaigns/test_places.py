"""Places that are a file, may not be written, vanish or fill up: one line, an exit status that is not 0, and a way to go on."""

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from commands import COMMANDS, NEEDS, PREPARE, ROOTS, SYNTHETIC, lay_out
from program import Removal

REMOVALS = 6
"""Of each place, spread over the command's changes of files."""
WRITES = {
    "evaluate": ("out", "root"), "train": ("out",), "meta-training": ("out", "root"), "tuning": ("out", "root"),
    "prepare": ("out", "data"), "conversion": ("out", "cache"), "sweep": ("sweep", "root"), "report": ("out", "report"),
}  # fmt: skip
"""Folders that a command writes into; the first is its own."""
STORES = {("evaluate", "root"), ("tuning", "root"), ("sweep", "root"), ("conversion", "cache")}
"""Those of which a run that ends well needs nothing more."""
NOT_MADE_AGAIN = {
    ("sweep", "root"): ("root/cells/",),
    ("tuning", "out"): ("out/prompts/", "out/tuning.jsonl"),
}
"""What was lost with its folder and a second command leaves lost: stored cells of finished jobs, which have their own results;
learned prompts and curves of cells that are stored, and so not tuned again. The first command failed in one line for the latter."""
PLACES = [(kind, place) for kind, places in WRITES.items() for place in places]
CLUSTERS = ("stage=prepare", "method=supmer", "model=tiny", "METASHOT_CACHE=ROOT/cache", *ROOTS)
FINISHED = {
    "stored cells": ("root", COMMANDS["evaluate"], COMMANDS["evaluate"]),
    "prepared data": ("data", COMMANDS["prepare"], COMMANDS["prepare"]),
    "prepared data, doctor": ("data", COMMANDS["prepare"], ("stage=doctor", *PREPARE[1:], *ROOTS)),
    "converted weights": ("cache", COMMANDS["conversion"], (*COMMANDS["conversion"], "seeds=[13]")),
    "clusters": ("cache", CLUSTERS, CLUSTERS),
    "checkpoints": ("out", COMMANDS["train"], (*SYNTHETIC, "method=metaicl", "checkpoint=ROOT/out", "seeds=[100]",
                                               "results_root=ROOT/root", "hydra.run.dir=ROOT/evaluated", "logger=none")),
    "runs": ("out", COMMANDS["evaluate"], ("stage=report", "runs=[ROOT/out]", "report.draws=50", "report.permutations=50",
                                           "results_root=ROOT/root", "hydra.run.dir=ROOT/report", "model=tiny")),
}  # fmt: skip
"""What a first command leaves finished: its folder, that command, and one that only reads it."""


@pytest.fixture
def sealed_off():
    """`sealed_off(folder)`: nothing in it may be written until the test ends."""
    sealed = []

    def call(folder):
        for path in [folder, *folder.rglob("*")]:
            path.chmod(path.stat().st_mode & ~0o222)
        sealed.append(folder)

    yield call
    for folder in sealed:
        for path in [folder, *folder.rglob("*")]:
            path.chmod(path.stat().st_mode | 0o200)


def prepared(program, kind):
    lay_out(program.folder)
    if kind in NEEDS:
        command, place = NEEDS[kind]
        assert program(COMMANDS[command], place) == 0, program.said(place)


def the_error(program, name):
    """The one line that says what is wrong."""
    said = program.said(name)
    assert "Traceback" not in said, said
    lines = [line for line in said.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, said
    return lines[0]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("kind", "place"), PLACES)
@pytest.mark.parametrize("fault", ["file", "read-only"])
def test_a_place_that_cannot_be_written_is_one_line(program, sealed_off, kind, place, fault):
    prepared(program, kind)
    folder = program.folder / "run" / place
    folder.parent.mkdir()
    if fault == "file":
        folder.write_text("mine")
    else:
        folder.mkdir()
        sealed_off(folder)
    status = program(COMMANDS[kind], "run", privileged=False)
    assert status in (1, 2), program.said("run")
    # A sweep names the folder job by job, and ends in one line of its own.
    assert str(folder) in (program.said("run") if kind == "sweep" else the_error(program, "run"))
    assert folder.read_text() == "mine" if fault == "file" else not list(folder.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("store", FINISHED)
def test_what_is_finished_serves_read_only(program, holds, sealed_off, store):
    lay_out(program.folder)
    place, first, second = FINISHED[store]
    assert program(first, "run") == 0, program.said("run")
    kept = program.folder / "run" / place
    sealed_off(kept)
    before = holds(kept)
    elsewhere = tuple(word.replace("hydra.run.dir=ROOT/out", "hydra.run.dir=ROOT/again") for word in second)
    status = program(elsewhere, "run", privileged=False)
    assert status == 0, program.said("run")
    assert holds(kept) == before


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("kind", "place"), PLACES)
def test_a_place_that_vanishes_is_no_silent_loss(program, holds, kind, place):
    """Removed before some change of a file: the run fails in one line, or has lost nothing; then the same command goes on."""
    program.undisturbed(kind, COMMANDS[kind])
    expected, events = holds(program.folder / "whole"), program.events("whole")
    needed = tuple(f"{one}/" for one in WRITES[kind] if (kind, one) not in STORES)
    failed = 0
    for number in range(REMOVALS):
        name = f"removed-{number}"
        gone = Removal(str(program.folder / name / place))
        status = program(COMMANDS[kind], name, 1 + (number + 1) * events // (REMOVALS + 1), gone)
        found = holds(program.folder / name)
        if status:
            the_error(program, name)
            failed += 1
        # Another folder than the run's own may go, whole, when all was written there: nobody looks again.
        elif place == WRITES[kind][0] or (program.folder / name / place).exists():
            assert {file for file in expected if file.startswith(needed)} <= found.keys(), program.said(name)
        assert program(COMMANDS[kind], name) == 0, program.said(name)
        lost = NOT_MADE_AGAIN.get((kind, place), ())
        again = holds(program.folder / name)
        assert again.keys() <= expected.keys(), number
        assert _without(again, lost) == _without(expected, lost), number
    print(f"{kind}, {place}: {REMOVALS} removals, {failed} runs failed, none silent, all ends equal")


def _without(files, lost):
    """The files that must be equal, the rows of each in an order of their own: cells that went with a folder come last."""
    return {
        file: sorted(content, key=str) if isinstance(content, list) else content
        for file, content in files.items()
        if not file.startswith(lost or ("\0",))
    }


@pytest.fixture
def small_disk(tmp_path):
    """`small_disk(folder, kilobytes)` puts a file system of that size there, or changes its size."""
    mounted = []

    def call(folder, kilobytes):
        verb = "remount," if folder in mounted else ""
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"{verb}size={kilobytes}k", "tmpfs", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("no file system may be mounted here")
        if not verb:
            mounted.append(folder)

    yield call
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", COMMANDS)
def test_a_full_disk_is_one_line_and_the_command_goes_on_when_there_is_room(program, holds, small_disk, kind):
    program.undisturbed(kind, COMMANDS[kind])
    expected = holds(program.folder / "whole")
    used = sum(-(-path.stat().st_size // 4096) * 4 for path in (program.folder / "whole").rglob("*"))
    failed = 0
    for number in range(8):
        name = f"full-{number}"
        small_disk(program.folder / name, max(8, used * (number + 1) // 9))
        status = program(COMMANDS[kind], name)
        said = program.said(name)
        if status == 0:
            break
        assert "No space left" in said or "the disk is full" in said
        the_error(program, name)
        failed += 1
        small_disk(program.folder / name, 1 << 20)
        assert program(COMMANDS[kind], name) == 0, program.said(name)
        assert holds(program.folder / name) == expected, number
    assert failed > 2
    print(f"{kind}: {failed} full disks told, all ends equal")
