"""Processor seconds of adding N finished cells to a run's folder, and of reading it once at the end.

python experiments/bench_commands/adding_cells.py [--cells 2500 5000 10000]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from metashot.engine.cells.folder import RunFolder
from metashot.engine.cells.results import FinishedCell, Prediction, Result


def finished_cell(number: int) -> FinishedCell:
    """A cell of one test example with two options."""
    task, mark, two = f"t{number}", f"{number:064x}", (1.0, 2.0)
    prediction = Prediction(
        task, 1, 0, "a", "a", ("a", "b"), two, two, (1, 1), (1, 1), (1, 1), (), (), mark
    )  # fmt: skip
    return FinishedCell(Result("s", "m", "x", task, 1, 1, "accuracy", 1.0, 1, mark), (prediction,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, nargs="+", default=[2500, 5000, 10_000])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "adding_cells.json")
    options = parser.parse_args()
    measured: dict[str, dict[str, float]] = {}
    for number in options.cells:
        cells = [finished_cell(place) for place in range(number)]
        with tempfile.TemporaryDirectory() as scratch:
            expected = {(one.result.task, one.result.seed): one.result.fingerprint for one in cells}
            folder = RunFolder(Path(scratch), expected)
            start = time.process_time()
            for one in cells:
                folder.add(one)
            added = time.process_time()
            folder.check_complete()
            seconds = added - start, time.process_time() - added
        measured[str(number)] = {"add": round(seconds[0], 2), "check": round(seconds[1], 2)}
        print(f"{number:,} cells: {seconds[0]:.2f} s to add, {seconds[1]:.2f} s to check", flush=True)
    options.output.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
