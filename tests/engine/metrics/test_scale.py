"""Shares are percent in dashboards, and their names say so."""

import pytest

from metashot.engine.metrics.scale import in_percent


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("accuracy", "accuracy_percent"),
        ("metric/sst2", "metric_percent/sst2"),
        ("most_frequent", "most_frequent_percent"),
        ("predicted/sst2/very positive", "predicted_percent/sst2/very positive"),
        ("demonstrations_cut", "demonstrations_cut_percent"),
        ("guess_accuracy", "guess_accuracy_percent"),
        ("query_accuracy_low", "query_accuracy_low_percent"),
        ("sentence_pairs_query_accuracy", "sentence_pairs_query_accuracy_percent"),
    ],
)
def test_shares_become_percent_under_a_name_that_says_so(name, shown):
    assert in_percent({name: 0.25}) == {shown: 25.0}


@pytest.mark.parametrize("name", ["loss", "query_loss/accuracy", "grad_norm", "coefficient", "loss/metric"])
def test_other_figures_stay_as_they_are(name):
    assert in_percent({name: 0.25}) == {name: 0.25}
