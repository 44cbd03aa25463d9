"""`metashot init`: a study that runs as its README says, the version, and names of the package."""

import os
import re
import subprocess
import sys
from importlib.metadata import version

import pytest

import metashot
from metashot.base.errors import ConfigError
from metashot.stages.study import make_study


def metashot_command(*words, cwd, **environment):
    return subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'metashot'; from metashot.stages.command import main; main()", *words],
        cwd=cwd, capture_output=True, text=True, timeout=300, env={**os.environ, **environment},
    )  # fmt: skip


@pytest.mark.slow
def test_the_commands_of_a_new_study_run_as_its_readme_says(tmp_path):
    ended = metashot_command("init", "my_study", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    study = tmp_path / "my_study"
    (block,) = re.findall(r"```bash\n(.*?)```", (study / "README.md").read_text(), flags=re.DOTALL)
    # The real commands on random weights: only the model is another.
    shell = f'metashot() {{ "{sys.executable}" -c "from metashot.stages.command import main; main()" "$@" model=tiny; }}\n'
    done = subprocess.run(
        ["bash", "-ec", shell + block], cwd=study, capture_output=True, text=True, timeout=300,
        env={**os.environ, "METASHOT_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "report.html" in done.stdout


def test_a_study_overwrites_nothing(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("x")
    with pytest.raises(ConfigError, match="there already"):
        make_study(tmp_path / "mine")
    assert (tmp_path / "mine" / "file").read_text() == "x"


def test_a_study_without_a_name_is_one_line(tmp_path):
    ended = metashot_command("init", cwd=tmp_path)
    assert ended.returncode == 2
    assert (
        ended.stderr.strip()
        == "error: init: takes the name of one folder (for example: metashot init my_study)"
    )


def test_the_name_alone_says_what_to_type_next_and_starts_nothing(tmp_path):
    done = metashot_command(cwd=tmp_path)
    assert done.returncode == 0
    assert "metashot init my_study" in done.stdout
    assert not list(tmp_path.iterdir())


def test_the_version_is_that_of_the_distribution(tmp_path):
    assert metashot.__version__ == version("metashot")
    assert metashot_command("--version", cwd=tmp_path).stdout == f"metashot {version('metashot')}\n"


def test_dir_lists_the_public_names_and_each_is_there():
    assert "InContextClassifier" in dir(metashot)
    assert all(getattr(metashot, name) is not None for name in dir(metashot))


def test_help_names_the_command_that_was_typed(tmp_path, repository):
    assert "  metashot stage=report " in metashot_command("--help", cwd=tmp_path).stdout
    checkout = subprocess.run(
        [sys.executable, str(repository / "run.py"), "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "  python run.py stage=report " in checkout.stdout
