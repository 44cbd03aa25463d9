"""What counts as the same cell when components of one's own are changed in place: four cases that gave stale numbers."""

import json
import os
import shutil
import subprocess
import sys

import pytest


@pytest.fixture
def case(repository, tmp_path):
    return shutil.copytree(repository / "examples" / "own_components", tmp_path / "case")


def evaluate(case, run, *overrides, store="store"):
    """The fingerprint and scores of each row, and whether they were computed."""
    root = case.parent
    environment = {
        **os.environ,
        "METASHOT_TRUSTED_TARGETS": "own_components",
        "PYTHONPATH": str(case),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    words = [
        sys.executable, "run.py", f"--config-dir={case / 'conf'}", "data=parity", "model=tiny", "k=2", "seeds=[100]",
        "logger=none", f"results_root={root / store}", f"hydra.run.dir={root / run}", *overrides,
    ]  # fmt: skip
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = (root / run / "predictions.jsonl").read_text().splitlines()
    return [json.loads(line)["nll"] for line in lines], "stored already" not in done.stdout


@pytest.mark.slow
def test_a_scorer_and_its_arguments_are_in_the_fingerprint(case):
    uniform, _ = evaluate(case, "uniform", "method=direct", "scorer=uniform")
    default, computed = evaluate(case, "default", "method=direct")
    assert computed
    assert default != uniform
    doubled, computed = evaluate(case, "doubled", "method=direct", "scorer=uniform", "scorer.scale=2.0")
    assert computed
    assert doubled == [[2 * nll for nll in row] for row in uniform]
    _, computed = evaluate(case, "again", "method=direct", "scorer=uniform", "scorer.scale=2.0")
    assert not computed


CALIBRATION = """

def tilted() -> Calibration:
    return Calibration("tilted", "an example", lambda plain, nulls: plain + 1.0)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "before", "after"),
    [
        ("root_tokens", "np.sqrt(lengths.tokens)", "np.cbrt(lengths.tokens)"),
        ("tilted", "plain + 1.0", "plain + 2.0"),
    ],
)
def test_a_rule_that_is_edited_in_place_is_computed_anew(case, rule, before, after):
    code = case / "own_components.py"
    text = code.read_text() + CALIBRATION
    text = text.replace("rules import Lengths", "rules import Calibration, Lengths")
    code.write_text(text)
    overrides = ["method=direct_root"]
    if rule == "tilted":
        overrides = ["method=direct", "++method.calibration={_target_: own_components.tilted}"]
    old, _ = evaluate(case, "old", *overrides)
    assert before in text
    code.write_text(text.replace(before, after))
    new, computed = evaluate(case, "new", *overrides)
    assert computed
    assert new == evaluate(case, "fresh", *overrides, store="fresh")[0]
    assert new != old
