"""The README's examples are real."""

import contextlib
import io
import re

import pytest


@pytest.mark.real_model
def test_the_python_quick_start_prints_what_the_readme_says(repository):
    (code,) = re.findall(r"```python\n(.*?)```", (repository / "README.md").read_text(), flags=re.DOTALL)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    promised = re.search(r"# (\[.*?\])$", code, flags=re.MULTILINE)[1]
    assert promised in printed.getvalue()


def test_every_group_and_stage_of_the_readme_exists(repository):
    readme = (repository / "README.md").read_text()
    groups = {path.name for path in (repository / "conf").iterdir() if path.is_dir()}
    table = re.search(r"\| group \| choices \|.*?\n\n", readme, flags=re.DOTALL)[0]
    named = set(
        re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in table.splitlines()[2:] if line))
    )
    assert named <= groups
    for group in named:
        assert list((repository / "conf" / group).glob("*.yaml"))


def test_every_experiment_of_the_readme_exists(repository):
    named = re.findall(r"experiment=(\w+)", (repository / "README.md").read_text())
    assert named
    for name in named:
        assert (repository / "conf" / "experiment" / f"{name}.yaml").is_file(), name
