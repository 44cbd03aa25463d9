"""What attention dropout and the written-out GELU cost a training step on a CPU, in processor seconds and kept bytes.

    python experiments/bench_training/bench_cpu_step.py [--layers 4] [--rows 2] [--tokens 512 1024] [--repeats 3]

The model has GPT-2 small's width, its dropout and random weights; every position of the last eighth is a target. The
variants take turns, and the first turn of each is its warm-up. Bytes are those that PyTorch keeps for the backward
pass, beside the estimate that `trainer.micro_batch_size=auto` goes by.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from metashot.engine.models.activations import fuse_gelu
from metashot.engine.models.attention_dropout import set_attention_dropout
from metashot.engine.training.activation_memory import ActivationMemory
from metashot.engine.training.config import TrainableConfig

PUBLISHED = "as published, GELU written out"
VARIANTS: dict[str, tuple[bool, float | None]] = {
    PUBLISHED: (False, None),
    "as published, fused GELU": (True, None),
    "attention dropout 0, GELU written out": (False, 0.0),
    "attention dropout 0, fused GELU": (True, 0.0),
}


def make_model(layers: int, fused: bool, dropout: float | None) -> GPT2LMHeadModel:
    """A model in training mode."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50257, n_layer=layers, bos_token_id=0, eos_token_id=0)
    model = GPT2LMHeadModel(config).train()
    if fused:
        fuse_gelu(model)
    if dropout is not None:
        set_attention_dropout(model, dropout)
    return model


def forward(model: GPT2LMHeadModel, ids: Tensor) -> Tensor:
    """The loss over the last eighth."""
    last = ids.shape[1] // 8
    states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, -last:]
    return torch.nn.functional.cross_entropy(model.lm_head(states).flatten(0, 1), ids[:, -last:].flatten())


def kept_bytes(model: GPT2LMHeadModel, ids: Tensor) -> int:
    """Storages that the layers keep for the backward pass, weights aside."""
    weights = {one.untyped_storage().data_ptr() for one in model.parameters()}
    kept: dict[int, tuple[int, Tensor]] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    states.sum().backward()
    return sum(size for size, _ in kept.values())


def seconds(action: Callable[[], Any]) -> float:
    """Processor seconds of one call."""
    start = time.process_time()
    action()
    return time.process_time() - start


def compare(layers: int, rows: int, tokens: int, repeats: int) -> dict[str, dict[str, float]]:
    """All variants at one length."""
    ids = torch.randint(0, 50257, (rows, tokens), generator=torch.Generator().manual_seed(0))
    models = {name: make_model(layers, *variant) for name, variant in VARIANTS.items()}
    kept = {name: kept_bytes(model, ids) for name, model in models.items()}
    turns: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(repeats + 1):
        for name, model in models.items():
            taken = seconds(lambda model=model: forward(model, ids).backward())
            model.zero_grad()
            if turn:
                turns[name].append(taken)
    medians = {name: statistics.median(values) for name, values in turns.items()}
    rows_of: dict[str, dict[str, float]] = {}
    for name, (_, dropout) in VARIANTS.items():
        memory = ActivationMemory.of(
            models[name].config, TrainableConfig(attention_dropout=dropout), on_gpu=False
        )
        estimate = rows * layers * (memory.token * tokens + memory.pair * tokens**2)
        rows_of[name] = {
            "processor_seconds": round(medians[name], 2),
            "times_as_fast": round(medians[PUBLISHED] / medians[name], 2),
            "kept_megabytes": round(kept[name] / 1e6),
            "times_less_memory": round(kept[PUBLISHED] / kept[name], 2),
            "estimated_megabytes": round(estimate / 1e6),
        }
    return rows_of


def main() -> None:
    """Print a table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("layers", 4), ("rows", 2), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--tokens", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "cpu_step.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = {
        f"{options.rows} sequences of {tokens} tokens": compare(
            options.layers, options.rows, tokens, options.repeats
        )
        for tokens in options.tokens
    }
    for title, variants in results.items():
        print(title)
        for name, row in variants.items():
            print(f"  {name:40}", ", ".join(f"{key} {value}" for key, value in row.items()))
    options.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
