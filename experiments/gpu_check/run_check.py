"""What a machine with a GPU has to show, in one table and under ten minutes; without one, the part that a CPU can run.

    python experiments/gpu_check/run_check.py [--quick] [--minutes 9] [--output results.json]

Rows: every architecture of the tests in float32, bfloat16 and float16 against the plain scorer; soft caps and windows
also against transformers' FlexAttention (GPU); int8 and int4 by bitsandbytes; training under FSDP2 on one process
(GPU); peak memory against the budget that batches were cut for; and seconds against lm-eval's `hf` and vLLM where they are
installed. A row that fails says how, and the others still run; what no time was left for says so. `--quick` takes
three architectures and few requests.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from metashot.base.console import PlainConsole
from metashot.engine.scoring.plain import score_plain
from metashot.engine.scoring.prefix import PrefixScorer
from metashot.engine.scoring.request import Request

ROOT = Path(__file__).parents[2]
NATS = {torch.float32: 1e-3, torch.bfloat16: 0.5, torch.float16: 0.1}
"""How far from plain a score of these saturated tiny models may be; float32 on a GPU rounds in another order."""
CAPPED = ("gemma2", "gemma3_text", "cohere2", "mistral")
"""Soft caps, windows, or both."""
QUICK = ("llama", "gemma2", "gpt2")


@dataclass
class Row:
    """One line of the table."""

    check: str
    case: str
    found: str
    good: bool | None
    """None: nothing to judge, or not run here."""


class Checks:
    """The rows so far, and where and how much is run."""

    def __init__(self, quick: bool, seconds: float) -> None:
        self.rows: list[Row] = []
        self.quick = quick
        self.gpu = torch.cuda.is_available()
        self.device = "cuda" if self.gpu else "cpu"
        self._until = time.monotonic() + seconds

    def row(self, check: str, case: str, run: Callable[[], tuple[str, bool | None]]) -> None:
        """Run one case; whatever it raises is its row."""
        if time.monotonic() > self._until:
            found, good = "no time was left", None
        else:
            try:
                found, good = run()
            except Exception as error:
                found, good = f"{type(error).__name__}: {str(error).splitlines()[0][:100]}", False
        self.rows.append(Row(check, case, found, good))
        gc.collect()
        if self.gpu:
            torch.cuda.empty_cache()


def from_file(path: Path) -> Any:
    """A module outside the package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def requests(few: bool) -> list[Request]:
    """Shared demonstrations past the windows of the tiny models, four inputs (two where few), three options."""
    rng = random.Random(0)

    def text(length: int) -> tuple[int, ...]:
        return tuple(rng.randrange(8, 312) for _ in range(length))

    demonstrations = text(100)
    inputs, options = [text(20) for _ in range(2 if few else 4)], [text(n) for n in (1, 3, 9)]
    return [Request(demonstrations + one, option) for one in inputs for option in options]


def worst(one: list[Tensor], other: list[Tensor]) -> float:
    """Largest difference in nats."""
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


def zoo(checks: Checks) -> None:
    """Every architecture of the tests, in each dtype, against plain in the same dtype."""
    tests = ROOT / "tests" / "engine" / "scoring"
    tiny, known = (
        from_file(tests / "conftest.py")._tiny_architecture,
        from_file(tests / "test_architectures.py"),
    )
    names = QUICK if checks.quick else tuple([*known.SHARED, *known.CACHED])
    asked = requests(checks.quick)
    for dtype in NATS if checks.gpu or not checks.quick else (torch.float32, torch.bfloat16):
        for name in names:

            def run(name: str = name, dtype: torch.dtype = dtype) -> tuple[str, bool]:
                model = tiny(name, dtype).to(checks.device)
                scorer = PrefixScorer(model)
                apart = worst(scorer.score(asked), score_plain(model, asked))
                return f"{scorer.route}, {apart:.1e} nats from plain", apart <= NATS[dtype]

            checks.row("architecture", f"{name}, {str(dtype).removeprefix('torch.')}", run)
    for name in CAPPED:

        def flex(name: str = name) -> tuple[str, bool | None]:
            if not checks.gpu:
                return "needs a GPU", None
            model = tiny(name).to(checks.device)
            ours = PrefixScorer(model).score(asked)
            model.set_attn_implementation("flex_attention")
            apart = worst(ours, score_plain(model, asked))
            return f"{apart:.1e} nats from FlexAttention", apart <= NATS[torch.float32]

        checks.row("soft caps and windows", name, flex)


