"""Compare ways of scoring on the same model, requests and machine, side by side in one run.

    python experiments/bench_scoring/run_benchmark.py                          # the cells of the table in README.md
    python experiments/bench_scoring/run_benchmark.py --k 0 --options 4 --scorers engine,plain
    python experiments/bench_scoring/run_benchmark.py --scorers engine,engine_bf16 --model smollm2_135m \
        --folder <MetaICL data> --task poem_sentiment
    python experiments/bench_scoring/run_benchmark.py --scorers engine,engine_other --other <checkout of another commit>

Scorers: `engine` (prefix sharing), `plain` (one padded batch of context and option at a time, padded to its
longest), `original` (every pair padded to min(256 k, 1024), cross entropy over full logits, as the released
code), `lm_eval` (lm-evaluation-harness, skipped when not installed), `engine_bf16`, and `engine_other` (the engine of
the checkout `--other`, by that checkout's worker), `llama_cpp` and `llama_cpp_bf16` (llama.cpp on the same trie, skipped
when llama-cpp-python is not installed). Each lives in a process of its own; they take turns, and medians
over the turns are compared. All but the engines and llama.cpp run on the first `--subset` requests, scaled up to all; lm_eval at the
best of `--lm-eval-sizes` on whole inputs.

Model: GPT-2-small size with random weights (no download). Columns: seconds, times slower than the engine, peak
memory above the loaded model, tokens through the model, largest difference to the engine's scores, and for the
engine its seconds over what its arithmetic needs at the matrix-product rate measured around it. `--clock cpu`
with `--threads 1` is the measure to trust on a machine that others use too.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from workload import Cell

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
SHARING = ("engine", "llama_cpp")
"""Beginnings of the names of scorers that compute a shared prefix once: they run on all requests."""


@dataclass
class Worker:
    """A scorer in its own process."""

    name: str
    batch_size: int
    process: subprocess.Popen[str]
    package: tempfile.TemporaryDirectory[str]

    @classmethod
    def start(
        cls, name: str, scorer: str, model: str, dtype: str, threads: int, batch_size: int, checkout: Path
    ) -> Worker:
        """Start the process and wait until its model is loaded."""
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        package = tempfile.TemporaryDirectory()
        (Path(package.name) / "metashot").symlink_to(checkout / "src")
        paths = [package.name, os.environ.get("PYTHONPATH")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        command = [
            sys.executable,
            str(checkout / "experiments" / "bench_scoring" / "worker.py"),
            scorer,
            model,
            dtype,
            str(threads),
            str(batch_size),
        ]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        worker = cls(name, batch_size, process, package)
        worker._read()
        return worker

    def run(self, command: dict[str, Any]) -> dict[str, Any]:
        """One measurement."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return self._read()

    def stop(self) -> None:
        """Let the process end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        self.package.cleanup()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the {self.name} process died; run worker.py by hand to see why")
        return json.loads(line)


def measure(cell: Cell, workers: dict[str, Worker], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Medians of each scorer on one cell; scorers take turns within each repetition."""
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
    for turn in range(arguments.repeat + 1):
        for name, worker in workers.items():
            shares = name.startswith(SHARING)
            if shares or turn <= arguments.baseline_repeat:
                # lm_eval gets whole batches of whole inputs, so that it can merge what it merges.
                whole = cell.options * worker.batch_size if name == "lm_eval" else 0
                subset = 0 if shares else max(arguments.subset, whole) if turn else 1
                command = {"cell": asdict(cell), "subset": subset, "task": arguments.task}
                turns[name].append(worker.run({**command, "folder": arguments.folder}))
    rows: list[dict[str, Any]] = []
    reference = turns["engine"][-1]
    for name, replies in turns.items():
        timed = replies[1:]  # the first turn warms up
        last = timed[-1]
        seconds = statistics.median(reply[f"{arguments.clock}_seconds"] for reply in timed)
        row = {"scorer": name, "seconds": seconds, "peak_mib": max(r["peak_bytes"] for r in replies) / 2**20}
        row |= {
            "tokens": last["tokens"],
            "timed": last["timed"],
            "requests": last["requests"],
        }
        pairs = zip(last["sums"], reference["sums"], strict=False)
        row["worst_difference_nats"] = max(abs(a - b) for a, b in pairs)
        if name.startswith("engine"):
            rate = statistics.median(reply[f"{arguments.clock}_rate"] for reply in replies)
            row["matmul_gflops"] = rate / 1e9
            row["over_bound"] = seconds * rate / last["flops"]
            row["over_unique_bound"] = seconds * rate / last["flops_unique"]
            row["changed_predictions"] = changed(last["means"], reference["means"], cell.options)
        rows.append(row)
    for row in rows:
        row |= {"method": cell.method, "options": cell.options, "k": cell.k, "inputs": cell.inputs}
        row["times_engine"] = row["seconds"] / rows[0]["seconds"]
    return rows


