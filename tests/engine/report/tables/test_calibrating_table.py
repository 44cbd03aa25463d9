"""Does calibration calibrate? The table of rules beside no calibration, from the same answers."""

import numpy as np
import pytest

from metashot.engine.metrics.confidence import confidence_of, expected_calibration_error
from metashot.engine.report.reading.outputs import read_outputs
from metashot.engine.report.systems.rescoring import rescore
from metashot.engine.report.tables.comparisons import calibrating_table


@pytest.fixture
def rescored(tmp_path, made, written):
    for k in (4, 16):
        cells = [made("weather", seed, 0.8, k=k, method="pmi", n_null=1) for seed in (100, 13, 21)]
        written(tmp_path / f"k{k}", cells, {"k": k, "method": {"name": "pmi", "calibration": "pmi"}})
    outputs = read_outputs([tmp_path])
    return outputs, rescore(outputs)


def test_the_error_of_the_rule_of_the_run_is_that_of_the_stored_scores(rescored):
    outputs, rows = rescored
    as_run = [r for r in rows if r.calibration.name == "pmi" and r.normalization.name == "token_mean"]
    assert len(as_run) == 2
    for one in as_run:
        runs = [number for number, run in enumerate(outputs.runs) if run.config["k"] == one.system.k]
        frame = outputs.predictions.filter(outputs.predictions["run"].is_in(runs))
        scores = np.array(frame["nll"].to_list())
        pairs = zip(frame["options"].to_list(), frame["gold"].to_list(), strict=True)
        stored = confidence_of(scores, np.array([options.index(gold) for options, gold in pairs]))
        assert one.error == pytest.approx(expected_calibration_error(stored.confidence, stored.right))
        assert one.nll == pytest.approx(stored.nll.mean())


def test_each_rule_is_set_against_none(rescored):
    _, rows = rescored
    table = calibrating_table(rows, ())
    pmi = next(dict(zip(table.columns, row, strict=True)) for row in table.rows if row[0].text == "pmi")
    by_rule = {
        name: [r for r in rows if r.calibration.name == name and r.normalization.name == "token_mean"]
        for name in ("pmi", "none")
    }
    change = np.mean([100 * (a.error - b.error) for a, b in zip(*by_rule.values(), strict=True)])
    assert pmi["ECE"].value == pytest.approx(change)
    assert pmi["Systems"].value == 2
    assert "none" not in [row[0].text for row in table.rows]
