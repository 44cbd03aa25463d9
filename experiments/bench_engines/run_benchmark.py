"""The same requests by every engine that is installed: processor seconds, tokens, and the distance to `scorer=prefix`.

    .venv-engines/bin/python experiments/bench_engines/run_benchmark.py [--models smollm2_135m,gpt2_small_random]
        [--engines prefix,plain,vllm:steps,vllm:whole,vllm:auto,server,llama_cpp] [--methods direct,channel] [--k 0 5 16]
        [--inputs 16] [--options 4] [--quick] [--output results.json]

`.venv-engines` is what `make test-engines` makes; an engine that is not installed is left out with one line. Each
(model, engine) is a process of its own with one thread, which loads the model once and scores one cell after
another; `server` is vLLM's own on loopback. Seconds are processor seconds of all processes of an engine in scoring,
so that other work on the machine counts less; no cell shares a token with another, so no cache is warm. `--quick`
runs a random model of two layers on two inputs. vLLM runs without compiling, which takes minutes on a CPU.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from metashot.base.console import PlainConsole

HERE = Path(__file__).parent
SCORING = HERE.parent / "bench_scoring"
QUICK = "gpt2_two_layers_random"
NEEDS = {"vllm": "vllm", "server": "vllm", "llama_cpp": "llama_cpp"}
"""The package of each engine that is not ours."""
LENGTH = 1024


def bench_scoring(module: str) -> Any:
    """A module of the benchmark beside this one, whose cells and models are taken."""
    if str(SCORING) not in sys.path:
        sys.path.insert(0, str(SCORING))
    return importlib.import_module(module)


def write_model(name: str, folder: Path) -> None:
    """A model as a folder that all engines read; random ones have the small tokenizer of the tests."""
    from metashot.engine.models.tiny import tiny_tokenizer

    if name == QUICK:
        import torch
        from transformers import GPT2Config, GPT2LMHeadModel

        torch.manual_seed(0)
        size = GPT2Config(n_layer=2, n_embd=128, n_head=2, vocab_size=1024, bos_token_id=1, eos_token_id=1)
        model, tokenizer = GPT2LMHeadModel(size).eval(), None
    else:
        model, tokenizer = bench_scoring("worker").load(name, "float32")
    model.save_pretrained(folder)
    (tokenizer or tiny_tokenizer()).save_pretrained(folder)


@contextmanager
def serving(folder: Path) -> Generator[tuple[str, psutil.Process]]:
    """vLLM's server: its address and process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--served-model-name", "m",
        "--dtype", "float32", "--enforce-eager", "--max-model-len", str(LENGTH), "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    server = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while server.is_running() and server.status() != psutil.STATUS_ZOMBIE:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1", server
    finally:
        for process in [*server.children(recursive=True), server]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        server.wait()


