"""One training step by attention kernel, precision and torch.compile, in processor seconds.

    python experiments/bench_training/bench_step.py [--layers 4] [--rows 2] [--tokens 256] [--repeats 3] [--bfloat16]

The model is SmolLM2-135M's shape with fewer layers and random weights; every position of the last eighth is a target.
The variants take turns; the first turn of each is its warm-up, which for torch.compile is the compilation.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM


def make_step(
    kernel: str, dtype: torch.dtype, compiled: bool, layers: int, ids: Tensor
) -> Callable[[], None]:
    """Forward and backward of one batch."""
    torch.manual_seed(0)
    make: Any = LlamaConfig
    config = make(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=layers, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True, attn_implementation=kernel,
    )  # fmt: skip
    model = LlamaForCausalLM(config).train()
    if compiled:  # as trainer.compile does
        model.base_model.forward = torch.compile(model.base_model.forward, dynamic=True)
    last = ids.shape[1] // 8

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
            hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, -last:]
            logits = model.lm_head(hidden)
        torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, -last:].flatten()).backward()
        model.zero_grad()

    return step


def seconds(step: Callable[[], None]) -> float:
    """Processor seconds of one call."""
    start = time.process_time()
    step()
    return time.process_time() - start


def main() -> None:
    """Time all variants in turns and print one JSON object a variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("layers", 4), ("rows", 2), ("tokens", 256), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument(
        "--bfloat16", action="store_true", help="minutes a step on a processor without its units"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    ids = torch.randint(0, 49152, (options.rows, options.tokens), generator=torch.Generator().manual_seed(0))
    make = partial(make_step, layers=options.layers, ids=ids)
    variants = {
        "sdpa": make("sdpa", torch.float32, False), "eager": make("eager", torch.float32, False),
        "sdpa, compiled": make("sdpa", torch.float32, True),
    }  # fmt: skip
    if options.bfloat16:
        variants |= {
            f"{kernel}, bfloat16": make(kernel, torch.bfloat16, False) for kernel in ("sdpa", "eager")
        }
    first = {name: seconds(step) for name, step in variants.items()}
    turns: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(options.repeats):
        for name, step in variants.items():
            turns[name].append(seconds(step))
    for name, values in turns.items():
        row = {"variant": name, "first": round(first[name], 2), "median": round(statistics.median(values), 3)}
        print(json.dumps({**row, "least": round(min(values), 3)}), flush=True)


if __name__ == "__main__":
    main()
