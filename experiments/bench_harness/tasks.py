"""Harness tasks for the benchmark: real ones over k-shot files, and generated ones with the shapes of well-known sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

SHAPES = {
    # words of a question, words of a choice, choices, whether choices are single letters
    "shaped_arc": (18, 4, 4, False),
    "shaped_hellaswag": (45, 22, 4, False),
    "shaped_mmlu": (60, 1, 4, True),
}
"""Roughly the lengths of ARC, HellaSwag and MMLU documents."""
_WORDS = [
    "river",
    "stone",
    "paper",
    "cloud",
    "window",
    "garden",
    "engine",
    "letter",
    "market",
    "winter",
    "bridge",
    "signal",
    "corner",
    "planet",
    "branch",
    "silver",
]


def write_tasks(folder: Path, shared: Path | None, documents: int) -> list[str]:
    """YAML files with their rows in `folder`; returns the task names.

    Every task comes twice: with the harness's own draw of demonstrations for each document, and (`_first`) with the
    first ones for all documents, as MMLU has them.
    """
    names: list[str] = []
    for name, shape in SHAPES.items():
        names += _write(folder, name, *_generated(shape, documents))
    for task in ("ag_news", "codah") if shared else ():
        assert shared
        names += _write(folder, task, *_real(shared / "metaicl" / task, documents))
    return names


def _generated(shape: tuple[int, int, int, bool], documents: int) -> tuple[list[Any], list[Any]]:
    words, choice_words, choices, letters = shape
    rng = np.random.default_rng(0)

    def text(length: int) -> str:
        return " ".join(rng.choice(_WORDS, max(1, length + int(rng.integers(-length // 4, length // 4 + 1)))))

    def row() -> dict[str, Any]:
        options = [*"ABCD"[:choices]] if letters else [text(choice_words) for _ in range(choices)]
        return {"question": text(words), "choices": options, "answer": int(rng.integers(choices))}

    return [row() for _ in range(64)], [row() for _ in range(documents)]


def _real(folder: Path, documents: int) -> tuple[list[Any], list[Any]]:
    def rows(split: str) -> list[Any]:
        lines = (folder / f"{folder.name}_16_100_{split}.jsonl").read_text(encoding="utf-8").splitlines()
        examples = [json.loads(line) for line in lines]
        return [
            {
                "question": one["input"],
                "choices": one["options"],
                "answer": one["options"].index(one["output"]),
            }
            for one in examples
        ]

    return rows("train"), rows("test")[:documents]


def _write(folder: Path, name: str, train: list[Any], test: list[Any]) -> list[str]:
    files = {}
    for split, rows in (("train", train), ("test", test)):
        path = folder / f"{name}_{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        files[split] = str(path)
    config: dict[str, Any] = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files},
        "training_split": "train",
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}\nAnswer:",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }
    for suffix, more in (("", {}), ("_first", {"fewshot_config": {"sampler": "first_n", "split": "train"}})):
        (folder / f"{name}{suffix}.yaml").write_text(
            yaml.safe_dump({"task": name + suffix, **config, **more})
        )
    return [name, f"{name}_first"]
