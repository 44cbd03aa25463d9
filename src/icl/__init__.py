"""In-context learning: prompts, scoring methods, meta-training and evaluation."""

from icl.classifier import InContextClassifier

__all__ = ["InContextClassifier"]