def saved_llama(folder: Path) -> None:
    """A random Llama whose products are large enough to be quantized."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from metashot.engine.models.tiny import tiny_tokenizer

    torch.manual_seed(0)
    sizes = LlamaConfig(
        hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=512, bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(sizes).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


def quantized(checks: Checks, folder: Path) -> None:
    """Weights of fewer bits: shared prefixes against plain with the same weights."""
    from metashot.engine.models.sources import LocalModel

    asked = requests(checks.quick)
    for kind in ("int8",) if checks.quick else ("int8", "int4"):

        def run(kind: Any = kind) -> tuple[str, bool]:
            dtype = "float16" if checks.gpu else "float32"
            spec = LocalModel(
                path=str(folder), name="m", quantization=kind, dtype=dtype, device=checks.device
            )
            model = spec.read_model().eval()
            scorer = PrefixScorer(model)
            apart = worst(scorer.score(asked), score_plain(model, asked))
            return f"{scorer.route}, {apart:.1e} nats from plain", apart <= 0.1

        checks.row("quantized", kind, run)


def sharded(checks: Checks) -> None:
    """Two steps of meta-training through accelerate's own FSDP2."""

    def run() -> tuple[str, bool | None]:
        if not checks.gpu:
            return "needs a GPU (on CPU meshes: tests/icl/learning/test_sharded_training.py)", None
        with tempfile.TemporaryDirectory() as scratch:
            done = subprocess.run(
                [sys.executable, "-m", "accelerate.commands.launch", "--config_file",
                 str(ROOT / "experiments/launch/fsdp2.yaml"), "--num_processes", "1", "run.py", "data=synthetic",
                 "data.train_tasks=4", "data.target_tasks=1", "data.test_size=4", "method=metaicl", "model=tiny",
                 "model.path=llama", "k=2", "seeds=[100]", "trainer.steps=2", "trainer.pool_size=8", "stage=[train,evaluate]",
                 f"results_root={scratch}"],
                cwd=ROOT, capture_output=True, text=True, timeout=180, check=False,
            )  # fmt: skip
        last = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()[-1:]
        return f"status {done.returncode}: {' '.join(last)[:80]}", done.returncode == 0

    checks.row("FSDP2", "one process, two steps", run)


def peak_bytes(checks: Checks, run: Callable[[], object]) -> int:
    """The most that `run` takes above what is held before it; `VmHWM` on a CPU."""
    if checks.gpu:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated() - before
    worker = from_file_beside("worker")
    Path("/proc/self/clear_refs").write_text("5")
    before = worker.memory_bytes("VmRSS")
    run()
    return worker.memory_bytes("VmHWM") - before


def from_file_beside(name: str) -> Any:
    """A module of `bench_scoring`."""
    folder = str(ROOT / "experiments" / "bench_scoring")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module(name)


