"""Speed of meta-training: batched tasks in length buckets against a per-task loop padded to the context limit.

Also the cost of the regularizer, and sentences a second of splitting, embedding and clustering.

    python experiments/bench_supmer/run_benchmark.py --size small
    python experiments/bench_supmer/run_benchmark.py --size base
    python experiments/bench_supmer/run_benchmark.py --size demo    # the decoder of experiments/supmer_demo
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

from metashot.data.text.corpus import CorpusSource, read_documents
from metashot.data.text.sentences import SentenceRules, split_sentences
from metashot.engine.models.loading import LanguageModel
from metashot.engine.models.sources import TinyModel
from metashot.engine.models.tiny import tiny_tokenizer
from metashot.metaprompt.backbone import make_backbone
from metashot.metaprompt.batch import PromptExample
from metashot.metaprompt.clusters.clustering import ClusterConfig, cluster_vectors
from metashot.metaprompt.clusters.embedding import EncoderConfig, load_encoder
from metashot.metaprompt.meta.config import LayerInit, RegularizerConfig, Rescale
from metashot.metaprompt.meta.drawing.tasks import MetaTask
from metashot.metaprompt.meta.setup import make_regularizer
from metashot.metaprompt.meta.steps.inner_loop import PassRules
from metashot.metaprompt.meta.steps.outer_loop import OuterRules, outer_step

T5_SIZES = {"small": (512, 64, 2048, 6, 8), "base": (768, 64, 3072, 12, 12)}
RELEASED_BATCH = 8


@dataclass(frozen=True, slots=True)
class Workload:
    """What a size is timed on: its own experiment's numbers.

    Attributes:
        padded: context limit that the per-task loop pads to.
        vocabulary: ids to draw from.
        tasks: tasks of an outer step.
        examples: support examples of a task, and as many query and augmentation examples.
        mean_tokens: context tokens of an example on average.
        prompt_length: virtual tokens.
    """

    padded: int
    vocabulary: int
    tasks: int
    examples: int
    mean_tokens: int
    prompt_length: int


PUBLISHED = Workload(412, 30000, 4, 16, 50, 100)
WORKLOADS = {"small": PUBLISHED, "base": PUBLISHED, "demo": Workload(40, 143, 4, 8, 11, 4)}


def language_model(size: str) -> LanguageModel:
    """A model of the size with random weights: speed does not depend on their values."""
    torch.manual_seed(0)
    model = _decoder() if size == "demo" else _t5(size)
    return LanguageModel(model.eval(), tiny_tokenizer(), TinyModel(f"{size}-random"), "random", "random")


def _decoder() -> GPT2LMHeadModel:
    config = GPT2Config(
        vocab_size=143,
        n_positions=128,
        n_embd=64,
        n_layer=3,
        n_head=4,
        n_inner=128,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config)


def _t5(size: str) -> T5ForConditionalGeneration:
    width, head, inner, layers, heads = T5_SIZES[size]
    make: Any = T5Config
    config = make(
        vocab_size=32128, d_model=width, d_kv=head, d_ff=inner, num_layers=layers, num_heads=heads,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=1, dropout_rate=0.1,
    )  # fmt: skip
    return T5ForConditionalGeneration(config)


def episodes(work: Workload, *, is_seq2seq: bool) -> list[MetaTask]:
    """Tasks of pairs of sentences: context lengths from a gamma distribution around `mean_tokens`."""
    generator = np.random.default_rng(0)

    def some() -> tuple[PromptExample, ...]:
        drawn = generator.gamma(8.0, work.mean_tokens / 8.0, work.examples).astype(int)
        return tuple(
            PromptExample(
                tuple(generator.integers(100, work.vocabulary, n).tolist()),
                (2, 100 + n % 2) if is_seq2seq else (100 + n % 2,),
            )
            for n in np.clip(drawn, 8, work.padded)
        )

    return [MetaTask("pair", (i,), (i + 1,), (100, 101), some(), some(), some()) for i in range(work.tasks)]


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


def compare(size: str, work: Workload, repeat: int, max_batch_tokens: int) -> dict[str, float]:
    """Batched and bucketed against one task at a time, padded to the limit: same model, tasks and formulas, interleaved."""
    model = language_model(size)
    backbone, batch = make_backbone(model), episodes(work, is_seq2seq=model.is_seq2seq)
    prompt = torch.nn.Parameter(torch.randn(work.prompt_length, backbone.width))
    psi = make_regularizer(
        backbone.width,
        RegularizerConfig(
            rank=64,
            hidden_layers=1,
            residual=True,
            last_activation="none",
            init=LayerInit.NEAR_IDENTITY,
            rescale=Rescale.ROW_L2,
            coefficient_width=24,
        ),
        0,
    )
    weights = [[0.7] * work.examples for _ in batch]
    centroids = torch.randn(work.tasks + 1, 384)
    fast = rules(None, max_batch_tokens)
    slow = rules(work.padded, RELEASED_BATCH * (work.padded + work.prompt_length))

    def ours() -> None:
        outer_step(backbone, psi, prompt, batch, weights, centroids, fast)

    def loop() -> None:
        for index, task in enumerate(batch):
            outer_step(backbone, psi, prompt, [task], weights[index : index + 1], centroids, slow)

    def regularizer() -> None:
        gradient = torch.randn(work.tasks, work.prompt_length, backbone.width)
        out, z = psi(gradient, torch.randn(work.tasks, backbone.width))
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
        "outer_steps_per_second": 1 / best["ours"],
        "regularizer_share_percent": 100 * best["regularizer"] / best["ours"],
        "mean_context_tokens": float(
            np.mean([len(e.input_ids) for t in batch for e in (*t.support, *t.query)])
        ),
    }


def throughput(sentences: int, rows: int, clusters: int) -> dict[str, float]:
    """Sentences a second (of CPU time) through splitter, encoder and k-means."""
    spec = CorpusSource("demo", "demo", None, None, "train", "text", "paragraph", 0)
    rules_ = SentenceRules("en", 20, 4, 600, 2)
    documents = list(read_documents(spec))
    found: list[str] = []
    split = seconds(lambda: found.extend(s for d in documents for s in split_sentences(d, rules_)))
    encode = load_encoder(EncoderConfig("all-MiniLM-L6-v2", 64, 1024, "cpu"))
    chosen = found[:sentences]
    encode(chosen[:8])
    embed = seconds(lambda: encode(chosen))
    vectors = np.random.default_rng(0).normal(size=(rows, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cluster = seconds(lambda: cluster_vectors(vectors, ClusterConfig(clusters, 1, 20, 1, 0, 10, 1)))
    return {
        "split_sentences_per_second": len(found) / split,
        "embed_sentences_per_second": len(chosen) / embed,
        "cluster_sentences_per_second": rows / cluster,
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=list(WORKLOADS), default="small")
    parser.add_argument("--tasks", type=int, help="of an outer step; the size's own by default")
    parser.add_argument("--examples", type=int, help="support and query examples of a task")
    parser.add_argument("--max-batch-tokens", type=int, default=2048, help="padded tokens of one batch, ours")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="results[-<size>].json beside this file by default")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    work = WORKLOADS[arguments.size]
    changed = {key: getattr(arguments, key) for key in ("tasks", "examples") if getattr(arguments, key)}
    figures = compare(arguments.size, replace(work, **changed), arguments.repeat, arguments.max_batch_tokens)
    if arguments.size == "small":
        figures |= throughput(512, 10_000, 50)
    table = Table("figure", "value", title=f"SUPMER, size {arguments.size}, CPU seconds")
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), f"{value:.2f}")
    Console().print(table)
    settings = {key: str(value) for key, value in vars(arguments).items() if key != "output"}
    name = "results.json" if arguments.size == "small" else f"results-{arguments.size}.json"
    path = arguments.output or Path(__file__).parent / name
    path.write_text(json.dumps({"settings": settings, **figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
