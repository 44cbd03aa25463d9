"""lm-evaluation-harness with `hf` at its best batch size against `metashot`, on the same local tasks.

    python experiments/bench_harness/run_benchmark.py [--documents 24] [--shots 0 5 16] [--shared ../shared/data]
        [--tasks shaped_arc codah_first] [--batch-sizes 1 8 32] [--hf-documents 2]

Each (model, batch size) is a process of its own, which scores every task; times are processor seconds of scoring and
tokenizing, one thread, so that other processes on the machine count less. With `--hf-documents`, `hf` runs the first
of the documents only, its seconds are scaled up to all (its cost is the same for each), and answers and metrics are
compared on those. Prints a row per (task, shots) as it is there and keeps it in `results.json`, in the place of an
earlier row of that task and number of shots.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def work(
    model: str, folder: Path, names: list[str], shots: int, batch_size: int, pretrained: str, documents: int
) -> None:
    """Score the first documents of every task and print one JSON line each.

    Seconds for all documents, peak memory, which documents are right by either metric, and log-likelihoods.
    """
    import torch
    from lm_eval.api.registry import get_model
    from lm_eval.tasks import TaskManager

    importlib.import_module("metashot.harness")  # registers the model
    torch.set_num_threads(1)
    make: Any = get_model(model)
    language_model = make(pretrained=pretrained, dtype="float32", device="cpu", batch_size=batch_size)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    for name in names:
        task: Any = manager.load([name])["tasks"][name]
        task.set_config("num_fewshot", shots)
        task.set_fewshot_seed(1234)
        task.build_all_requests(rank=0, world_size=1)
        choices = len(task.instances) // len(task.eval_docs)
        docs = list(task.eval_docs)[:documents]
        part = task.instances[: len(docs) * choices]
        start = time.process_time()
        answers = language_model.loglikelihood(part, disable_tqdm=True)
        seconds = (time.process_time() - start) * len(task.instances) / len(part)
        right: list[bool] = []
        normed: list[bool] = []
        for place, doc in enumerate(docs):
            lls = [value for value, _ in answers[place * choices : (place + 1) * choices]]
            lengths = [len(choice) for choice in task.doc_to_choice(doc)]
            gold = task.doc_to_target(doc)
            right.append(max(range(choices), key=lambda i: lls[i]) == gold)
            normed.append(max(range(choices), key=lambda i: lls[i] / lengths[i]) == gold)
        row = {
            "task": name, "seconds": seconds, "acc": right, "acc_norm": normed, "answers": answers,
            "peak_mb": next(
                int(line.split()[1]) // 1024
                for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
            ),
        }  # fmt: skip
        print("ROW " + json.dumps(row), flush=True)


def run(
    model: str, folder: Path, names: list[str], shots: int, batch_size: int, pretrained: str, documents: int
) -> dict[str, Any]:
    """The rows of one process, by task."""
    command = [
        sys.executable, __file__, "--worker", model, "--folder", str(folder), "--names", *names, "--shots", str(shots),
        "--batch-size", str(batch_size), "--pretrained", pretrained, "--documents", str(documents),
    ]  # fmt: skip
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(folder / "cache"),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    rows = [json.loads(line[4:]) for line in done.stdout.splitlines() if line.startswith("ROW ")]
    return {row["task"]: row for row in rows}


def model_folder(name: str, folder: Path) -> str:
    """The model as a folder, which both models read alike."""
    from metashot.engine.models.loading import load_model
    from metashot.engine.models.sources import named_model

    loaded = load_model(named_model(name))
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return str(folder)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=24)
    parser.add_argument("--shots", type=int, nargs="+", default=[0, 5, 16])
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--tasks", nargs="+", help="only these; all otherwise")
    parser.add_argument(
        "--batch-sizes", type=int, nargs="+", default=[1, 8, 32], help="of `hf`; the best one counts"
    )
    parser.add_argument("--hf-documents", type=int, help="that `hf` runs; all otherwise")
    parser.add_argument("--output", type=Path, default=HERE / "results.json")
    parser.add_argument("--model", default="smollm2_135m")
    parser.add_argument("--worker")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--names", nargs="+")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--pretrained")
    given = parser.parse_args()
    if given.worker:
        work(
            given.worker, given.folder, given.names, given.shots[0], given.batch_size, given.pretrained, given.documents
        )  # fmt: skip
        return
    from tasks import write_tasks

    table = _kept(given.output)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        names = write_tasks(folder, given.shared if given.shared.is_dir() else None, given.documents)
        names = [name for name in names if given.tasks is None or name in given.tasks]
        pretrained = model_folder(given.model, folder / "model")
        print(
            f"{'task':24} {'k':>3} {'hf s':>8} {'(batch)':>8} {'ours s':>8} {'ratio':>6} {'largest difference':>18} same metrics"
        )
        for shots in given.shots:
            some = min(given.hf_documents or given.documents, given.documents)
            ours = run("metashot", folder, names, shots, 16, pretrained, given.documents)
            theirs = {
                size: run("hf", folder, names, shots, size, pretrained, some) for size in given.batch_sizes
            }
            for name in names:
                size = min(given.batch_sizes, key=lambda size: theirs[size][name]["seconds"])
                best, mine = theirs[size][name], ours[name]
                pairs = list(zip(best["answers"], mine["answers"], strict=False))
                others = [
                    _difference(best, theirs[other][name]) for other in given.batch_sizes if other != size
                ]
                row: dict[str, Any] = {
                    "task": name, "shots": shots, "documents": given.documents, "hf_documents": some, "hf_seconds": best["seconds"],
                    "hf_batch_size": size, "seconds": mine["seconds"], "ratio": best["seconds"] / mine["seconds"],
                    "hf_peak_mb": best["peak_mb"], "peak_mb": mine["peak_mb"],
                    "difference": _difference(best, mine), "hf_difference": max(others, default=None),
                    "same": all(left[1] == right[1] for left, right in pairs)
                    and all(best[key] == mine[key][:some] for key in ("acc", "acc_norm")),
                }  # fmt: skip
                table[name, shots] = row
                print(
                    f"{name:24} {shots:3} {row['hf_seconds']:8.1f} {size:8} {row['seconds']:8.1f} {row['ratio']:6.1f} "
                    f"{row['difference']:18.1e} {row['same']}",
                    flush=True,
                )
            given.output.write_text(json.dumps(list(table.values()), indent=1) + "\n")


def _difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Of the log-likelihoods of two models or batch sizes on the documents that both ran, in nats."""
    return max(abs(left[0] - right[0]) for left, right in zip(one["answers"], other["answers"], strict=False))


def _kept(output: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Rows of earlier calls by (task, shots)."""
    rows = json.loads(output.read_text()) if output.exists() else []
    return {(row["task"], row["shots"]): row for row in rows}


if __name__ == "__main__":
    main()
