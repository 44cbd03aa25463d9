"""Classifiers in eight threads, each by name: one model is loaded, and every call is that of a thread alone."""

from concurrent.futures import ThreadPoolExecutor

import torch

from metashot.engine.models.loading import LazyLanguageModel
from metashot.engine.models.sources import TinyModel
from metashot.icl.scoring.classifier import InContextClassifier

THREADS = 8
SHOWN = [("cold soup", "bad"), ("great", "good"), ("nice", "good"), ("ugly", "bad")]


def test_eight_threads_load_one_model_and_classify():
    """Weights are drawn by one thread at a time, and tokenizers serve one text at a time."""
    texts = [f"text {i}" for i in range(6)]

    def work(place):
        made = InContextClassifier.from_pretrained(
            "tiny", method=("channel", "direct")[place % 2], demonstrations=SHOWN
        )
        return made.scores(texts, options=["good", "bad"])

    expected = [work(0), work(1)]
    load = LazyLanguageModel(TinyModel("other", seed=1)).load  # takes the place of the one that is loaded
    load()
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(work, range(THREADS), timeout=300))
    for place, scores in enumerate(found):
        torch.testing.assert_close(scores, expected[place % 2], atol=1e-4, rtol=0)
