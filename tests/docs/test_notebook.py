"""The notebook of the first hour runs from its first cell to its last, in an empty folder."""

import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebooks" / "first_hour.ipynb"


@pytest.mark.slow
def test_the_notebook_runs_and_says_what_its_text_promises(tmp_path, monkeypatch):
    monkeypatch.setenv("METASHOT_CACHE", str(tmp_path / ".cache"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    manager = AsyncKernelManager()
    manager.kernel_spec.argv[0] = (
        sys.executable
    )  # this environment, whatever kernel the machine knows as python3
    NotebookClient(
        notebook, km=manager, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    told = [
        cell.outputs[-1]["data"]["text/plain"]
        for cell in notebook.cells
        if cell.cell_type == "code" and cell.outputs and "data" in cell.outputs[-1]
    ]
    assert told[0] == "['positive', 'negative']"
    assert told[-1] == "True"
    rows = next(text for text in told if text.startswith("[('demo-spam'"))
    assert rows.count("macro_f1") == 2  # one for each seed


def test_the_notebook_ships_without_outputs():
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        assert cell.cell_type != "code" or (not cell.outputs and cell.execution_count is None)
