"""How much faster 20 local tasks are prepared with 2 workers than with 1, interleaved.

Pure arithmetic in 1 and 2 processes is timed beside it: what the machine's other load leaves of a second core.
On a busy machine read the CPU seconds: parent plus half of the workers' is what two free cores would take.

    python experiments/bench_recipes/bench_prepare.py

Bar: at least 1.6 times, on two free cores. The tasks are recipes over parquet files made here.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from metashot.data.preparation.prepare import PrepareSettings, prepare
from metashot.data.settings import Setting

N_TASKS = 20
RECIPE = """\
name: {name}
about: A synthetic task for timing.
task_type: classification
ontology: none
source:
  files: {{train: {name}_train.parquet, test: {name}_test.parquet}}
splits: {{train: train, test: test}}
fields: {{premise: text, hypothesis: text, label: number}}
kind: labelled
input: "premise: {{premise}} [SEP] hypothesis: {{hypothesis}}"
label: label
labels: {{0: "no", 1: "yes"}}
options: ["no", "yes"]
"""


def make_tasks(folder: Path, n_rows: int) -> list[str]:
    """Recipes and parquet files of equal size."""
    names = [f"task_{number:02d}" for number in range(N_TASKS)]
    for name in names:
        (folder / f"{name}.yaml").write_text(RECIPE.format(name=name))
        for split, n in (("train", n_rows), ("test", n_rows // 10)):
            table = pa.table(
                {
                    "premise": [
                        f"{name} says in sentence {i} what it always says, at some length" for i in range(n)
                    ],
                    "hypothesis": [f"{name} is silent about {i}" for i in range(n)],
                    "label": [i % 2 for i in range(n)],
                }
            )
            pq.write_table(table, folder / f"{name}_{split}.parquet")
    return names


def cpu_seconds() -> tuple[float, float]:
    """User and system time of this process, and of its finished children."""
    times = os.times()
    return times.user + times.system, times.children_user + times.children_system


def burn(_: int) -> int:
    """A second or so of arithmetic."""
    return sum(number * number for number in range(8_000_000))


def burn_seconds(processes: int) -> float:
    """Four burns over so many processes."""
    start = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pool.map(burn, range(4), chunksize=1)
    return time.perf_counter() - start


def main() -> None:
    """Make the files, then time both worker counts in turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    seconds: dict[int, list[float]] = {1: [], 2: []}
    burns: dict[int, list[float]] = {1: [], 2: []}
    on_free_cores: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        names = make_tasks(folder, arguments.rows)
        for _ in range(arguments.rounds):
            for workers in (1, 2):
                request = PrepareSettings(
                    root=folder / f"out_{workers}",
                    setting=Setting("bench", names, names, []),
                    workers=workers,
                    online=False,
                    recipe_path=(str(folder),),
                    force=True,
                )
                burns[workers].append(burn_seconds(workers))
                cpu = cpu_seconds()
                start = time.perf_counter()
                report = prepare(request, Console(quiet=True))
                seconds[workers].append(time.perf_counter() - start)
                parent, children = (after - before for after, before in zip(cpu_seconds(), cpu, strict=True))
                on_free_cores[workers].append(parent + children / workers)
                assert len(report.with_status("ok")) == 2 * N_TASKS
    best = {workers: min(times) for workers, times in seconds.items()}
    ratios = [one / two for one, two in zip(seconds[1], seconds[2], strict=True)]
    print(f"20 tasks of {arguments.rows:,} rows, both roles, seconds per round: {seconds}")
    spared = [one / two for one, two in zip(on_free_cores[1], on_free_cores[2], strict=True)]
    print(f"by CPU seconds, 2 free cores would make it {statistics.median(spared):.2f} times faster (median)")
    ceilings = [one / two for one, two in zip(burns[1], burns[2], strict=True)]
    print(
        f"pure arithmetic in 2 processes is {statistics.median(ceilings):.2f} times faster (median) on this machine now"
    )
    print(
        f"2 workers are {best[1] / best[2]:.2f} times faster (best rounds; median ratio {statistics.median(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
