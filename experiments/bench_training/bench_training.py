"""Benchmarks of meta-training against a baseline in the released style, side by side and interleaved in one run.

    python experiments/bench_training/bench_training.py [--quick | --smoke] [--output results.json]

Baseline: every sequence padded to 1024 tokens and run alone, full logits, unfused AdamW; all episodes tokenized and
materialized before the first step, every demonstration tokenized again for each sequence that it stands in.
The model has GPT-2 small's width and vocabulary; `--layers 12` makes it GPT-2 small. Text is random English words.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import bitsandbytes
import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerBase

from metashot.data.rows.episodes import EpisodeSampler
from metashot.data.task import Example
from metashot.engine.models.sources import named_model
from metashot.engine.training.config import OptimizerConfig
from metashot.engine.training.optimizers import build_optimizer, optimizer_state_bytes
from metashot.icl.learning.batches.collate import Batching, collate
from metashot.icl.learning.batches.episode_stream import EpisodeStream
from metashot.icl.learning.batches.objective import TargetLoss
from metashot.icl.learning.writing.piece_cache import PieceCache, batch_encoder
from metashot.icl.learning.writing.sequence_labels import english_words
from metashot.icl.learning.writing.sequences import SequenceRules, TrainingSequence
from metashot.icl.prompting.frame import MetaiclFrame
from metashot.icl.prompting.prompt import Layout, LengthLimits, Objective

K = 16
MICRO_BATCH = 4
"""`trainer.micro_batch_size` of ours: on a CPU, activations of more than some 2,000 tokens leave the caches."""
LIMITS = LengthLimits(256, 1024)
FRAME = MetaiclFrame(Objective.DIRECT, Layout.NEWLINE)


def make_pools(tasks: int, size: int, words_per_input: int, seed: int = 0) -> list[list[Example]]:
    """Pools of random English text; 12 words are some 32 tokens, so that 17 examples are about 580."""
    rng = np.random.default_rng(seed)
    words = np.array(english_words())
    pools: list[list[Example]] = []
    for task in range(tasks):
        drawn = words[rng.integers(len(words), size=(size, words_per_input))]
        labels = tuple(str(word) for word in words[rng.integers(len(words), size=2)])
        pools.append(
            [Example(f"t{task}", " ".join(row), labels[int(i % 2)], labels) for i, row in enumerate(drawn)]
        )
    return pools


def make_stream(
    pools: list[list[Example]], tokenizer: PreTrainedTokenizerBase, batch_size: int, batching: Batching
) -> EpisodeStream:
    """Our pipeline over `pools`."""
    cache = PieceCache(pools, batch_encoder(tokenizer), FRAME)
    return EpisodeStream(
        EpisodeSampler(tuple(map(len, pools)), K, seed=1),
        cache,
        SequenceRules(FRAME, LIMITS, 1024),
        batching=batching,
        batch_size=batch_size,
        bucket_batches=8,
    )


def materialize_slowly(pools: list[list[Example]], tokenizer: Any, indices: range) -> list[list[int]]:
    """The released way: each sequence tokenizes all of its examples, text by text, and is padded to 1024."""
    sampler = EpisodeSampler(tuple(map(len, pools)), K, seed=1)
    made: list[list[int]] = []
    for index in indices:
        episode = sampler.episode(index)
        pool = pools[episode.task]
        ids: list[int] = []
        for place, number in enumerate((*episode.demonstrations, episode.query)):
            example = pool[number]
            ids += tokenizer(("\n\n\n" if place else "") + example.input, add_special_tokens=False)[
                "input_ids"
            ]
            ids += tokenizer("\n" + example.output, add_special_tokens=False)["input_ids"]
        made.append((ids + [0] * 1024)[:1024])
    return made


def step_padded(
    network: GPT2LMHeadModel, optimizer: torch.optim.Optimizer, sequences: list[TrainingSequence]
) -> None:
    """One optimizer step of the baseline: sequences of 1024 tokens one at a time, logits everywhere."""
    for sequence in sequences:
        length = len(sequence.ids)
        ids = torch.zeros(1, 1024, dtype=torch.long)
        ids[0, :length] = torch.from_numpy(sequence.ids)
        mask = (torch.arange(1024) < length).long()[None]
        logits = network(input_ids=ids, attention_mask=mask).logits
        targets = slice(sequence.first_target, length)
        loss = torch.nn.functional.cross_entropy(
            logits[0, sequence.first_target - 1 : length - 1].float(), ids[0, targets]
        )
        (loss / len(sequences)).backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def step_ours(
    module: TargetLoss, optimizer: torch.optim.Optimizer, sequences: list[TrainingSequence]
) -> None:
    """One optimizer step of ours, in slices of MICRO_BATCH."""
    for start in range(0, len(sequences), MICRO_BATCH):
        part = sequences[start : start + MICRO_BATCH]
        module(collate(part, Batching.BUCKETED, float(len(sequences)))).backward()
    torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def seconds_of(action: Callable[[], Any]) -> float:
    """Wall seconds of one call."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def interleaved(first: Callable[[], Any], second: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Median seconds of each, measured in turn so that other load on the machine hits both."""
    pairs = [(seconds_of(first), seconds_of(second)) for _ in range(repeats)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def bench_steps(tokenizer: Any, layers: int, words: int, batch: int, repeats: int) -> dict[str, float]:
    """Optimizer steps at equal sequences per step."""
    torch.manual_seed(0)
    network = GPT2LMHeadModel(
        GPT2Config(vocab_size=50257, n_layer=layers, bos_token_id=0, eos_token_id=0)
    ).train()
    module = TargetLoss(network)
    unfused = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=False, foreach=False)
    fused = build_optimizer(network.named_parameters(), OptimizerConfig())
    stream = make_stream(make_pools(4, 64, words), tokenizer, batch, Batching.BUCKETED)
    sequences = stream.step(0)
    tokens = statistics.mean(len(sequence.ids) for sequence in sequences)
    step_ours(module, fused, sequences)
    slow, fast = interleaved(
        lambda: step_padded(network, unfused, sequences), lambda: step_ours(module, fused, sequences), repeats
    )
    return {"tokens": tokens, "baseline_s": slow, "ours_s": fast, "ratio": slow / fast}


