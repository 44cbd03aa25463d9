"""How fast, and in how much memory, one large CSV file of one's own becomes k-shot files.

    python experiments/bench_csv/bench.py --rows 5000000 --folder <scratch>

Writes a CSV of about 200 bytes a row, prepares it as the training split of a recipe (five seeds, k=16, one process), and
prints rows a second, by wall clock and by CPU time, and the peak memory of the process. The file is deleted afterwards.
"""

import argparse
import csv
import json
import random
import resource
import shutil
import tempfile
import time
from pathlib import Path

from rich.console import Console

from metashot.data.preparation.prepare import PrepareSettings, prepare
from metashot.data.settings import Setting

RECIPE = """
name: t
about: benchmark
task_type: classification
ontology: x
source: {files: {train: large.csv, test: small.csv}}
splits: {train: train, test: test}
fields: {text: text, label: number}
kind: labelled
input: "{text}"
label: label
labels: {0: negative, 1: positive}
options: [negative, positive]
"""
WORDS = [
    "the",
    "plot",
    "thickens,",
    '"quoted"',
    "words",
    "and",
    "naïve",
    "ones;",
    "a",
    "line\nbreak",
    "now",
    "and",
    "then,",
    "numbers",
    "1,234",
    "and",
    "so",
    "on",
]


def write(path: Path, rows: int) -> None:
    generator = random.Random(0)
    texts = [" ".join(generator.choices(WORDS, k=33)) for _ in range(1000)]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        for start in range(0, rows, 1000):
            writer.writerows((texts[n % 1000] + str(n), n % 2) for n in range(start, min(start + 1000, rows)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        write(folder / "large.csv", options.rows)
        write(folder / "small.csv", 1000)
        (folder / "t.yaml").write_text(RECIPE, encoding="utf-8")
        before = resource.getrusage(resource.RUSAGE_SELF)
        start = time.perf_counter()
        settings = PrepareSettings(
            root=folder / "out",
            setting=Setting("x", [], ["t"], []),
            online=False,
            recipe_path=(str(folder),),
        )
        report = prepare(settings, Console())
        wall = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_SELF)
        assert [one.status for one in report.outcomes] == ["ok"], report.outcomes
        record = report.outcomes[0].record
        assert record is not None
        assert record.entries == {"train": options.rows, "test": 1000}
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(
            json.dumps(
                {
                    "rows": options.rows,
                    "megabytes": round((folder / "large.csv").stat().st_size / 1e6),
                    "wall_seconds": round(wall, 1),
                    "cpu_seconds": round(cpu, 1),
                    "rows_per_wall_second": round(options.rows / wall),
                    "rows_per_cpu_second": round(options.rows / cpu),
                    "peak_megabytes": round(after.ru_maxrss / 1024),
                }
            )
        )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
