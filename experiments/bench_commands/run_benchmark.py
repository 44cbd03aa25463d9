"""Times of short commands as ratios to `import torch, transformers`, measured in turn in one run.

python experiments/bench_commands/run_benchmark.py [--rounds 3] [--jobs 11] [--against <another checkout with its .venv>]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
REFERENCE = "import torch, transformers"
ONE, MANY, FINISHED = "sweep of 1 stored job", "sweep of {} stored jobs", "the same {} jobs, finished"


def processor_seconds(command: list[str], checkout: Path) -> float:
    """User and system seconds of a command and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=checkout, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def commands_of(python: str, folder: Path, turn: int, jobs: int) -> dict[str, list[str]]:
    """What is measured; a sweep begins a new ledger in every turn."""
    own, run = ["debug=smoke", f"results_root={folder}"], [python, "run.py"]
    many = [*run, "-m", *own, f"k={','.join(str(k) for k in range(1, jobs + 1))}"]
    return {
        REFERENCE: [python, "-c", REFERENCE],
        "import metashot": [python, "-c", "import metashot"],
        "stored rerun (debug=smoke)": [*run, *own],
        "stage=plan (debug=smoke)": [*run, *own, "stage=plan"],
        "stage=evaluat": [*run, *own, "stage=evaluat"],
        "method=chanel": [*run, *own, "method=chanel"],
        "k=many": [*run, *own, "k=many"],
        "--help": [*run, "--help"],
        ONE: [*run, "-m", *own, "k=1", f"hydra.sweep.dir={folder}/one-{turn}"],
        MANY.format(jobs): [*many, f"hydra.sweep.dir={folder}/many-{turn}"],
        FINISHED.format(jobs): [*many, f"hydra.sweep.dir={folder}/many-{turn}"],
    }


def measured(checkouts: list[Path], rounds: int, jobs: int, scratch: Path) -> list[dict[str, list[float]]]:
    """Seconds of every command in every checkout, in turn; the first turn stores results and bytecode."""
    pythons = [sys.executable, *(str(checkout / ".venv/bin/python") for checkout in checkouts[1:])]
    times: list[dict[str, list[float]]] = [{} for _ in checkouts]
    for turn in range(rounds + 1):
        for number, (checkout, python) in enumerate(zip(checkouts, pythons, strict=True)):
            commands = commands_of(python, scratch / str(number), turn, jobs)
            for name, command in commands.items():
                seconds = processor_seconds(command, checkout)
                if turn:
                    times[number].setdefault(name, []).append(seconds)
    return times


def summary(times: dict[str, list[float]], jobs: int) -> dict[str, dict[str, float]]:
    """Medians, and ratios to the reference."""
    medians = {name: median(values) for name, values in times.items()}
    medians["a stored job more in a sweep"] = (medians[MANY.format(jobs)] - medians[ONE]) / (jobs - 1)
    return {
        name: {"processor_seconds": round(value, 2), "ratio": round(value / medians[REFERENCE], 3)}
        for name, value in medians.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=11, help="of the longer sweep, 2 or more")
    parser.add_argument("--against", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results.json")
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program has its bytecode
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PYTHONPYCACHEPREFIX"] = f"{folder}/bytecode"
        checkouts = [ROOT, *([options.against.resolve()] if options.against else [])]
        turns = measured(checkouts, options.rounds, options.jobs, Path(folder))
        rows = [summary(times, options.jobs) for times in turns]
    for name, row in rows[0].items():
        earlier = f"   before {rows[1][name]['processor_seconds']:6.2f} s" if len(rows) > 1 else ""
        print(f"{name:32} {row['processor_seconds']:6.2f} s  {row['ratio']:6.3f}{earlier}")
    content = {"rounds": options.rounds, "commands": rows[0], **({"before": rows[1]} if rows[1:] else {})}
    options.output.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
