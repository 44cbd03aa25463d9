"""What is made of the words of a command line before Hydra reads them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from metashot.stages.command_line import with_new_keys, with_typed_folder

ROOT = Path(__file__).parents[2]


def test_keys_of_a_swept_group_may_be_new_to_the_default_choice():
    words = ["-m", "model=hf,local", "model.path=x", "k=4,16", "data.root=y", "seeds=[1,2]"]
    assert with_new_keys(words) == [
        "-m",
        "model=hf,local",
        "++model.path=x",
        "k=4,16",
        "data.root=y",
        "seeds=[1,2]",
    ]


def test_one_choice_is_checked_by_hydra():
    words = ["model=local", "model.path=x", "model.path='a,b'"]
    assert with_new_keys(words) == words


def test_an_open_map_takes_any_key():
    assert with_new_keys(["data.task_types.mine=multi-choice"]) == ["++data.task_types.mine=multi-choice"]


@pytest.mark.parametrize("option", ["--config-dir {}", "--config-dir={}", "-cd {}", "--config-dir '{}'"])
def test_completion_searches_the_folder_of_the_line_that_is_typed(option: str, tmp_path: Path):
    line = f"metashot {option.format(tmp_path)} method="
    asked = with_typed_folder(["-sc", "query=bash"], {"COMP_LINE": line})
    assert asked == ["-sc", "query=bash", "--config-dir", str(tmp_path)]
    assert with_typed_folder(["method=direct"], {"COMP_LINE": line}) == ["method=direct"]


@pytest.mark.parametrize(
    "line", ["metashot me", "metashot --config-dir", "metashot --config-dir /no/such me", "metashot 'me"]
)
def test_a_line_without_a_whole_folder_completes_as_ever(line: str):
    assert with_typed_folder(["-sc", "query=bash"], {"COMP_LINE": line}) == ["-sc", "query=bash"]


def test_choices_of_ones_own_folder_are_offered(tmp_path: Path):
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "my_rule.yaml").write_text("defaults: [direct]\n")
    line = f"metashot --config-dir {tmp_path} method="
    done = subprocess.run(
        [sys.executable, "run.py", "-sc", "query=bash"], cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_CWORD": "3"},
    )  # fmt: skip
    assert {"method=my_rule", "method=direct"} <= set(done.stdout.split())
