"""Log-probabilities of targets given contexts: an engine with exact prefix sharing, and a plain reference."""

from engine.scoring.plain import PlainScorer, score_plain
from engine.scoring.request import Progress, Request, Scorer, sequence_limit

__all__ = ["PlainScorer", "Progress", "Request", "Scorer", "score_plain", "sequence_limit"]
