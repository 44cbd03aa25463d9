"""A command composes its config once, and what it composes is what Hydra would have composed."""

import json
import subprocess
import sys

import pytest
import yaml

COUNTED = """
import json, sys
from hydra._internal import config_loader_impl
made = []
original = config_loader_impl.create_defaults_list
config_loader_impl.create_defaults_list = lambda **named: made.append(1) or original(**named)
if sys.argv.pop(1) == "twice":
    from contextlib import nullcontext
    import metashot.stages.command
    metashot.stages.command.composing_once = nullcontext
from metashot.stages.command import main
try:
    main()
finally:
    print("composed", len(made))
"""


def command(how, *arguments):
    script = [sys.executable, "-c", COUNTED, how, *arguments]
    return subprocess.run(script, capture_output=True, text=True, check=False)


def composed(done):
    return [line for line in done.stdout.splitlines() if line.startswith("composed")]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """Arguments of a tiny run whose cells are stored, below one folder."""
    folder = tmp_path_factory.mktemp("once")
    arguments = ["debug=smoke", f"results_root={folder}"]
    subprocess.run([sys.executable, "run.py", *arguments], check=True, capture_output=True)
    return folder, arguments


def test_a_run_composes_once_and_leaves_what_hydra_leaves(smoke):
    folder, arguments = smoke
    left = {}
    for how, count in (("once", 1), ("twice", 2)):
        output = folder / how
        done = command(how, *arguments, f"hydra.run.dir={output}")
        assert composed(done) == [f"composed {count}"], done.stderr
        files = [
            yaml.safe_load((output / ".hydra" / name).read_text())
            for name in ("config.yaml", "overrides.yaml")
        ]
        (hydra,) = [yaml.safe_load((output / ".hydra" / "hydra.yaml").read_text())["hydra"]]
        hydra["run"] = hydra["runtime"]["output_dir"] = None  # its own folder
        hydra["overrides"]["hydra"] = [one for one in hydra["overrides"]["hydra"] if "run.dir" not in one]
        left[how] = json.dumps([files, hydra], sort_keys=True)
    assert left["once"] == left["twice"]
    assert '"mode": "RUN"' in left["once"]


def test_a_sweep_composes_itself_and_each_job_once(smoke):
    done = command("once", "-m", *smoke[1], "k=1,2,3")
    assert composed(done) == ["composed 4"], done.stderr


def test_a_multirun_that_a_file_asks_for_is_one(smoke, tmp_path):
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "mine.yaml").write_text(
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      k: 1,2\n"
    )
    done = command("once", "--config-dir", str(tmp_path), *smoke[1], "experiment=mine")
    assert done.returncode == 0, done.stderr
    assert "2 jobs" in done.stdout or "2 finished" in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("method=chanel", "error: method: no choice 'chanel' (did you mean 'channel'?)"),
        ("method=direct,channel", "error: method: "),
        ("hydra.mode=MULTIRUM", "error: hydra.mode: "),
    ],
)
def test_a_mistake_is_the_line_that_it_is_without(smoke, mistake, message):
    lines = [command(how, *smoke[1], mistake) for how in ("once", "twice")]
    assert [done.returncode for done in lines] == [2, 2], lines
    assert lines[0].stderr == lines[1].stderr
    assert lines[0].stderr.startswith(message), lines[0].stderr
