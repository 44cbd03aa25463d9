"""From the entries that were drawn back to the rows that they came from."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from metashot.data.preparation import task_files
from metashot.data.preparation.prepare import PrepareSettings, prepare
from metashot.data.preparation.row_selection import entry_rows
from metashot.data.rows.manifest import read_manifest
from metashot.data.settings import Setting

RECIPE = """
name: t
about: rows with gaps
task_type: classification
ontology: x
source: {files: {train: d.csv, test: d.csv}}
splits: {train: train, test: test}
fields: {text: text, label: text}
kind: labelled
input: "{text}"
label: label
labels: {a: bad, b: good}
options: [bad, good]
drop: [{field: label, equals: [skip]}]
"""


@given(kept=st.lists(st.booleans(), max_size=60), data=st.data())
def test_entries_are_the_rows_that_were_not_dropped(kept: list[bool], data: st.DataObject) -> None:
    rows = [row for row, is_kept in enumerate(kept) if is_kept]
    dropped = [row for row, is_kept in enumerate(kept) if not is_kept]
    entries = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=20)) if rows else []
    found = entry_rows(np.array(entries, dtype=np.int64), np.array(dropped, dtype=np.int64))
    assert found.tolist() == [rows[entry] for entry in entries]


@pytest.mark.parametrize("seeds", [(100,), (100, 13, 21)])
def test_a_file_read_twice_around_dropped_and_blank_rows_gives_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seeds: tuple[int, ...]
) -> None:
    """Rows of a class to leave out, blank texts and blank lines stand between the entries."""
    labels = ["skip" if n % 7 == 0 else "ab"[n % 2] for n in range(300)]
    texts = [" " if n % 11 == 0 else f'row {n}, "said"\nso' for n in range(300)]
    table = pd.DataFrame({"text": texts, "label": labels}).to_csv(index=False)
    (tmp_path / "d.csv").write_text(table.replace("skip\n", "skip\n\n"), encoding="utf-8")
    (tmp_path / "t.yaml").write_text(RECIPE, encoding="utf-8")
    manifests = []
    for held in (200_000, 3):
        monkeypatch.setattr(task_files, "HELD_ENTRIES", held)
        wanted = PrepareSettings(
            root=tmp_path / f"out{held}", setting=Setting("x", [], ["t"], []), k=8, seeds=seeds, online=False,
            recipe_path=(str(tmp_path),),
        )  # fmt: skip
        (outcome,) = prepare(wanted, Console(quiet=True)).outcomes
        assert outcome.status == "ok", outcome.reason
        manifests.append(read_manifest(wanted.root).tasks)
    assert manifests[0] == manifests[1]
    record = read_manifest(tmp_path / "out3").get("t", "test")
    assert record is not None
    left = [n for n in range(300) if n % 7 and n % 11]
    assert record.entries == {"train": len(left), "test": len(left)}
