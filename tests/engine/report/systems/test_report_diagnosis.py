"""The diagnosis of systems from stored scores, beside plain loops over the stored rows."""

import numpy as np
import pytest
from scipy.special import softmax

from metashot.engine.report.page.plots import diagnosis_plot
from metashot.engine.report.reading.outputs import read_outputs
from metashot.engine.report.systems.diagnosis import diagnose
from metashot.engine.report.systems.results import collect_systems
from metashot.engine.report.tables.diagnosis_table import diagnosis_table


@pytest.fixture
def read(tmp_path, made, written):
    def report(runs):
        for name, cells, config in runs:
            written(
                tmp_path / name, [made(task, seed, **more) for task, seed, more in cells], {"k": 16, **config}
            )
        outputs = read_outputs([tmp_path])
        answers, _ = collect_systems(outputs, lambda _: (), draws=10, level=0.95, seed=0)
        return outputs, answers, diagnose(outputs, answers)

    return report


def cells(salt="", skill=0.8, n_null=0):
    more = {"skill": skill, "salt": salt, "n_null": n_null}
    return [(task, seed, more) for task in ("weather", "mood") for seed in (100, 13, 21)]


def test_biases_ties_and_agreement_are_those_of_plain_loops(read):
    outputs, answers, found = read([("run", cells(n_null=5), {"method": {"name": "direct", "probes": True}})])
    (one,) = found.values()
    contextual, domain, posterior, same = [], [], [], []
    for task in ("mood", "weather"):
        rows = [row for row in outputs.predictions.to_dicts() if row["task"] == task]
        options = rows[0]["options"]
        seeds = {seed: [row for row in rows if row["seed"] == seed] for seed in (100, 13, 21)}

        def bias(first, last, seeds=seeds, options=options):
            layers = [
                [total / count for total, count in zip(sums, tokens, strict=True)]
                for part in seeds.values()
                for sums, tokens in list(zip(part[0]["null_sum_nll"], part[0]["null_n_tokens"], strict=True))[
                    first:last
                ]
            ]
            return np.abs(softmax(-np.array(layers), axis=1).mean(axis=0) - 1 / len(options)).sum() / 2

        contextual.append(bias(0, 3))
        domain.append(bias(3, 5))
        mean = softmax(-np.array([row["nll"] for row in rows]), axis=1).mean(axis=0)
        shares = [np.mean([row["gold"] == option for row in rows]) for option in options]
        posterior.append(np.abs(mean - shares).sum() / 2)
        pairs = [(100, 13), (100, 21), (13, 21)]
        same.append(
            np.mean(
                [
                    np.mean(
                        [a["prediction"] == b["prediction"] for a, b in zip(seeds[i], seeds[j], strict=True)]
                    )
                    for i, j in pairs
                ]
            )
        )
    expected = [np.mean(values) for values in (contextual, domain, posterior)]
    assert [one.contextual, one.domain, one.posterior] == pytest.approx(expected)
    assert one.over_seeds == pytest.approx(np.mean(same))
    assert one.ties == 0
    table = diagnosis_table(found, answers)
    assert dict(zip(table.columns, table.rows[0], strict=True))["Posterior"].value == pytest.approx(
        100 * expected[2]
    )
    assert "posterior bias" in diagnosis_plot("demo", answers, found).alternative


def test_without_such_inputs_two_biases_are_not_known(read):
    _, _, found = read([("run", cells(), {})])
    (one,) = found.values()
    assert (one.contextual, one.domain) == (None, None)
    assert one.posterior is not None
    assert (one.over_prompts, one.noise) == (None, None)


def test_prompts_and_label_noise_are_compared_among_runs_that_differ_in_them_alone(read):
    runs = [(f"p{name}", cells(name), {"prompt": {"name": name}}) for name in ("a", "b")]
    _, answers, found = read(runs)
    by_variant = {system.variant: one for system, one in found.items()}
    rows = [
        {(task, seed, i): int(code) for task, o in a.outcomes.items() for seed, line in zip(o.seeds, o.prediction, strict=True) for i, code in enumerate(line)}
        for a in answers
    ]  # fmt: skip
    assert set(by_variant) == {"prompt=a", "prompt=b"}
    assert 0 < by_variant["prompt=a"].over_prompts < 1
    assert by_variant["prompt=a"].over_prompts == by_variant["prompt=b"].over_prompts
    assert len(rows[0]) == len(rows[1])


def test_the_slope_over_label_noise_is_that_of_the_means(read):
    runs = [
        (f"n{share}", cells(str(share), skill), {"selection": {"label_noise": share}})
        for share, skill in ((0.0, 1.2), (0.5, 0.8), (1.0, 0.1))
    ]
    _, answers, found = read(runs)
    means = {row.system.variant: row.figures.mean.value for row in answers}
    places = [float(variant.rpartition("=")[2]) for variant in means]
    expected = np.polyfit(places, list(means.values()), 1)[0]
    assert [one.noise for one in found.values()] == pytest.approx([expected] * 3)
