"""The wheel works without the checkout: its command, its Python quick start, beside a user's own `data.py` and `engine/`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

QUICK_START = """
from metashot import InContextClassifier
import metashot

assert "site-packages" in metashot.__file__, metashot.__file__
clf = InContextClassifier.from_pretrained(
    "tiny", method="channel", demonstrations=[{"input": "good food", "output": "positive"}, {"input": "bad", "output": "negative"}]
)
print(clf.predict(["fine evening"], options=["positive", "negative"]))
"""


def run(*command: object, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Any:
    """A clean environment with the wheel in it; third-party packages are those of the running one."""
    place = tmp_path_factory.mktemp("wheel")
    sources = place / "sources"  # a build leaves files beside what it builds
    for name in ("src", "conf"):
        shutil.copytree(
            repository / name, sources / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(repository / name, sources / name)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", place / "dist", sources, cwd=place)
    (archive,) = (place / "dist").glob("metashot-*.tar.gz")
    (wheel,) = (place / "dist").glob("metashot-*.whl")  # built from the archive, so that holds everything too
    run(sys.executable, "-m", "twine", "check", "--strict", archive, wheel, cwd=place)
    names = zipfile.ZipFile(wheel).namelist()
    venv.create(place / "env", with_pip=False)
    python = place / "env" / "bin" / "python"
    site = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=place).strip()
    )
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        wheel,
        cwd=place,
    )
    borrowed = [sysconfig.get_path("purelib"), *(path for path in sys.path if path.endswith("site-packages"))]
    (site / "borrowed.pth").write_text("\n".join(dict.fromkeys(borrowed)) + "\n", encoding="utf-8")
    folder = place / "work"
    (folder / "engine").mkdir(parents=True)
    (folder / "engine" / "__init__.py").write_text(
        "raise ImportError('the engine of the user')\n", encoding="utf-8"
    )
    (folder / "data.py").write_text("raise ImportError('the data of the user')\n", encoding="utf-8")
    return python, folder, names


def test_the_wheel_holds_code_configs_and_data_under_one_name(installed: Any) -> None:
    _, _, names = installed
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"metashot", "hydra_plugins"}
    for name in (
        "metashot/conf/config.yaml", "metashot/conf/method/channel.yaml", "metashot/data/tasks/demo_tasks/index.yaml",
        "metashot/engine/report/page/page.html", "metashot/metaprompt/meta/format_files/scss.yaml",
        "hydra_plugins/metashot_sweeps/sweeper.py",
    ):  # fmt: skip
        assert name in names


def test_the_command_runs_in_a_users_folder(installed: Any) -> None:
    python, folder, _ = installed
    out = run(
        python.parent / "metashot", "method=zero", "model=tiny", "data.tasks=[demo-spam]", "seeds=[100]", cwd=folder,
        PYTHONPATH="",
    )  # fmt: skip
    assert "mean of tasks" in out
    assert list((folder / "outputs").rglob("results.jsonl"))


def test_the_python_quick_start_runs_in_a_users_folder(installed: Any) -> None:
    python, folder, _ = installed
    assert run(python, "-c", QUICK_START, cwd=folder, PYTHONPATH="").strip().endswith("']")