def memory_and_speed(checks: Checks) -> None:
    """GPT-2 small's sizes with random weights (a tenth of the layers where quick): memory, and seconds of each engine."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from metashot.engine.models.tiny import tiny_tokenizer

    torch.manual_seed(0)
    sizes = GPT2Config(n_layer=1 if checks.quick else 12, vocab_size=512, bos_token_id=1, eos_token_id=1)
    model: Any = GPT2LMHeadModel(sizes).eval()
    model.to(checks.device)
    workload: Any = from_file_beside("workload")
    cell = workload.Cell("direct", 4, 1 if checks.quick else 16, 2 if checks.quick else 32, (1, 4))
    asked = workload.synthetic(cell, 512)
    budget = 256

    def memory() -> tuple[str, bool]:
        scorer = PrefixScorer(model, budget)
        taken = peak_bytes(checks, lambda: scorer.score(asked)) / 2**20
        return f"{taken:.0f} MiB of a budget of {budget}", taken <= budget

    def seconds(score: Callable[[], object]) -> float:
        times: list[float] = []
        for _ in range(1 if checks.quick else 3):
            started = time.perf_counter()
            score()
            if checks.gpu:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - started)
        return min(times)

    checks.row("memory", "peak against the budget", memory)
    scorer = PrefixScorer(model)
    scorer.score(asked)
    ours = seconds(lambda: scorer.score(asked))

    def harness() -> tuple[str, bool | None]:
        if importlib.util.find_spec("lm_eval") is None:
            return "lm_eval is not installed", None
        worker: Any = from_file_beside("worker")
        found: dict[int, float] = {}
        for size in (1,) if checks.quick else (8, 32, 128):
            score = worker.lm_eval_scorer(model, size)
            found[size] = seconds(lambda score=score: score(asked, cell))
        best = min(found, key=lambda size: found[size])
        return f"{found[best] / ours:.1f} times our {ours:.3f} s (batches of {best})", None

    def engine() -> tuple[str, bool | None]:
        if importlib.util.find_spec("vllm") is None:
            return "vllm is not installed", None
        from metashot.engine.models.loading import LazyLanguageModel
        from metashot.engine.models.sources import LocalModel
        from metashot.engine.scoring.makers import vllm_scorer

        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            tiny_tokenizer().save_pretrained(folder)
            lazy = LazyLanguageModel(LocalModel(path=folder, name="m", dtype="float32"))
            theirs: Any = vllm_scorer(
                lazy, gpu_memory_utilization=0.5, arguments={"enforce_eager": not checks.gpu}
            )
            theirs.score(asked[:4])
            # Other tokens: the same prompts again would be read from vLLM's cache.
            other = workload.synthetic(workload.Cell(**{**asdict(cell), "seed": 1}), 512)
            apart = worst(theirs.score(asked), scorer.score(asked))
            started = time.perf_counter()
            theirs.score(other)
            taken = time.perf_counter() - started
        return (
            f"{taken / ours:.1f} times our {ours:.3f} s by {theirs.route}, {apart:.1e} nats apart",
            apart < 1e-3,
        )

    checks.row("speed", "lm-eval hf, float32", harness)
    checks.row("speed", "vLLM, float32", engine)


def main() -> None:
    """Run all checks, print the table, keep it; status 1 if a row is not good."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results.json"))
    arguments = parser.parse_args()
    console = PlainConsole(width=120)
    checks = Checks(arguments.quick, 60 * arguments.minutes)
    where = torch.cuda.get_device_name() if checks.gpu else "CPU"
    if not checks.gpu:
        console.print("no GPU is here: only what a CPU can show is run")
    with tempfile.TemporaryDirectory() as folder:
        saved_llama(Path(folder))
        memory_and_speed(checks)
        sharded(checks)
        quantized(checks, Path(folder))
        zoo(checks)
    table = Table(title=f"{where}, torch {torch.__version__}")
    for name in ("check", "case", "found", "good"):
        table.add_column(name)
    for row in checks.rows:
        table.add_row(row.check, row.case, row.found, {True: "yes", False: "NO", None: "-"}[row.good])
    console.print(table)
    kept = {"device": where, "torch": torch.__version__, "rows": [asdict(row) for row in checks.rows]}
    arguments.output.write_text(json.dumps(kept, indent=1) + "\n")
    if any(row.good is False for row in checks.rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
