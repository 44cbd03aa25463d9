"""A set of formats in one run: each is evaluated as it would be alone."""

import json
import subprocess
import sys

import pytest

from metashot.base.components.choices import named
from metashot.base.errors import ConfigError
from metashot.icl.prompting.config import MetaiclPrompt
from metashot.icl.prompting.prompt_set import PromptSet


def test_the_set_of_conf_names_its_formats():
    prompts = named("prompt", "set")
    assert list(prompts.members) == [one.name for one in prompts.members.values()]
    assert len(prompts.members) >= 5


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        ({}, "names no format"),
        ({"in": "set"}, "is a set itself"),
        ({"a/b": "metaicl"}, "no name of a folder"),
    ],
)
def test_what_is_no_set_is_refused(prompts, words):
    made = {"set": PromptSet(prompts={"one": MetaiclPrompt()}), "metaicl": MetaiclPrompt()}
    with pytest.raises(ConfigError, match=words):
        PromptSet(prompts={key: made[value] for key, value in prompts.items()})


def test_a_stage_that_needs_one_format_says_so():
    with pytest.raises(ConfigError, match="several formats"):
        named("prompt", "set").trained_as()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The small run of debug=smoke with a set, its plan and its report, and one of its formats alone."""
    root = tmp_path_factory.mktemp("set")
    base = [sys.executable, "run.py", "debug=smoke", f"results_root={root / 'results'}"]
    for stage, prompt in (("evaluate", "set"), ("plan", "set"), ("evaluate", "metaicl")):
        out = f"hydra.run.dir={root / f'{stage}_{prompt}'}"
        subprocess.run([*base, f"stage={stage}", f"prompt={prompt}", out], check=True, capture_output=True)
    reported = [*base, "stage=report", f"runs=[{root / 'evaluate_set'}]", f"hydra.run.dir={root / 'report'}"]
    subprocess.run(reported, check=True, capture_output=True)
    return root


@pytest.mark.slow
def test_each_format_of_a_set_is_a_run_of_its_own_and_equals_the_run_alone(finished):
    folders = sorted(finished.glob("evaluate_set/prompt=*"))
    assert [folder.name.partition("=")[2] for folder in folders] == sorted(named("prompt", "set").members)
    assert all(json.loads((folder / "run.json").read_text())["status"] == "finished" for folder in folders)
    inside = (finished / "evaluate_set" / "prompt=metaicl" / "predictions.jsonl").read_text()
    assert inside == (finished / "evaluate_metaicl" / "predictions.jsonl").read_text()
    spread = json.loads((finished / "evaluate_set" / "prompts.json").read_text())
    means = [json.loads((folder / "summary.json").read_text())["mean"]["value"] for folder in folders]
    assert 100 * spread["mean"]["value"] == pytest.approx(sum(means) / len(means))


@pytest.mark.slow
def test_the_plan_names_the_format_of_each_row(finished):
    rows = json.loads((finished / "plan_set" / "plan.json").read_text())
    assert list(dict.fromkeys(row["prompt"] for row in rows)) == list(named("prompt", "set").members)


@pytest.mark.slow
def test_tables_name_the_formats_and_no_class(finished):
    names = (finished / "report" / "report.md").read_text()
    assert all(f"prompt={name}" in names for name in named("prompt", "set").members)
    assert not any("metashot." in path.read_text() for path in (finished / "report" / "tables").glob("*.tex"))
