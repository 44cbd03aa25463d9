"""One cell by one process and by two, with as many threads each: seconds, and whether the answers are equal.

python experiments/bench_ranks/run_benchmark.py [--model smollm2_135m] [--rows 400] [--shots 16] [--rounds 1] [--output results.json]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from metashot.base.console import PlainConsole
from metashot.data.tasks.demo import DemoSource

ROOT = Path(__file__).parents[2]
TASK, OF, SEED = "pairs", "demo-review_sentiment", 100


def write_task(folder: Path, shots: int, rows: int) -> None:
    """A task in MetaICL's layout: the demonstrations of a demo task, and pairs of its test inputs as test rows."""
    data = DemoSource().load(OF, k=shots, seed=SEED)
    pairs = [(one, other) for one in data.test for other in data.test if one is not other]
    written = {
        "train": [(one.input, one) for one in data.demonstrations],
        "test": [(f"{one.input} {other.input}", other) for one, other in pairs[:rows]],
    }
    written["dev"] = written["train"]
    (folder / TASK).mkdir(parents=True)
    for split, examples in written.items():
        lines = [
            json.dumps({"task": TASK, "input": text, "output": one.output, "options": list(one.options)})
            for text, one in examples
        ]
        (folder / TASK / f"{TASK}_{shots}_{SEED}_{split}.jsonl").write_text("\n".join(lines) + "\n")


def evaluated(data: Path, folder: Path, ranks: int, model: str, shots: int) -> float:
    """Seconds of one command; its files go to `folder`."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"] if ranks > 1 else []
    command = [
        sys.executable, *launch, "run.py", "data=jsonl", f"data.root={data}", f"data.tasks=[{TASK}]", f"model={model}",
        f"k={shots}", f"seeds=[{SEED}]", f"hydra.run.dir={folder}", f"results_root={folder}/root",
    ]  # fmt: skip
    started = time.perf_counter()
    subprocess.run(
        command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, check=True
    )
    return time.perf_counter() - started


def answers(folder: Path) -> list[dict[str, Any]]:
    """The predictions of a run."""
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def compared(one: Path, other: Path) -> tuple[bool, float]:
    """Whether two runs predict the same, and the largest difference of their scores in nats."""
    pairs = list(zip(answers(one), answers(other), strict=True))
    same = all(a["prediction"] == b["prediction"] for a, b in pairs)
    return same, max(abs(x - y) for a, b in pairs for x, y in zip(a["nll"], b["nll"], strict=True))


def main() -> None:
    """Measure in turn and print one line each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2_135m")
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        data, folder = Path(scratch) / "data", Path(scratch)
        write_task(data, arguments.shots, arguments.rows)
        seconds: dict[int, list[float]] = {1: [], 2: []}
        for turn in range(arguments.rounds):
            for ranks, times in seconds.items():
                times.append(
                    evaluated(data, folder / f"{ranks}-{turn}", ranks, arguments.model, arguments.shots)
                )
        same, difference = compared(folder / "1-0", folder / "2-0")
        run = json.loads((folder / "2-0" / "run.json").read_text())
        alone = json.loads((folder / "1-0" / "run.json").read_text())
    found = {
        "model": arguments.model, "rows": arguments.rows, "k": arguments.shots,
        "seconds": {str(ranks): [round(one, 2) for one in times] for ranks, times in seconds.items()},
        "times_as_fast": round(median(seconds[1]) / median(seconds[2]), 2),
        "tokens_computed": {"1": alone["cost"]["tokens_computed"], "2": run["cost"]["tokens_computed"]},
        "same_predictions": same, "largest_difference_nats": difference,
        "load_before": [round(one, 2) for one in os.getloadavg()],
    }  # fmt: skip
    arguments.output.write_text(json.dumps(found, indent=2) + "\n")
    PlainConsole().print_json(json.dumps(found))


if __name__ == "__main__":
    main()
