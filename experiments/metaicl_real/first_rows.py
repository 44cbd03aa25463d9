"""Copy a data folder with the first rows of every test and dev file: `first_rows.py <from> <to> <rows>`."""

from __future__ import annotations

import sys
from pathlib import Path


def main(source: Path, target: Path, rows: int) -> None:
    """Training files are copied whole."""
    for path in sorted(source.glob("*/*.jsonl")):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = lines if path.stem.endswith("_train") else lines[:rows]
        folder = target / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path.name).write_text("".join(kept), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
