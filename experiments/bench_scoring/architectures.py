"""Every architecture of the tests: the way it is scored, and how many times as long plain scoring takes.

    python experiments/bench_scoring/architectures.py                    # rows to results/architectures.jsonl, and the table
    python experiments/bench_scoring/architectures.py --names llama mpt  # a few, printed only

Tiny models with random weights (two layers of 48), one thread, CPU seconds of the process, the faster of `--turns` turns of
either side, taken in turns. Demonstrations of 300 tokens, inputs of 20 and options of 1, 3 and 9. On toys the overhead of
a call stands against little arithmetic, so a ratio says whether sharing pays at all, not what it pays on a real model.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import random
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from metashot.engine.scoring.plain import score_plain
from metashot.engine.scoring.prefix import PrefixScorer
from metashot.engine.scoring.request import Request

HERE = Path(__file__).resolve().parent
TESTS = HERE.parents[1] / "tests" / "engine" / "scoring"
ROWS = HERE / "results" / "architectures.jsonl"


def from_file(name: str) -> Any:
    """A module of the tests of scoring."""
    found = importlib.util.spec_from_file_location(name, TESTS / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def settings() -> dict[str, dict[str, Any]]:
    """What the config of each architecture says beside the common sizes."""
    first, further = from_file("test_architectures"), from_file("test_more_architectures")
    known: dict[str, dict[str, Any]] = {name: {} for name in (*first.SHARED, *first.CACHED, *first.PLAIN)}
    return known | {name: own for name, (_, own) in further.ZOO.items()}


def requests(inputs: int) -> list[Request]:
    """Three options of each input, behind the same demonstrations."""
    rng = random.Random(0)

    def text(length: int) -> tuple[int, ...]:
        return tuple(rng.randrange(8, 312) for _ in range(length))

    demonstrations, options = text(300), [text(length) for length in (1, 3, 9)]
    asked = [text(20) for _ in range(inputs)]
    return [Request(demonstrations + one, option) for one in asked for option in options]


def seconds(run: Callable[[], list[Tensor]]) -> tuple[float, list[Tensor]]:
    """CPU seconds of one call, and what it gave."""
    started = time.process_time()
    found = run()
    return time.process_time() - started, found


def measured(model: Any, asked: list[Request], turns: int) -> dict[str, Any]:
    """One row of the table, without the name."""
    scorer = PrefixScorer(model)
    scorer.score(asked[:3])  # the probe of the route is not in the figure
    ours, plain, apart = [], [], 0.0
    for _ in range(turns):
        took, found = seconds(lambda: scorer.score(asked))
        ours.append(took)
        took, expected = seconds(lambda: score_plain(model, asked))
        plain.append(took)
        apart = max(apart, *(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)))
    return {
        "route": scorer.route, "ours_s": round(min(ours), 4), "plain_s": round(min(plain), 4),
        "ratio": round(min(plain) / min(ours), 2), "apart_nats": apart, "reason": scorer.reason,
    }  # fmt: skip


def main() -> None:
    """Measure, write the rows and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--names", nargs="+", default=None)
    parser.add_argument("--inputs", type=int, default=8)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    known, tiny = settings(), from_file("conftest")._tiny_architecture
    names, asked = sorted(arguments.names or known), requests(arguments.inputs)
    rows = [
        {"architecture": name} | measured(tiny(name.partition("@")[0], **known[name]), asked, arguments.turns)
        for name in track(names, console=Console(stderr=True))
    ]
    if arguments.names is None:
        ROWS.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = Table("architecture", "route", "plain / ours", "apart, nats")
    for row in rows:
        table.add_row(row["architecture"], row["route"], f"{row['ratio']:.2f}", f"{row['apart_nats']:.0e}")
    Console().print(table)


if __name__ == "__main__":
    main()
