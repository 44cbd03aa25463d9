"""The raw language model of the demo: some 200,000 weights that learned to complete repeated facts.

Its text is lists of facts, `key is value .` or key and value on lines of their own, in which a key that comes again has
the value it had before. So it can copy from its context, as large language models can, but it has seen no task: no
labels shared by several keys, no word beside the key, no categories.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scratch import ScratchSize, write_scratch_model
from torch.nn import functional

from metashot.data.tasks.synthetic_rules import vocabulary
from metashot.engine.models.loading import LanguageModel, load_model
from metashot.engine.models.sources import LocalModel
from metashot.engine.training.config import OptimizerConfig, adamw
from metashot.engine.training.optimizers import Updater, build_optimizer

SIZE = ScratchSize(
    "lfm2", layers=3, width=64, heads=4, positions=256, initial_scale=0.1, matched_attention=1.0
)
MARKS = ("is", ".")
PUNCTUATION = (MARKS, ("\n", "\n\n\n"))
KEYS, LENGTH = 2, 4


def facts(rng: np.random.Generator, words: np.ndarray, documents: int) -> tuple[np.ndarray, np.ndarray]:
    """Keys and values, both [documents, LENGTH] ids; each document repeats `KEYS` facts in random order."""
    chosen = np.argsort(rng.random((documents, len(words))), axis=1)[:, : 2 * KEYS]
    order = rng.integers(0, KEYS, (documents, LENGTH))
    rows = np.arange(documents)[:, None]
    return words[chosen[rows, order]], words[chosen[rows, KEYS + order]]


def make_base_model(folder: Path, seed: int, steps: int, documents: int = 256) -> LanguageModel:
    """Train the raw model and leave it in `folder`."""
    write_scratch_model(folder, [*vocabulary(), *MARKS], SIZE, seed)
    model = load_model(LocalModel("base", str(folder), device="cpu"))
    network, tokenizer = model.model.train(), model.tokenizer
    words = np.array(tokenizer.convert_tokens_to_ids(vocabulary()))
    marks = [[tokenizer.convert_tokens_to_ids(mark) for mark in pair] for pair in PUNCTUATION]
    settings = OptimizerConfig(
        learning_rate=3e-3, weight_decay=0.01, warmup_steps=50, algorithm=adamw(betas=(0.9, 0.98))
    )
    optimizer = build_optimizer(network.named_parameters(), settings)
    updater = Updater(list(network.parameters()), optimizer, settings, steps)
    rng = np.random.default_rng([seed, 99])
    recent: list[float] = []
    for step in range(steps):
        ids = np.empty((documents, LENGTH, 4), dtype=np.int64)
        ids[..., 0], ids[..., 2] = facts(rng, words, documents)
        ids[..., 1], ids[..., 3] = marks[step % 2]
        flat = torch.from_numpy(ids.reshape(documents, -1))
        logits = network(flat[:, :-1]).logits
        losses = functional.cross_entropy(logits.flatten(0, 1), flat[:, 1:].flatten(), reduction="none")
        losses = losses.view(documents, -1)
        # Keys cannot be foretold; to leave them out speeds up what can be learned.
        loss = losses[:, 1::4].mean() + 0.2 * (losses[:, 0::4].mean() + losses[:, 2::4].mean())
        loss.backward()
        updater.apply(step)
        recent.append(losses[:, 1::4].mean().item())
        if (step + 1) % 50 == 0:
            print(f"raw model, seed {seed}: step {step + 1}, loss {np.mean(recent[-25:]):.3f}", flush=True)
    network.eval().save_pretrained(folder)
    return load_model(LocalModel("base", str(folder), device="cpu"))