def bench_optimizer(layers: int, repeats: int) -> dict[str, float]:
    """The optimizer step alone, fused against unfused, and the state's bytes in 8 bits."""
    network = GPT2LMHeadModel(GPT2Config(vocab_size=50257, n_layer=layers, bos_token_id=0, eos_token_id=0))
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)
    fused = build_optimizer(network.named_parameters(), OptimizerConfig())
    unfused = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=False, foreach=False)
    eight = build_optimizer(
        network.named_parameters(),
        OptimizerConfig(algorithm=partial(bitsandbytes.optim.AdamW8bit, betas=(0.9, 0.995))),
    )
    for optimizer in (fused, unfused, eight):
        optimizer.step()
    slow, fast = interleaved(unfused.step, fused.step, repeats)
    eight_seconds = seconds_of(eight.step)
    sizes = {"adamw": optimizer_state_bytes(fused), "adam8bit": optimizer_state_bytes(eight)}
    return {
        "unfused_s": slow,
        "fused_s": fast,
        "ratio": slow / fast,
        "adam8bit_s": eight_seconds,
        "adamw_state_bytes": sizes["adamw"],
        "adam8bit_state_bytes": sizes["adam8bit"],
        "state_ratio": sizes["adamw"] / sizes["adam8bit"],
    }


def bench_preparation(tokenizer: Any, sequences: int) -> dict[str, float]:
    """Seconds per training example (sequence) over one epoch of small pools: tokenizing anew against assembling."""
    pools = make_pools(4, sequences // 4, 11)

    def ours() -> None:
        stream = make_stream(pools, tokenizer, 32, Batching.BUCKETED)
        for step in range(sequences // 32):
            stream.step(step)

    slow, fast = interleaved(lambda: materialize_slowly(pools, tokenizer, range(sequences)), ours, 3)
    return {"baseline_s": slow / sequences, "ours_s": fast / sequences, "ratio": slow / fast}


def bench_first_step(tokenizer: Any, tasks: int, size: int, sample: int) -> dict[str, float]:
    """Seconds until the first batch of 8 is there; the baseline is extrapolated from `sample` sequences."""
    pools = make_pools(tasks, size, 11)
    per_sequence = seconds_of(lambda: materialize_slowly(pools, tokenizer, range(sample))) / sample
    ours = seconds_of(lambda: make_stream(pools, tokenizer, 8, Batching.BUCKETED).step(0))
    baseline = per_sequence * tasks * size
    return {
        "examples": tasks * size,
        "baseline_extrapolated_s": baseline,
        "ours_s": ours,
        "ratio": baseline / ours,
    }


def bench_memory(tokenizer: Any, steps: int) -> dict[str, float]:
    """Bytes that the data pipeline holds after half of the steps and after `steps` steps."""
    pools = make_pools(4, 64, 16)
    tracemalloc.start()
    stream = make_stream(pools, tokenizer, 8, Batching.BUCKETED)
    held: list[int] = []
    for step in range(steps):
        stream.step(step)
        if step + 1 in (steps // 2, steps):
            held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    return {"early_bytes": held[0], "late_bytes": held[1], "ratio": held[1] / held[0]}


def main() -> None:
    """Run all, print a table, and write JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, fewer repeats")
    parser.add_argument(
        "--smoke", action="store_true", help="that it runs, in seconds; its figures say nothing"
    )
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    quick, smoke = options.quick or options.smoke, options.smoke
    tokenizer = named_model("smollm2_135m").read_tokenizer()
    repeats = 1 if smoke else 2 if quick else 3
    layers, batch = (1, 2) if smoke else (options.layers, 8)
    benchmarks: dict[str, Callable[[], dict[str, float]]] = {
        "step, batch 1, ~580 tokens": lambda: bench_steps(tokenizer, layers, 11, 1, repeats + 1),
        f"step, batch {batch}, ~580 tokens": lambda: bench_steps(tokenizer, layers, 11, batch, repeats),
        f"step, batch {batch}, ~200 tokens": lambda: bench_steps(tokenizer, layers, 3, batch, repeats),
        "optimizer step": lambda: bench_optimizer(layers, repeats if smoke else 5),
        "preparation per sequence": lambda: bench_preparation(
            tokenizer, 128 if smoke else 512 if quick else 4096
        ),
        "time to first step": lambda: bench_first_step(tokenizer, 20, 64 if smoke else 16384, 16),
        "pipeline memory over steps": lambda: bench_memory(
            tokenizer, 10 if smoke else 300 if quick else 1000
        ),
    }
    results: dict[str, dict[str, float]] = {}
    for name, benchmark in benchmarks.items():
        results[name] = benchmark()
        numbers = ", ".join(f"{key} {value:.4g}" for key, value in results[name].items())
        print(f"{name}: {numbers}", flush=True)
    if options.output is not None:
        options.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
