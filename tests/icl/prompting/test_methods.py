"""A method is a composition of choices, and contradictions are refused."""

import pytest

from metashot.base.errors import ConfigError
from metashot.engine.metrics.rules import Calibration
from metashot.icl.prompting.methods import Method
from metashot.icl.prompting.prompt import Layout, Objective


def test_zero_shot_methods_ignore_k():
    assert Method("zero", demonstrations=False).shots(16) == 0
    assert Method("direct").shots(16) == 16


def test_layout_is_a_rule_or_a_choice():
    assert Method("direct").layout_for("gpt2_xl") is Layout.SPACE
    assert Method("metaicl", trained=True).layout_for("gpt2_xl") is Layout.NEWLINE
    assert Method("direct", layout="newline").layout_for("gpt2_xl") is Layout.NEWLINE


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"calibration": Calibration.PMI}, "has no content-free input"),
        ({"calibration": Calibration.PMI, "null_inputs": ("a", "b")}, "takes one string, got 2"),
        (
            {"calibration": Calibration.CONTEXTUAL, "null_inputs": ("",), "objective": Objective.CHANNEL},
            "target of the channel objective",
        ),
    ],
)
def test_contradictions(choices, message):
    with pytest.raises(ConfigError, match=message):
        Method("m", **choices)
