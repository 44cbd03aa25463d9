"""Times of short commands as ratios to `import torch, transformers`, measured in turn in one run."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
ROUNDS = int(os.environ.get("ROUNDS", "3"))
REFERENCE = "import torch, transformers"


def processor_seconds(command: list[str]) -> float:
    """User and system seconds of a command and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        own = ["debug=smoke", f"results_root={folder}"]
        run = [sys.executable, "run.py"]
        commands = {
            REFERENCE: [sys.executable, "-c", REFERENCE],
            "import metashot": [sys.executable, "-c", "import metashot"],
            "stored rerun (debug=smoke)": [*run, *own],
            "stage=plan (debug=smoke)": [*run, *own, "stage=plan"],
            "stage=evaluat": [*run, *own, "stage=evaluat"],
            "method=chanel": [*run, *own, "method=chanel"],
            "k=many": [*run, *own, "k=many"],
        }
        subprocess.run(
            commands["stored rerun (debug=smoke)"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL
        )
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(ROUNDS):
            for name, command in commands.items():
                times[name].append(processor_seconds(command))
    reference = median(times[REFERENCE])
    rows = {
        name: {"processor_seconds": round(median(values), 2), "ratio": round(median(values) / reference, 2)}
        for name, values in times.items()
    }
    for name, row in rows.items():
        print(f"{name:32} {row['processor_seconds']:6.2f} s  {row['ratio']:5.2f}")
    (Path(__file__).parent / "results.json").write_text(
        json.dumps({"rounds": ROUNDS, "commands": rows}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
