"""A sampled system beside one that answered all rows, from run folders."""

import json
from dataclasses import replace

import pytest

from metashot.engine.report.reading.outputs import read_outputs
from metashot.engine.report.systems.results import collect_systems
from metashot.engine.report.systems.sampled import sampled_systems
from metashot.engine.report.tables.sample_table import sample_table

SEEDS = (100, 13)


@pytest.fixture
def reported(tmp_path, made, written):
    """A full run of k=4, and every fourth row of one of k=16."""

    def read(with_texts=True):
        for k, rows in ((4, range(200)), (16, range(0, 200, 4))):
            folder, lines, cells = tmp_path / f"k{k}", [], []
            for seed in SEEDS:
                result, predictions = made("weather", seed, 1.0, n=200, k=k, salt=str(k))
                kept = [replace(predictions[place], index=number) for number, place in enumerate(rows)]
                sampled = 200 if len(rows) < 200 else 0
                cells.append((replace(result, n=len(kept), sampled_from=sampled), kept))
                lines += [
                    {"task": "weather", "inputs": [f"text {place}" for place in rows]},
                    {"task": "weather", "seed": seed, "demonstrations": ""},
                ]
            written(folder, cells, {"k": k})
            if with_texts:
                (folder / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        outputs = read_outputs([tmp_path])
        answers, _ = collect_systems(outputs, lambda _: (), draws=20, level=0.95, seed=0)
        return outputs, answers

    return read


def test_rows_are_found_by_their_text_and_the_reference_is_the_full_run(reported):
    outputs, answers = reported()
    (one,) = sampled_systems(outputs, answers, draws=200, level=0.95, seed=0)
    assert (one.row.system.k, one.control.system.k) == (16, 4)
    sample = next(row for row in answers if row.sampled)
    assert one.figures.plain.value == pytest.approx(sample.figures.mean.value)
    assert one.figures.controlled.low <= one.figures.controlled.value <= one.figures.controlled.high
    (row,) = sample_table([one], 0.95).rows
    assert row[4].text == "In-context, k=4 (tiny)"
    assert "§50/200 rows" in row[5].text


def test_without_texts_or_without_a_full_run_there_is_nothing(reported):
    outputs, answers = reported(with_texts=False)
    assert sampled_systems(outputs, answers, draws=20, level=0.95, seed=0) == []
    only = [row for row in answers if row.sampled]
    assert sampled_systems(outputs, only, draws=20, level=0.95, seed=0) == []
    assert not sample_table([], 0.95).rows