def processor_seconds(*roots: psutil.Process) -> float:
    """Of these processes and all that they have started."""
    total = 0.0
    for root in roots:
        for process in [root, *root.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
    return total


def work(engine: str, model: str, folder: Path) -> None:
    """Load the model, then answer each cell on standard input with one line."""
    answers, sys.stdout = sys.stdout, sys.stderr
    from metashot.engine.models.loading import LazyLanguageModel
    from metashot.engine.models.sources import LocalModel
    from metashot.engine.scoring.makers import plain_scorer, prefix_scorer, server_scorer, vllm_scorer

    lazy = LazyLanguageModel(LocalModel(path=str(folder), name="m", dtype="float32", device="cpu"))
    words = int(json.loads((folder / "config.json").read_text())["vocab_size"])
    kind, _, way = engine.partition(":")
    route: Any = way or "auto"
    here = psutil.Process()

    def serve(scorer: Any, *processes: psutil.Process) -> None:
        workload = bench_scoring("workload")
        print(json.dumps({"ready": engine}), file=answers, flush=True)
        for line in sys.stdin:
            given = json.loads(line)
            given["option_tokens"] = tuple(given["option_tokens"])
            requests = workload.synthetic(workload.Cell(**given), words)
            before = processor_seconds(*processes)
            scores = scorer.score(requests)
            seconds = processor_seconds(*processes) - before
            tokens = scorer.tokens_computed(requests) if hasattr(scorer, "tokens_computed") else None
            sums = [float(score.sum()) for score in scores]
            print(json.dumps({"seconds": seconds, "tokens": tokens, "sums": sums}), file=answers, flush=True)

    if kind == "prefix":
        serve(prefix_scorer(lazy.load().model, force=True), here)
    elif kind == "plain":
        serve(plain_scorer(lazy.load().model), here)
    elif kind == "vllm":
        serve(
            vllm_scorer(lazy, route=route, max_model_len=LENGTH, arguments={"enforce_eager": True}),
            here,
        )
    elif kind == "server":
        with serving(folder) as (url, server):
            serve(server_scorer(lazy, url=url), here, server)
    else:
        worker = bench_scoring("worker")
        score = worker.llama_cpp_scorer(lazy.load().model, model)

        class Trie:
            def score(self, requests: Any) -> Any:
                return score(requests, None)

        serve(Trie(), here)


def rows_of(engine: str, model: str, folder: Path, cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What an engine answers to each cell; a first small one of other tokens warms it up."""
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_LOGGING_LEVEL": "ERROR",
    }  # fmt: skip
    warm = {**cells[0], "seed": 1000, "inputs": 1, "k": 0}
    lines = "".join(json.dumps(cell) + "\n" for cell in [warm, *cells])
    done = subprocess.run(
        [sys.executable, __file__, "--worker", engine, "--models", model, "--folder", str(folder)],
        env=environment, input=lines, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{engine} ended with {done.returncode}: {done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()][2:]


def installed(engines: list[str], console: PlainConsole) -> list[str]:
    """Those whose package is here; a line for each of the others."""
    here: list[str] = []
    for engine in engines:
        package = NEEDS.get(engine.partition(":")[0])
        if package is None or importlib.util.find_spec(package) is not None:
            here.append(engine)
        else:
            console.print(f"{engine}: {package} is not installed, left out")
    return here


def main() -> None:
    """Run every engine on every cell, and print and keep a row for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="smollm2_135m,gpt2_small_random")
    parser.add_argument("--engines", default="prefix,plain,vllm:steps,vllm:whole,vllm:auto,server,llama_cpp")
    parser.add_argument("--methods", default="direct,channel")
    parser.add_argument("--k", type=int, nargs="+", default=[0, 5, 16])
    parser.add_argument("--inputs", type=int, default=16)
    parser.add_argument("--options", type=int, default=4)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--output", type=Path, default=HERE / "results.json")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return work(arguments.worker, arguments.models, arguments.folder)
    console = PlainConsole()
    if arguments.quick:
        arguments.models, arguments.k, arguments.inputs, arguments.options = QUICK, [0, 2], 2, 2
    shapes = [(method, k) for method in arguments.methods.split(",") for k in arguments.k]
    cells = [
        {"method": method, "options": arguments.options, "k": k, "inputs": arguments.inputs, "option_tokens": [1, 4],
         "seed": number}
        for number, (method, k) in enumerate(shapes)
    ]  # fmt: skip
    engines = installed(arguments.engines.split(","), console)
    found: list[dict[str, Any]] = []
    for model in arguments.models.split(","):
        with tempfile.TemporaryDirectory() as folder:
            write_model(model, Path(folder))
            by_engine = {engine: rows_of(engine, model, Path(folder), cells) for engine in engines}
        ours = by_engine[engines[0]]
        for place, cell in enumerate(cells):
            for engine in engines:
                row, own = by_engine[engine][place], ours[place]
                apart = max(abs(a - b) for a, b in zip(row["sums"], own["sums"], strict=True))
                found.append(
                    {
                        "model": model, "method": cell["method"], "k": cell["k"], "engine": engine,
                        "seconds": round(row["seconds"], 2),
                        "over_first": round(row["seconds"] / max(own["seconds"], 0.01), 2),
                        "tokens": row["tokens"], "apart_nats": apart,
                    }
                )  # fmt: skip
                console.print(" ".join(f"{key}={value}" for key, value in found[-1].items()))
    kept = {"inputs": arguments.inputs, "options": arguments.options, "load": os.getloadavg(), "rows": found}
    arguments.output.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
