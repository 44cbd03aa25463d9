"""Domain-context calibration (Fei et al. 2023): content-free inputs made of random words of the domain.

Zhao et al.'s `N/A` takes away what a label word is worth by itself. Words of the task's own texts in no order also take
away what the domain's words say for a label without saying anything.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metashot.engine.metrics.rules import Calibration, InputsFrom, contextual, register


def random_words(texts: Sequence[str], n: int, seed: int) -> list[str]:
    """N texts of words drawn with equal chance, with repetition, from all words of `texts`, as long as these in the mean.

    Args:
        texts: unlabelled inputs of the task.
        n: how many.
        seed: of the draw.
    """
    words = [word for text in texts for word in text.split()]
    length = max(1, round(len(words) / max(1, len(texts))))
    generator = np.random.default_rng(seed)
    return [
        " ".join(words[place] for place in generator.integers(0, len(words), length)) if words else ""
        for _ in range(n)
    ]


RULE = register(
    Calibration(
        "domain_context",
        "divided by the mean probability after random words of the training inputs (Fei et al. 2023)",
        contextual,
        fewest=1,
        most=None,
        row_from=1,
        inputs=InputsFrom("words", random_words, unseen=False),
    )
)
