"""Rows per second and memory of converting 1,000,000 synthetic rows of glue-mnli on one core.

    python experiments/bench_recipes/bench_convert.py

Bars: under 30 s and under 300 MB, for the list that `convert` returns and for the stream that preparation uses.
"""

import argparse
import multiprocessing
import os
import resource
import time
from collections.abc import Iterator

from metashot.data.recipes import load_recipe

PREMISE = "The committee met on the third floor of the old town hall and talked for {} minutes"
HYPOTHESIS = "Nobody met in building {}"


def rows(count: int) -> Iterator[dict[str, object]]:
    """Rows of the length of real ones (about 20 and 10 words), made while they are read."""
    for number in range(count):
        yield {
            "premise": PREMISE.format(number),
            "hypothesis": HYPOTHESIS.format(number),
            "label": number % 3,
        }


def peak_mb() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(how: str, n: int) -> None:
    """One way of converting, in a process of its own so that peaks do not mix."""
    recipe = load_recipe("glue-mnli")
    start_mb, start = peak_mb(), time.perf_counter()
    assert sum(1 for _ in rows(n)) == n
    making = time.perf_counter() - start
    start = time.perf_counter()
    count = len(recipe.convert(rows(n))) if how == "convert" else sum(1 for _ in recipe.stream(rows(n)))
    seconds = time.perf_counter() - start
    assert count == n
    print(
        f"{how}: {count:,} rows in {seconds:.1f} s (making the rows alone: {making:.1f} s), "
        f"{count / seconds:,.0f} rows/s, peak {peak_mb():.0f} MB, of which {start_mb:.0f} MB before"
    )


def main() -> None:
    """Both ways, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    for how in ("stream", "convert"):
        process = context.Process(target=measure, args=(how, options.rows))
        process.start()
        process.join()
        assert process.exitcode == 0


if __name__ == "__main__":
    main()
