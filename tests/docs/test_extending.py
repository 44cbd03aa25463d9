"""Every example of `docs/extending.md` is written to a folder, type-checked as the project is, and run as it stands there.

The first line of an example names its file: one of the reader's own folder, or one of the package, of which a copy is
changed. How many files that are is the count that the page's table gives.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "extending.md").read_text(encoding="utf-8")
WITHOUT_CODE = {"A family"}
"""Its code is that of `examples/`, which tests of its own run."""
INSIDE = ("src/", "the package's ")

SHELL = """
metashot() {
  local model=(model=tiny)
  [[ "$*" == *model=* || "$1" == --help-keys ]] && model=()
  "$PYTHON" -c 'import sys; sys.argv[0] = "metashot"; from metashot.stages.command import main; main()' "$@" "${model[@]}"
}
"""


@dataclass(frozen=True)
class Example:
    """One fenced block: the file it is, or the entry of a file that it is, and its text."""

    place: str
    entry: str
    text: str

    @property
    def is_inside(self) -> bool:
        return self.place.startswith(INSIDE)

    @property
    def path(self) -> str:
        """From the reader's folder, or of the copy from the folder above the package."""
        if not self.is_inside:
            return self.place
        return "metashot/" + self.place.removeprefix("src/").removeprefix("the package's ")


def sections():
    return {title: body for title, body in re.findall(r"^## (.+)\n((?:(?!^## ).*\n)*)", PAGE, re.M)}


def examples(body):
    found = []
    for text in re.findall(r"```(?:python|yaml)\n(.*?)```", body, re.DOTALL):
        place, _, entry = text.partition("\n")[0].removeprefix("# ").partition(", in ")
        found.append(Example(place, entry, text))
    return found


def commands(body):
    return "".join(re.findall(r"```bash\n(.*?)```", body, re.DOTALL))


def counted():
    """Title of a section -> (places, whose), as the table says."""
    rows = re.findall(r"^\| \[(.+?)\]\(#(.+?)\) \| (\d+) \| (.+?) \|", PAGE, re.M)
    return {name[0].upper() + name[1:]: (int(places), whose) for name, _, places, whose in rows}


def entered(source, example):
    """The source of a module with the lines of an example among the entries of the object that it names."""
    lines = [line for line in example.text.splitlines()[1:] if line]
    imports = [line for line in lines if line.startswith(("from ", "import "))]
    rest = [line for line in lines if line not in imports]
    (node,) = (one for one in ast.parse(source).body if example.entry in names_of(one))
    held = source.splitlines()
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        # Behind the last field or first statement, before methods and what follows.
        last = max(
            (one for one in node.body if isinstance(one, ast.AnnAssign | ast.Assign | ast.Expr | ast.If)),
            key=lambda one: one.end_lineno,
        )
        at, indent = last.end_lineno, " " * 4
    else:
        # Behind the last entry, whose line ends with a comma; a registry on one line gets it before the bracket.
        rest[-1] += ","
        inner = [n for n in range(node.lineno - 1, node.end_lineno) if held[n].rstrip().endswith(",")]
        if not inner:
            head, bracket = held[node.lineno - 1][:-1], held[node.lineno - 1][-1]
            held[node.lineno - 1 : node.lineno] = [f"{head},", *rest, bracket]
            rest, at, indent = [], node.lineno - 1, ""
        else:
            at = inner[-1] + 1
            indent = re.match(r" *", held[inner[-1]])[0]
    held[at:at] = [indent + line for line in rest]
    below = max(
        one.end_lineno for one in ast.parse(source).body if isinstance(one, ast.Import | ast.ImportFrom)
    )
    held[below:below] = imports
    return "\n".join(held) + "\n"


def names_of(node):
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def written(folder, body):
    """Write the examples of a section; gives the Python files that were written or changed."""
    found = examples(body)
    if any(example.is_inside for example in found):
        shutil.copytree(
            REPOSITORY / "src",
            folder / "metashot",
            ignore=shutil.ignore_patterns("__pycache__", "hydra_plugins"),
        )
        shutil.copytree(REPOSITORY / "conf", folder / "metashot" / "conf")
    for example in found:
        path = folder / example.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if example.entry:
            path.write_text(entered(path.read_text("utf-8"), example), encoding="utf-8")
        elif path.exists():  # a YAML of the package, which the keys are added to
            path.write_text(path.read_text("utf-8") + example.text, encoding="utf-8")
        else:
            path.write_text(example.text, encoding="utf-8")
    return sorted({example.path for example in found if example.path.endswith(".py")})


