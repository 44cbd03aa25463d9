"""The raw language model of the demo: a GPT-2 of some 170,000 weights that learned to complete repeated facts.

Its text is lists of facts, a key and its value, in which a key that comes again has the value it had before: `key is
value .`, or on lines of their own, with or without a filler word beside the key. So it can copy from its context, as
large language models can, but it has seen no task, no label and no category.
"""

from __future__ import annotations

from dataclasses import dataclass
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
PUNCTUATION = (("is", "."), ("\n", "\n\n\n"))


@dataclass(frozen=True, slots=True)
class Lists:
    """Shape of a batch of fact lists.

    Attributes:
        keys: distinct facts of a list.
        length: facts in a list.
        link: between key and value.
        stop: after a fact.
        filler: 0 none, 1 a random word before the key, 2 after it.
    """

    keys: int
    length: int
    link: str
    stop: str
    filler: int


def shape_at(step: int, steps: int, rng: np.random.Generator) -> Lists:
    """Short plain lists first: a context of two facts is where copying is found soonest. Then all kinds."""
    if step < steps // 2:
        return Lists(2, 4, *PUNCTUATION[step % 2], filler=0)
    keys, length = ((2, 4), (4, 8))[int(rng.integers(2))]
    return Lists(keys, length, *PUNCTUATION[step % 2], filler=int(rng.integers(3)))


def facts(
    rng: np.random.Generator, words: np.ndarray, marks: dict[str, int], documents: int, kind: Lists
) -> np.ndarray:
    """[documents, facts, tokens of a fact] ids; the value is the last but one token of a fact."""
    chosen = np.argsort(rng.random((documents, len(words))), axis=1)[:, : 2 * kind.keys]
    order = rng.integers(0, kind.keys, (documents, kind.length))
    rows = np.arange(documents)[:, None]
    keys, values = words[chosen[rows, order]], words[chosen[rows, kind.keys + order]]
    fillers = words[rng.integers(0, len(words), keys.shape)]
    left = {0: [keys], 1: [fillers, keys], 2: [keys, fillers]}[kind.filler]
    link, stop = (np.full_like(keys, marks[mark]) for mark in (kind.link, kind.stop))
    return np.stack([*left, link, values, stop], axis=-1)


def make_base_model(folder: Path, seed: int, steps: int, documents: int = 192) -> LanguageModel:
    """Train the raw model and leave it in `folder`."""
    write_scratch_model(folder, [*vocabulary(), *MARKS], SIZE, seed)
    return continue_base_model(folder, seed, 0, steps, documents)


def continue_base_model(folder: Path, seed: int, start: int, steps: int, documents: int) -> LanguageModel:
    """Train steps `start` to `steps`."""
    model = load_model(ModelSpec("base", "local", str(folder), device="cpu"))
    network, tokenizer = model.model.train(), model.tokenizer
    words = np.array(tokenizer.convert_tokens_to_ids(vocabulary()))
    marks = {mark: int(tokenizer.convert_tokens_to_ids(mark)) for pair in PUNCTUATION for mark in pair}
    settings = OptimizerSettings(learning_rate=3e-3, betas=(0.9, 0.98), weight_decay=0.01, warmup_steps=50)
    optimizer = build_optimizer(network.named_parameters(), settings)
    updater = Updater(list(network.parameters()), optimizer, settings, steps)
    rng = np.random.default_rng([seed, 99])
    recent: list[float] = []
    for step in range(start, steps):
        pairs = facts(rng, words, marks, documents, shape_at(step, steps, rng))
        period = pairs.shape[-1]
        flat = torch.from_numpy(pairs.reshape(documents, -1))
        logits = network(flat[:, :-1]).logits[:, period - 3 :: period]
        loss = functional.cross_entropy(logits.flatten(0, 1), flat[:, period - 2 :: period].flatten())
        loss.backward()
        updater.apply(step)
        recent.append(loss.item())
        if (step + 1) % 100 == 0:
            print(f"base model: step {step + 1}, loss {np.mean(recent[-50:]):.3f}", flush=True)
    network.eval().save_pretrained(folder)
    return load_model(ModelSpec("base", "local", str(folder), device="cpu"))
