"""Log-probabilities of targets given contexts: an engine with exact prefix sharing, and a plain reference."""

from engine.scoring.plain import PlainScorer, score_plain
from engine.scoring.plan import ModelSize, Plan, plan_requests
from engine.scoring.prefix import PrefixScorer
from engine.scoring.request import Progress, Request, Scorer, check_requests

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
