"""Every tutorial runs as it is written, in order, in an empty folder; random weights stand for the embedded model."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
TUTORIALS = sorted((DOCS / "tutorials").glob("*.md"))

SHELL = """
metashot() {
  local model=(model=tiny)
  [[ "$1" == init || "$*" == *checkpoint=* && "$*" == *model=* ]] && model=()
  "$PYTHON" -c 'import sys; sys.argv[0] = "metashot"; from metashot.stages.command import main; main()' "$@" "${model[@]}"
}
"""


def blocks(page: Path) -> list[str]:
    return re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=[page.stem for page in TUTORIALS])
def test_a_tutorial_runs_as_it_is_written(page, tmp_path):
    script = SHELL + "".join(blocks(page))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=580,
        env={**os.environ, "PYTHON": sys.executable, "METASHOT_CACHE": str(tmp_path / ".cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2500:] + done.stderr[-2500:]
    assert "Traceback" not in done.stderr


def test_every_page_is_in_the_site_and_every_link_between_pages_leads_somewhere():
    named = re.findall(r"[\w/-]+\.md", (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8"))
    there = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert set(named) == there
    for page in [*DOCS.rglob("*.md"), DOCS.parent / "README.md"]:
        text = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)#\s]+)", text):
            assert "://" in link or (page.parent / link).exists(), f"{page}: {link}"


def test_lines_of_readme_and_pages_are_short():
    """Tables cannot be broken; all other lines can."""
    for page in [*DOCS.rglob("*.md"), DOCS.parent / "README.md"]:
        if "reference" in page.parts:
            continue
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
            assert len(line) <= 120 or line.startswith("|"), f"{page}:{number} has {len(line)} characters"
