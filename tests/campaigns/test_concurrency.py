"""Four processes on one root, sweep, conversion, preparation and training folder: nothing is lost, damaged or done twice."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from commands import COMMANDS, SYNTHETIC, lay_out

PROCESSES = 4


def together(program, commands, names):
    """Exit statuses of commands that run at the same time, each in its folder."""
    children = [program.start(command, name) for command, name in zip(commands, names, strict=True)]
    for child in children:
        child.join(300)
    return [child.exitcode for child in children]


def raced(program, kind, place, shared):
    """The command alone in `alone`, then several at once whose `place` is `shared`: their names and exit statuses."""
    assert program(COMMANDS[kind], "alone") == 0, program.said("alone")
    command = tuple(text.replace(place, shared) for text in COMMANDS[kind])
    names = [f"run-{number}" for number in range(PROCESSES)]
    return names, together(program, [command] * PROCESSES, names)


def computed(folder):
    """Cells that a run computed itself."""
    return json.loads((folder / "run.json").read_text())["cost"]["cells_computed"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_on_one_root_every_cell_is_whole_and_computed_once(program, holds):
    names = [f"run-{number}" for number in range(PROCESSES)]
    shared = (
        *SYNTHETIC,
        "method=direct",
        "seeds=[100,13,21]",
        "results_root=SHARED/root",
        "hydra.run.dir=ROOT/out",
        "logger=none",
    )
    assert program(shared, "alone") == 0, program.said("alone")
    expected = holds(program.folder / "alone" / "out")
    first = holds(program.folder / "root")
    for path in sorted((program.folder / "root").rglob("*.jsonl")):
        path.unlink()
    assert together(program, [shared] * PROCESSES, names) == [0] * PROCESSES
    for name in names:
        found = holds(program.folder / name / "out")
        assert found["summary.json"] == expected["summary.json"]
        assert sorted(map(str, found["results.jsonl"])) == sorted(map(str, expected["results.jsonl"]))
    assert holds(program.folder / "root") == first


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_on_one_training_folder_all_but_one_are_refused(program, holds):
    names, statuses = raced(program, "train", "ROOT", "SHARED/same")
    assert statuses.count(0) >= 1
    for name, status in zip(names, statuses, strict=True):
        if status:
            assert status == 2
            lines = [line for line in program.said(name).splitlines() if line.startswith("error:")]
            assert len(lines) == 1
            assert "another process trains in this folder" in lines[0]
    whole = {
        name: content for name, content in holds(program.folder / "alone").items() if "checkpoints" in name
    }
    found = {
        name: content for name, content in holds(program.folder / "same").items() if "checkpoints" in name
    }
    assert found == whole


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_on_one_sweep_the_first_runs_it_and_the_others_say_so(program, holds):
    names, statuses = raced(program, "sweep", "ROOT", "SHARED/same")
    assert statuses.count(0) >= 1
    assert all(status in (0, 2) for status in statuses)
    for name, status in zip(names, statuses, strict=True):
        assert (status == 2) == ("another process" in program.said(name)), program.said(name)
    assert holds(program.folder / "same" / "root") == holds(program.folder / "alone" / "root")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_on_one_data_root_the_files_are_those_of_one(program, holds):
    lay_out(program.folder)
    _, statuses = raced(program, "prepare", "ROOT/data", "SHARED/data")
    assert statuses == [0] * PROCESSES
    assert holds(program.folder / "data") == holds(program.folder / "alone" / "data")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_on_one_cluster_cache_the_clusters_are_made_once(program, holds, tmp_path):
    command = (
        "stage=prepare",
        "method=supmer",
        "model=tiny",
        "results_root=ROOT/root",
        "hydra.run.dir=ROOT/out",
    )
    names = [f"run-{number}" for number in range(PROCESSES)]
    cache = {"METASHOT_CACHE": str(tmp_path / "cache")}
    children = [program.start(command, name, **cache) for name in names]
    for child in children:
        child.join(300)
    assert [child.exitcode for child in children] == [0] * PROCESSES, program.said(names[0])
    made = [name for name in names if "(cached)" not in program.said(name)]
    assert len(made) == 1
    assert not list((tmp_path / "cache").rglob(".*.tmp"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_on_one_conversion_the_weights_are_converted_once(program, holds):
    lay_out(program.folder)
    names, statuses = raced(program, "conversion", "ROOT/cache", "SHARED/cache")
    assert statuses == [0] * PROCESSES
    made = [name for name in names if "] - converting tiny.gguf" in program.said(name)]
    assert len(made) == 1
    alone = holds(program.folder / "alone")
    shared = holds(program.folder / "cache")
    assert shared == {
        name.removeprefix("cache/"): content for name, content in alone.items() if name.startswith("cache/")
    }
    for name in names:
        assert holds(program.folder / name / "out") == holds(program.folder / "alone" / "out")
    assert not list((program.folder / "cache").rglob(".*.tmp"))