def changed(means: list[float], reference: list[float], options: int) -> float:
    """Share of inputs whose best option differs."""

    def best(values: list[float]) -> list[int]:
        groups = [values[i : i + options] for i in range(0, len(values), options)]
        return [group.index(max(group)) for group in groups]

    ours, theirs = best(means), best(reference)
    return sum(a != b for a, b in zip(ours, theirs, strict=True)) / len(ours)


def best_lm_eval(cell: Cell, arguments: argparse.Namespace) -> int:
    """The fastest batch size on the subset."""
    seconds: dict[int, float] = {}
    for batch_size in arguments.lm_eval_sizes:
        worker = Worker.start(
            "lm_eval", "lm_eval", arguments.model, "float32", arguments.threads, batch_size, CHECKOUT
        )
        command = {"cell": asdict(cell), "subset": cell.options * max(arguments.lm_eval_sizes), "task": None}
        seconds[batch_size] = min(worker.run(command)[f"{arguments.clock}_seconds"] for _ in range(2))
        worker.stop()
    return min(seconds, key=lambda size: seconds[size])


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--scorers", default="engine,plain,original,lm_eval,engine_bf16")
    parser.add_argument("--methods", default="direct,channel")
    parser.add_argument("--options", default="2,4,14")
    parser.add_argument(
        "--option-tokens", default="1:1,1:1,1:4", help="shortest:longest for each of --options"
    )
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--inputs", type=int, default=32)
    parser.add_argument(
        "--model", default="gpt2_small_random", choices=["gpt2_small_random", "smollm2_135m", "gemma3_270m"]
    )
    parser.add_argument("--folder", default=None)
    parser.add_argument("--task", default=None)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", default="cpu", choices=["wall", "cpu"])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--baseline-repeat", type=int, default=2)
    parser.add_argument("--subset", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=4, help="sequences per batch of plain and original")
    parser.add_argument("--lm-eval-sizes", default=[1, 4, 8], nargs="+", type=int)
    parser.add_argument("--other", type=Path, default=None, help="checkout of `engine_other`")
    parser.add_argument("--output", type=Path, default=None)
    return parser.parse_args()


def main() -> None:
    """Run all cells, print a table, and write the rows."""
    arguments, console = parse(), Console(width=150)
    names = arguments.scorers.split(",")
    for package, install in (("lm_eval", "metashot[harness]"), ("llama_cpp", "metashot[llama]")):
        if any(name.startswith(package) for name in names) and importlib.util.find_spec(package) is None:
            console.print(f"{package} is not installed: skipped (pip install '{install}')")
            names = [name for name in names if not name.startswith(package)]
    pairs = [pair.split(":") for pair in arguments.option_tokens.split(",")]
    lengths = [(int(shortest), int(longest)) for shortest, longest in pairs]
    cells = [
        Cell(method, options, arguments.k, arguments.inputs, lengths[min(index, len(lengths) - 1)])
        for method in arguments.methods.split(",")
        for index, options in enumerate(map(int, arguments.options.split(",")))
    ]
    sizes = {"lm_eval": best_lm_eval(cells[0], arguments)} if "lm_eval" in names else {}
    workers: dict[str, Worker] = {}
    for name in names:
        scorer = next((kind for kind in SHARING if name.startswith(kind)), name)
        dtype = "bfloat16" if name.endswith("_bf16") else "float32"
        checkout = arguments.other.resolve() if name == "engine_other" else CHECKOUT
        size = sizes.get(name) or arguments.batch_size
        workers[name] = Worker.start(name, scorer, arguments.model, dtype, arguments.threads, size, checkout)
    rows: list[dict[str, Any]] = []
    for cell in cells:
        rows += measure(cell, workers, arguments)
        console.print(table(rows[-len(workers) :]))
        if arguments.output is not None:
            setting = {key: value for key, value in vars(arguments).items() if key not in ("output", "other")}
            report = {"setting": setting, "lm_eval_batch": sizes.get("lm_eval"), "rows": rows}
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            arguments.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for worker in workers.values():
        worker.stop()


def table(rows: list[dict[str, Any]]) -> Table:
    """One cell's rows."""
    first = rows[0]
    title = f"{first['method']}, {first['options']} options, k={first['k']}, {first['inputs']} inputs"
    out = Table(title=title)
    for column in (
        "scorer",
        "seconds",
        "x engine",
        "peak MiB",
        "tokens",
        "timed",
        "|diff| nats",
        "x bound (unique)",
        "changed",
    ):
        out.add_column(column, justify="left" if column == "scorer" else "right")
    for row in rows:
        bound = f"{row['over_bound']:.2f} ({row['over_unique_bound']:.2f})" if "over_bound" in row else ""
        moved = f"{row['changed_predictions']:.1%}" if "changed_predictions" in row else ""
        out.add_row(
            row["scorer"], f"{row['seconds']:.3f}", f"{row['times_engine']:.2f}", f"{row['peak_mib']:.0f}",
            str(row["tokens"]), f"{row['timed']}/{row['requests']}", f"{row['worst_difference_nats']:.1e}", bound, moved,
        )  # fmt: skip
    return out


if __name__ == "__main__":
    main()
