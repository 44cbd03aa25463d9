"""What is fitted on runs with `split=dev` and judged on those with `split=test`."""

import numpy as np
import pytest

from metashot.engine.metrics.held_out_calibration import fit_temperature
from metashot.engine.report.reading.outputs import read_outputs
from metashot.engine.report.systems.results import collect_systems
from metashot.engine.report.systems.stored_scores import stored_scores
from metashot.engine.report.tables.held_out_table import held_out, held_out_table


@pytest.fixture
def reported(tmp_path, made, written):
    def read(splits):
        for split in splits:
            cells = [
                made(task, seed, 0.5, n=16 if split == "dev" else 40, salt=split)
                for task in ("weather", "mood")
                for seed in (100, 13, 21)
            ]
            written(tmp_path / split, cells, {"k": 16, "split": split})
        outputs = read_outputs([tmp_path])
        answers, _ = collect_systems(outputs, lambda _: (), draws=20, level=0.95, seed=0)
        return stored_scores(outputs), answers

    return read


def test_a_system_on_both_splits_is_one_row(reported):
    stored, answers = reported(("dev", "test"))
    table = held_out_table(stored, answers, 0.9, 50, 0.95, 0)
    (row,) = table.rows
    shown = dict(zip(table.columns, row, strict=True))
    dev = next(one for system, one in stored.items() if system.variant == "split=dev")
    assert shown["Method"].text == "In-context"
    assert shown["Rows"].value == len(dev.gold) == 2 * 3 * 16
    assert shown["Temperature"].value == pytest.approx(fit_temperature(dev.scores, dev.gold))
    assert shown["NLL, tempered"].value <= shown["NLL"].value + 0.05


def test_one_split_alone_gives_no_row(reported):
    stored, answers = reported(("test",))
    assert not held_out_table(stored, answers, 0.9, 50, 0.95, 0).rows


def test_sets_of_each_task_hold_what_its_own_threshold_says(reported):
    """A plain loop over tasks and answers."""
    stored, _ = reported(("dev", "test"))
    by_split = {system.variant: one for system, one in stored.items()}
    dev, test = by_split["split=dev"], by_split["split=test"]
    found = held_out(dev, test, 0.8, 20, 0.95, 0)
    hits, sizes = [], []
    for task in ("weather", "mood"):

        def chance(one, place):
            row = np.exp(-one.scores[place])
            return row / row.sum()

        rows = np.flatnonzero(dev.tasks == task)
        strange = sorted(1 - chance(dev, i)[dev.gold[i]] for i in rows)
        limit = strange[int(np.ceil((len(rows) + 1) * 0.8)) - 1]
        for i in np.flatnonzero(test.tasks == task):
            inside = (1 - chance(test, i) <= limit) & np.isfinite(test.scores[i])
            hits.append(inside[test.gold[i]])
            sizes.append(inside.sum())
    assert found.coverage.value == pytest.approx(np.mean(hits))
    assert found.size == pytest.approx(np.mean(sizes))
    assert found.coverage.low <= found.coverage.value <= found.coverage.high
