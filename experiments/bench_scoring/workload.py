"""The requests of a benchmark cell: synthetic token ids of given lengths, or real examples of a MetaICL folder."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metashot.engine.scoring.request import Request


@dataclass(frozen=True)
class Cell:
    """One workload: `inputs` test inputs, each scored under the same options."""

    method: str
    options: int
    k: int
    inputs: int
    option_tokens: tuple[int, int]
    seed: int = 0

    @property
    def padded_length(self) -> int:
        """What the original pads every pair to: 256 tokens per demonstration, at most 1024."""
        return min(256 * max(self.k, 1), 1024)


def synthetic(cell: Cell, vocabulary: int) -> list[Request]:
    """Demonstrations of 25 to 40 tokens, inputs of 25 to 35, options of `option_tokens`; input after input."""
    rng = random.Random(cell.seed)

    def text(shortest: int, longest: int) -> tuple[int, ...]:
        return tuple(rng.randrange(vocabulary) for _ in range(rng.randint(shortest, longest)))

    demos = tuple(token for _ in range(cell.k) for token in text(25, 40))
    inputs = [text(25, 35) for _ in range(cell.inputs)]
    options = [text(*cell.option_tokens) for _ in range(cell.options)]
    if cell.method == "direct":
        return [Request(demos + i, o) for i in inputs for o in options]
    return [Request(demos + o, i) for i in inputs for o in options]


def real(folder: Path, task: str, method: str, k: int, inputs: int, tokenizer: Any) -> list[Request]:
    """The first test examples of a task, newline layout, with its 16-shot demonstrations of seed 100."""

    def load(split: str) -> list[dict[str, Any]]:
        lines = (folder / task / f"{task}_16_100_{split}.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])

    def pieces(text: str, label: str, later: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
        first, second = (text, label) if method == "direct" else (label, text)
        return ids(("\n\n\n" if later else "") + first), ids("\n" + second)

    demos: tuple[int, ...] = ()
    for index, example in enumerate(load("train")[:k]):
        first, second = pieces(example["input"], example["output"], index > 0)
        demos += first + second
    requests: list[Request] = []
    for example in load("test")[:inputs]:
        for option in example["options"]:
            first, second = pieces(example["input"], option, k > 0)
            requests.append(Request(demos + first, second))
    return requests
