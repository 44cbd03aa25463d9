"""The table of the spread over prompts, and the short names of what rows differ in."""

import pytest

from metashot.engine.report.reading.outputs import read_outputs
from metashot.engine.report.reading.variants import variant_names
from metashot.engine.report.systems.results import collect_systems
from metashot.engine.report.tables.prompt_table import prompt_table


@pytest.fixture
def answers_of(tmp_path, made, written):
    def read(names=None, formats=("chat", "plain", "arrow")):
        return _read(tmp_path, made, written, names, formats)

    return read


def _read(tmp_path, made, written, names, formats):
    for skill, name in enumerate(formats):
        prompt = {"_target_": "made.up.Prompt", "name": name, "example": f"{name} {{input}}"}
        for k in (4, 16):
            cells = [made("weather", seed, skill, k=k, salt=name) for seed in (100, 13)]
            written(tmp_path / f"{name}_{k}", cells, {"k": k, "prompt": prompt})
    outputs = read_outputs([tmp_path], names=names)
    return outputs, collect_systems(outputs, lambda _: (), draws=20, level=0.95, seed=0)[0]


def test_runs_that_differ_in_the_prompt_are_one_row_with_their_spread(answers_of):
    _, answers = answers_of()
    table = prompt_table(answers, 50, 0.95, 0)
    assert [row[table.columns.index("k")].value for row in table.rows] == [4, 16]
    shown = dict(zip(table.columns, table.rows[0], strict=True))
    values = [row.figures.mean.value for row in answers if row.system.k == 4]
    assert shown["Prompts"].value == 3
    assert abs(shown["Mean"].value - 100 * sum(values) / 3) < 1e-9
    assert shown["Highest"].text == f"arrow ({100 * max(values):.1f})"
    assert shown["Most sensitive tasks"].text == f"weather ({100 * (max(values) - min(values)):.1f})"


def test_one_prompt_has_no_spread(answers_of):
    assert not prompt_table(answers_of(formats=("chat",))[1], 50, 0.95, 0).rows


def test_a_key_or_a_value_can_have_a_short_name(answers_of):
    outputs, answers = answers_of({"prompt": "p", "prompt=chat": "turns"}, ("chat", "plain"))
    assert sorted({row.system.variant for row in answers}) == ["p=plain", "turns"]
    assert {run.config["prompt.name"] for run in outputs.runs} == {"chat", "plain"}


def test_classes_are_named_only_where_nothing_else_tells_runs_apart(answers_of):
    outputs, _ = answers_of(formats=("chat", "plain"))
    first, *_ = outputs.runs
    other = type(first)(
        first.folder, {**first.config, "prompt._target_": "made.up.Other", "prompt.example": "{input}"}
    )
    longer = type(first)(first.folder, {**first.config, "prompt.example": "longer"})
    names = variant_names([first, other, longer])
    assert len(set(names)) == 3
    assert not any("made.up" in name for name in names)
    same = type(first)(first.folder, {**first.config, "prompt._target_": "made.up.Other"})
    assert len(set(variant_names([first, same]))) == 2
