"""The raw language model of the demo: a GPT-2 of some 150,000 weights that learned to complete repeated facts.

Its text is lists of facts, `key value .`, in which a key that comes again has the value it had before. So it can copy
from its context, as large language models can, but has never seen a task, a label or the newline layout.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from data.synthetic_rules import vocabulary
from engine.models import LanguageModel, ModelSpec, load_model
from engine.optimizers import OptimizerSettings, Updater, build_optimizer
from engine.scratch import ScratchSize, write_scratch_model

SIZE = ScratchSize(layers=3, width=64, heads=4, positions=256, initial_scale=0.1, matched_attention=1.0)
MARKS = ("is", ".")


def facts(rng: np.random.Generator, words: np.ndarray, documents: int, keys: int, length: int) -> np.ndarray:
    """[documents, length, 2] key and value ids; each document repeats a few facts in random order."""
    chosen = np.argsort(rng.random((documents, len(words))), axis=1)[:, : 2 * keys]
    order = rng.integers(0, keys, (documents, length))
    rows = np.arange(documents)[:, None]
    return np.stack([words[chosen[rows, order]], words[chosen[rows, keys + order]]], axis=-1)


def make_base_model(folder: Path, seed: int, steps: int, documents: int = 192) -> LanguageModel:
    """Train the raw model and leave it in `folder`."""
    write_scratch_model(folder, [*vocabulary(), *MARKS], SIZE, seed)
    model = load_model(ModelSpec("base", "local", str(folder), device="cpu"))
    network, tokenizer = model.model.train(), model.tokenizer
    words = np.array(tokenizer.convert_tokens_to_ids(vocabulary()))
    is_, stop = tokenizer.convert_tokens_to_ids(list(MARKS))
    settings = OptimizerSettings(learning_rate=3e-3, betas=(0.9, 0.98), weight_decay=0.01, warmup_steps=50)
    optimizer = build_optimizer(network.named_parameters(), settings)
    updater = Updater(list(network.parameters()), optimizer, settings, steps)
    rng = np.random.default_rng([seed, 99])
    recent: list[float] = []
    for step in range(steps):
        # Short lists first: a context of two facts is where copying is found soonest.
        keys, length = (2, 4) if step < 2 * steps // 3 else (3, 8)
        pairs = facts(rng, words, documents, keys, length)
        ids = np.empty((documents, length, 4), dtype=np.int64)
        ids[..., 0], ids[..., 1], ids[..., 2], ids[..., 3] = pairs[..., 0], is_, pairs[..., 1], stop
        flat = torch.from_numpy(ids.reshape(documents, -1))
        logits = network(flat[:, :-1]).logits[:, 1::4]
        loss = functional.cross_entropy(logits.flatten(0, 1), flat[:, 2::4].flatten())
        loss.backward()
        updater.apply(step)
        recent.append(loss.item())
        if (step + 1) % 100 == 0:
            print(f"base model seed {seed}: step {step + 1}, loss {np.mean(recent[-50:]):.3f}", flush=True)
    network.eval().save_pretrained(folder)
    return load_model(ModelSpec("base", "local", str(folder), device="cpu"))
