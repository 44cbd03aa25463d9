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


def test_every_choice_that_the_readme_types_exists(repository):
    readme = (repository / "README.md").read_text()
    typed = re.findall(r"\b(method|scorer|logger|data|model|experiment)=([\w,]+)", readme)
    assert typed
    for group, values in typed:
        for value in values.split(","):
            assert (repository / "conf" / group / f"{value}.yaml").is_file(), f"{group}={value}"


def test_every_experiment_of_the_readme_exists(repository):
    named = re.findall(r"experiment=(\w+)", (repository / "README.md").read_text())
    assert named
    for name in named:
        assert (repository / "conf" / "experiment" / f"{name}.yaml").is_file(), name
