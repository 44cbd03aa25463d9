"""One scorer in a process of its own: reads one JSON command a line, answers with one JSON line.

A command names a workload; the answer has seconds (wall clock and processor), peak memory above the loaded
model, tokens run through the model, and the scores.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel
from workload import Cell, real, synthetic

from metashot.engine.models.gguf_files import packaged_gguf
from metashot.engine.models.loading import load_model
from metashot.engine.models.sources import EmbeddedModel, named_model
from metashot.engine.scoring.plain import score_plain
from metashot.engine.scoring.plan import plan_requests
from metashot.engine.scoring.prefix import PrefixScorer
from metashot.engine.scoring.request import Request

Score = Callable[[list[Request], Cell], list[Tensor]]


RANDOM_MODEL = "gpt2_small_random"


def load(name: str, dtype: str) -> tuple[Any, Any]:
    """GPT-2-small size with random weights, or a model from a package, and its tokenizer or None."""
    if name == RANDOM_MODEL:
        torch.manual_seed(0)
        return GPT2LMHeadModel(GPT2Config()).eval().to(getattr(torch, dtype)), None
    loaded = load_model(named_model(name, dtype=dtype))
    return loaded.model, loaded.tokenizer


def make_scorer(name: str, model: Any, model_name: str, batch_size: int) -> Score:
    """`engine`, `plain`, `original`, `lm_eval` or `llama_cpp`."""
    if name == "engine":
        scorer = PrefixScorer(model, force=True)
        return lambda requests, cell: scorer.score(requests)
    if name == "plain":
        return lambda requests, cell: score_plain(model, requests, batch_size)
    if name == "original":
        return lambda requests, cell: score_original(model, requests, cell.padded_length, batch_size)
    if name == "llama_cpp":
        return llama_cpp_scorer(model, model_name)
    return lm_eval_scorer(model, batch_size)


def llama_cpp_scorer(model: Any, model_name: str) -> Score:
    """llama.cpp with the model's weights in the model's precision."""
    from with_llama_cpp import LlamaCppScorer, write_gpt2, write_unquantized

    dtype = str(model.dtype).removeprefix("torch.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        if model_name == RANDOM_MODEL:
            write_gpt2(model, dtype, path)
        else:
            spec = named_model(model_name)
            assert isinstance(spec, EmbeddedModel)
            write_unquantized(packaged_gguf(spec.package, spec.name, spec.install), dtype, path)
        scorer = LlamaCppScorer(path, threads=torch.get_num_threads())
    return lambda requests, cell: scorer.score(requests)


@torch.inference_mode()
def score_original(model: Any, requests: list[Request], length: int, batch_size: int) -> list[Tensor]:
    """As the released code: every pair padded to one length, cross entropy at every position of full logits."""
    scores: list[Tensor] = []
    for start in range(0, len(requests), batch_size):
        batch = requests[start : start + batch_size]
        ids = torch.zeros(len(batch), length, dtype=torch.long)
        mask, targets = torch.zeros_like(ids), torch.zeros_like(ids)
        for row, request in enumerate(batch):
            ids[row, : request.length] = torch.tensor(request.context + request.target)
            mask[row, : request.length] = 1
            targets[row, request.length - request.scored : request.length] = 1
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].contiguous()
        losses = functional.cross_entropy(
            logits.view(-1, logits.shape[-1]).float(), ids[:, 1:].reshape(-1), reduction="none"
        ).view(len(batch), -1)
        scores += [-losses[row][targets[row, 1:] == 1] for row in range(len(batch))]
    return scores


def lm_eval_scorer(model: Any, batch_size: int) -> Score:
    """lm-evaluation-harness on token ids; it gives sums, so each score is one sum."""
    logging.disable(logging.WARNING)
    from lm_eval.models.huggingface import HFLM
    from transformers import GPT2Tokenizer

    make: Any = HFLM
    tokenizer = GPT2Tokenizer(vocab={"<|endoftext|>": 0}, merges=[])  # never used: requests are token ids
    with contextlib.redirect_stdout(io.StringIO()):
        harness = make(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, backend="causal")

    @torch.inference_mode()
    def score(requests: list[Request], cell: Cell) -> list[Tensor]:
        triples = [
            ((str(index), ""), list(request.context), list(request.target))
            for index, request in enumerate(requests)
        ]
        answers = harness._loglikelihood_tokens(triples, disable_tqdm=True)
        return [torch.tensor([total]) for total, _ in answers]

    return score


def matmul_rate(dtype: torch.dtype, clock: Callable[[], float]) -> float:
    """Operations per second of the model's largest product, 1024 rows; median of ten."""
    rows, weight = torch.randn(1024, 768).to(dtype), torch.randn(3072, 768).to(dtype)
    functional.linear(rows, weight)
    seconds: list[float] = []
    for _ in range(10):
        start = clock()
        functional.linear(rows, weight)
        seconds.append(clock() - start)
    return 2 * 1024 * 768 * 3072 / sorted(seconds)[4]


def memory_bytes(field: str) -> int:
    """`VmRSS` or `VmHWM` of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    return 0


def tokens_run(model: Any) -> Callable[[], int]:
    """A counter of the tokens that pass the model's token embedding."""
    seen = [0]
    model.get_input_embeddings().register_forward_hook(
        lambda _m, args, _o: seen.__setitem__(0, seen[0] + args[0].numel())
    )

    def take() -> int:
        count, seen[0] = seen[0], 0
        return count

    return take


def main() -> None:
    """Serve until standard input ends."""
    name, model_name, dtype, threads, batch_size = sys.argv[1:6]
    torch.set_num_threads(int(threads))
    answers = sys.stdout
    sys.stdout = sys.stderr
    model, tokenizer = load(model_name, dtype)
    score = make_scorer(name, model, model_name, int(batch_size))
    take_tokens = tokens_run(model)
    print(json.dumps({"ready": name}), file=answers, flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        given: dict[str, Any] = command["cell"]
        given["option_tokens"] = tuple(given["option_tokens"])
        cell = Cell(**given)
        if command.get("task"):
            requests = real(
                Path(command["folder"]), command["task"], cell.method, cell.k, cell.inputs, tokenizer
            )
        else:
            requests = synthetic(cell, model.config.vocab_size)
        plan = plan_requests(requests)
        rate = [matmul_rate(model.dtype, time.perf_counter), matmul_rate(model.dtype, time.process_time)]
        part = requests[: command["subset"] or len(requests)]
        take_tokens()
        # Writing 5 resets the peak that VmHWM reports.
        Path("/proc/self/clear_refs").write_text("5")
        before = memory_bytes("VmRSS")
        wall, cpu = time.perf_counter(), time.process_time()
        scores = score(part, cell)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        scale = len(requests) / len(part)
        sums = [float(one.sum()) for one in scores]
        reply: dict[str, Any] = {
            "wall_seconds": wall * scale,
            "cpu_seconds": cpu * scale,
            "peak_bytes": memory_bytes("VmHWM") - before,
            "tokens": plan.tokens_computed if name == "llama_cpp" else round(take_tokens() * scale),
            "timed": len(part),
            "requests": len(requests),
            "flops": plan.flops(model.config),
            "flops_unique": plan.flops_unique(model.config),
            "wall_rate": rate[0],
            "cpu_rate": rate[1],
            "sums": sums,
            "means": [total / max(r.scored, 1) for total, r in zip(sums, part, strict=True)],
        }
        assert all(math.isfinite(value) for value in sums)
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    main()