def test_the_table_names_the_sections_and_counts_the_places_that_each_edits():
    table, bodies = counted(), sections()
    assert list(table) == list(bodies)
    for title, (places, whose) in table.items():
        found = examples(bodies[title])
        if title in WITHOUT_CODE:
            continue
        assert len({example.path for example in found}) == places, title
        assert {example.is_inside for example in found} == {whose != "yours"}, title
        assert commands(bodies[title]), title


def test_a_change_is_one_file_of_ones_own_or_a_file_and_a_registry():
    for title, body in sections().items():
        edited = {example.path for example in examples(body) if example.entry}
        made = {example.path for example in examples(body)} - edited
        assert len(edited) <= 1, title
        assert len(made) <= 2, title


@pytest.mark.slow
@pytest.mark.parametrize("title", [title for title in sections() if title not in WITHOUT_CODE])
def test_an_example_runs_as_it_is_written(title, tmp_path):
    body = sections()[title]
    written(tmp_path, body)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", SHELL + commands(body)], cwd=tmp_path, capture_output=True, text=True, timeout=580,
        env={
            **os.environ, "PYTHON": sys.executable, "METASHOT_TRUSTED_TARGETS": "own", "PYTHONPATH": ".",
            "METASHOT_CACHE": str(tmp_path / ".cache"),
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2500:] + done.stderr[-2500:]
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_every_example_is_type_checked_as_strictly_as_the_project(tmp_path):
    pyright = Path(sys.executable).with_name("pyright")
    if not pyright.is_file():
        pytest.skip("no pyright here")
    every = "".join(body for title, body in sections().items() if title not in WITHOUT_CODE)
    rules = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["tool"]["pyright"]
    settings = rules | {"include": written(tmp_path, every), "extraPaths": []}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    done = subprocess.run(
        [pyright, "--pythonpath", sys.executable, "--project", tmp_path],
        capture_output=True, text=True, timeout=580,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]


EDITS = [
    ("ranked", "own/scorers.py", "scale * math.log", "2 * scale * math.log"),
    ("ranked", "own/calibrations.py", "plain - 0.5", "plain - 0.7"),
    ("tuned", "own/tuning.py", "self.prompt + self.scale", "self.prompt + 2 * self.scale"),
]


@pytest.mark.slow
def test_own_tuning_scorer_and_calibration_are_found_by_their_source_and_stand_in_the_report(tmp_path):
    """Run, run again, edit one file in place, run again: computed, found, computed; then a report of all."""
    written(tmp_path, "".join(sections()[f"A {part}"] for part in ("scorer", "calibration", "tuning method")))
    prepare, _, tuned = commands(sections()["A tuning method"]).partition("metashot ")
    runs = {
        "ranked": "--config-dir conf method=halved scorer=uniform k=2 'seeds=[100]' 'data.tasks=[demo-spam]'",
        "tuned": tuned.strip(),
    }

    def run(name):
        """Whether its cells were computed."""
        return "nothing to compute" not in said(f"metashot {runs[name]} hydra.run.dir=outputs/{name}")

    def said(line):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", SHELL + line], cwd=tmp_path, capture_output=True, text=True, timeout=580,
            env={
                **os.environ, "PYTHON": sys.executable, "METASHOT_TRUSTED_TARGETS": "own", "PYTHONPATH": ".",
                "PYTHONDONTWRITEBYTECODE": "1",
            },
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    said(prepare)
    assert [run(name) for name in (*runs, *runs)] == [True, True, False, False]
    for name, place, before, after in EDITS:
        code = (tmp_path / place).read_text("utf-8")
        assert before in code
        (tmp_path / place).write_text(code.replace(before, after), encoding="utf-8")
        assert run(name), place
        assert not run(name), place
    said("metashot stage=report report.folder=report 'report.formats=[markdown]'")
    report = (tmp_path / "report" / "report.md").read_text("utf-8")
    assert "| Half calibrated |" in report
    assert "| Shifted prompt |" in report
