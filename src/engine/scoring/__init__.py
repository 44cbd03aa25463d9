"""Log-probabilities of targets given contexts: an engine with exact prefix sharing, and a plain reference."""

from metashot.engine.scoring.plain import PlainScorer, score_plain
from metashot.engine.scoring.plan import ModelSize, Plan, plan_requests
from metashot.engine.scoring.prefix import PrefixScorer
from metashot.engine.scoring.request import Progress, Request, Scorer, check_requests

__all__ = [
    "ModelSize",
    "PlainScorer",
    "Plan",
    "PrefixScorer",
    "Progress",
    "Request",
    "Scorer",
    "check_requests",
    "plan_requests",
    "score_plain",
]
