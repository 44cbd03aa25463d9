"""Scores of the released code with SmolLM2-135M (newline layout, per-option truncation), per option, to 1e-3 nats."""

import json
from dataclasses import replace

import pytest

from metashot.data.tasks.source import JsonlSource
from metashot.engine.metrics.ranking import option_scores
from metashot.engine.metrics.rules import Calibration, Normalization
from metashot.engine.models.loading import LazyLanguageModel
from metashot.engine.models.sources import named_model
from metashot.engine.scoring.prefix import PrefixScorer
from metashot.icl.prompting.config import BoundPrompt
from metashot.icl.prompting.frame import MetaiclFrame
from metashot.icl.prompting.methods import Method
from metashot.icl.prompting.prompt import Layout, LengthLimits, Objective
from metashot.icl.scoring.cell import PromptRules, Truncation, build_cell, read_back

pytestmark = pytest.mark.slow

METHODS = {
    "zero": Method("zero", demonstrations=False),
    "direct": Method("direct"),
    "null_direct": Method("pmi", calibration=Calibration.PMI, null_inputs=("N/A",)),
    "channel_zero": Method("channel_zero", Objective.CHANNEL, demonstrations=False),
    "channel": Method("channel", Objective.CHANNEL),
}


@pytest.mark.real_model
@pytest.mark.parametrize("mode", list(METHODS))
@pytest.mark.parametrize("task", ["poem_sentiment", "superglue-cb", "codah"])
def test_scores_equal_the_released_code(shared, task, mode):
    golden = json.loads((shared / "golden" / "scores_smollm2.json").read_text())
    model = LazyLanguageModel(named_model("smollm2_135m"))
    method, n = METHODS[mode], golden["args"]["n"]
    data = JsonlSource(shared / "data" / "metaicl").load(
        task, k=method.shots(16), seed=int(golden["args"]["seed"])
    )
    prompt = BoundPrompt(MetaiclFrame(method.objective, Layout.NEWLINE))
    rules = PromptRules(method, prompt, Truncation.PER_OPTION, LengthLimits(), model.context_length)
    cell = build_cell(replace(data, test=data.test[:n]), model.encode, rules)
    answers = read_back(cell, PrefixScorer(model.load().model).score(cell.requests))
    layer = 1 if mode == "null_direct" else 0
    found = option_scores(
        [[answer.sum_nll[layer]] for answer in answers],
        [[answer.counts[layer]] for answer in answers],
        calibration=Calibration.NONE,
        normalization=Normalization.TOKEN_MEAN,
    )
    for mean_nll, expected in zip(found, golden["scores"][task][mode]["nll"], strict=True):
        assert mean_nll == pytest.approx(expected, abs=1e-3)
