"""Speed of meta-training: batched tasks in length buckets against a per-task loop padded to 412 tokens.

Also the cost of the regularizer, and sentences a second of splitting, embedding and clustering.

    python experiments/bench_supmer/run_benchmark.py --size small
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import T5Config, T5ForConditionalGeneration

from metashot.data.corpus import CorpusSpec, read_documents
from metashot.data.sentences import SentenceRules, split_sentences
from metashot.engine.models.loading import LanguageModel
from metashot.engine.models.sources import TinyModel
from metashot.engine.models.tiny import tiny_tokenizer
from metashot.metaprompt.backbone import make_backbone
from metashot.metaprompt.batch import PromptExample
from metashot.metaprompt.clusters.clustering import ClusterSpec, cluster_vectors
from metashot.metaprompt.clusters.embedding import EncoderSpec, load_encoder
from metashot.metaprompt.meta.inner_loop import PassRules
from metashot.metaprompt.meta.outer_loop import OuterRules, outer_step
from metashot.metaprompt.meta.regularizer import RegularizerConfig
from metashot.metaprompt.meta.settings import make_regularizer
from metashot.metaprompt.meta.tasks import MetaTask

SIZES = {"small": (512, 64, 2048, 6, 8), "base": (768, 64, 3072, 12, 12)}
PADDED, RELEASED_BATCH = 412, 8


def t5(size: str) -> LanguageModel:
    """A T5 of published size with random weights: speed does not depend on their values."""
    width, head, inner, layers, heads = SIZES[size]
    config = T5Config(
        vocab_size=32128, d_model=width, d_kv=head, d_ff=inner, num_layers=layers, num_heads=heads,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=1, dropout_rate=0.1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(config).eval()
    return LanguageModel(model, tiny_tokenizer(), TinyModel(f"t5-{size}-random"), "random", "random")


def episodes(tasks: int, examples: int, mean_tokens: int) -> list[MetaTask]:
    """Tasks of pairs of sentences: context lengths from a gamma distribution around `mean_tokens`."""
    generator = np.random.default_rng(0)

    def some() -> tuple[PromptExample, ...]:
        lengths = np.clip(generator.gamma(8.0, mean_tokens / 8.0, examples).astype(int), 8, PADDED)
        return tuple(
            PromptExample(tuple(generator.integers(100, 30000, n).tolist()), (2, 100 + n % 2))
            for n in lengths
        )

    return [MetaTask("pair", (i,), (i + 1,), (100, 101), some(), some(), some()) for i in range(tasks)]


def rules(pad_to: int | None, max_tokens: int) -> OuterRules:
    """First order, corrected."""
    return OuterRules(
        0.1, False, 1.0, 1.0, 2.0, False, False,
        PassRules(max_tokens, pad_to, state_over_padding=False, mix_padding=False),
    )  # fmt: skip


def seconds(action: Callable[[], object]) -> float:
    """CPU seconds of this process: other processes on the machine do not count."""
    start = time.process_time()
    action()
    return time.process_time() - start


def compare(
    size: str,
    tasks: int,
    examples: int,
    mean_tokens: int,
    prompt_length: int,
    repeat: int,
    max_batch_tokens: int,
) -> dict[str, float]:
    """Batched and bucketed against one task at a time, padded to 412: same model, tasks and formulas, interleaved."""
    model = t5(size)
    backbone, batch = make_backbone(model), episodes(tasks, examples, mean_tokens)
    prompt = torch.nn.Parameter(torch.randn(prompt_length, backbone.width))
    psi = make_regularizer(
        backbone.width, RegularizerConfig(64, 1, True, "none", "near_identity", "row_l2", 24), 0
    )
    weights = [[0.7] * examples for _ in batch]
    centroids = torch.randn(tasks + 1, 384)
    fast = rules(None, max_batch_tokens)
    slow = rules(PADDED, RELEASED_BATCH * (PADDED + prompt_length))

    def ours() -> None:
        outer_step(backbone, psi, prompt, batch, weights, centroids, fast)

    def loop() -> None:
        for index, task in enumerate(batch):
            outer_step(backbone, psi, prompt, [task], weights[index : index + 1], centroids, slow)

    def regularizer() -> None:
        out, z = psi(torch.randn(tasks, prompt_length, backbone.width), torch.randn(tasks, backbone.width))
        (out.sum() + z.sum()).backward()

    times: dict[str, list[float]] = {"ours": [], "loop": [], "regularizer": []}
    regularizer()
    for _ in range(repeat):
        for name, action in (("ours", ours), ("loop", loop), ("regularizer", regularizer)):
            times[name].append(seconds(action))
    best = {name: min(values) for name, values in times.items()}
    return {
        "batched_seconds": best["ours"],
        "padded_loop_seconds": best["loop"],
        "speedup": best["loop"] / best["ours"],
        "regularizer_share_percent": 100 * best["regularizer"] / best["ours"],
        "mean_context_tokens": float(
            np.mean([len(e.input_ids) for t in batch for e in (*t.support, *t.query)])
        ),
    }


def throughput(sentences: int, rows: int, clusters: int) -> dict[str, float]:
    """Sentences a second (of CPU time) through splitter, encoder and k-means."""
    spec = CorpusSpec("demo", "demo", None, None, "train", "text", "paragraph", 0)
    rules_ = SentenceRules("en", 20, 4, 600, 2)
    documents = list(read_documents(spec))
    found: list[str] = []
    split = seconds(lambda: found.extend(s for d in documents for s in split_sentences(d, rules_)))
    encode = load_encoder(EncoderSpec("all-MiniLM-L6-v2", 64, 1024, "cpu"))
    chosen = found[:sentences]
    encode(chosen[:8])
    embed = seconds(lambda: encode(chosen))
    vectors = np.random.default_rng(0).normal(size=(rows, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cluster = seconds(lambda: cluster_vectors(vectors, ClusterSpec(clusters, 1, 20, 1, 0, 10, 1)))
    return {
        "split_sentences_per_second": len(found) / split,
        "embed_sentences_per_second": len(chosen) / embed,
        "cluster_sentences_per_second": rows / cluster,
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=list(SIZES), default="small")
    parser.add_argument("--tasks", type=int, default=4)
    parser.add_argument("--examples", type=int, default=16, help="support and query examples of a task")
    parser.add_argument("--mean-tokens", type=int, default=50, help="context tokens of an example")
    parser.add_argument("--prompt-length", type=int, default=100)
    parser.add_argument("--max-batch-tokens", type=int, default=2048, help="padded tokens of one batch, ours")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    figures = compare(
        arguments.size, arguments.tasks, arguments.examples, arguments.mean_tokens, arguments.prompt_length,
        arguments.repeat,
        arguments.max_batch_tokens,
    ) | throughput(512, 10_000, 50)  # fmt: skip
    table = Table("figure", "value", title=f"SUPMER, T5-{arguments.size} size, CPU seconds")
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), f"{value:.2f}")
    Console().print(table)
    settings = {key: str(value) for key, value in vars(arguments).items() if key != "output"}
    arguments.output.write_text(json.dumps({"settings": settings, **figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
