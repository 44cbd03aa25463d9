"""Plain text as documents: folders of text files, tables, hub datasets and the embedded demo corpus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from metashot.base.components.values import hold_to_choices
from metashot.base.errors import DataError
from metashot.base.extras import import_extra
from metashot.base.identity import NoEffect
from metashot.base.value_kinds import Count, GivenLine, Name
from metashot.data.recipes.rows import BadRow, Dropped, lookup, text_of
from metashot.data.sources.tables import is_table, numbered_rows, row_place
from metashot.data.sources.text_files import open_text, plain_suffix


@dataclass(frozen=True, slots=True)
class CorpusSource:
    """Where text comes from; one file of `conf/corpus` each."""

    name: Annotated[Name, NoEffect("what reports and folders carry")]
    """The name that reports carry."""
    source: Literal["demo", "text", "jsonl", "hub"]
    """`demo` (embedded), `text` (a file or a folder of .txt), `jsonl` (a table or a folder of tables) or `hub`
    (a Hugging Face dataset, streamed)."""
    path: GivenLine | None
    """File, folder or dataset id; None for `demo`."""
    config: GivenLine | None
    """Dataset configuration (hub)."""
    split: GivenLine
    """Dataset split (hub)."""
    field: GivenLine
    """Column or path that holds the text (jsonl, hub)."""
    document: Literal["file", "paragraph", "line"]
    """What one document is in a text: the `file`, a `paragraph` (set off by blank lines) or a `line`."""
    max_documents: Count
    """Stop after this many; 0 takes all."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            DataError: a value outside its rule.
        """
        hold_to_choices(self, "corpus")
        if self.source != "demo" and not self.path:
            raise DataError(
                "corpus.path",
                f"corpus {self.name!r} has no path",
                "give corpus.path=<file, folder or dataset id>",
            )


def read_documents(spec: CorpusSource) -> Iterator[str]:
    """The documents of a corpus, in a fixed order, none of them blank.

    Raises:
        DataError: nothing there, a damaged line, or a missing field.
    """
    readers = {"demo": _demo, "text": _text, "jsonl": _jsonl, "hub": _hub}
    for count, document in enumerate(readers[spec.source](spec)):
        if spec.max_documents and count >= spec.max_documents:
            return
        yield document


def split_documents(text: str, document: str) -> Iterator[str]:
    """The documents of one text; see `CorpusSource.document`."""
    if document == "file":
        blocks = [text]
    elif document == "line":
        blocks = text.splitlines()
    else:
        blocks, lines = [], []
        for line in [*text.splitlines(), ""]:
            if line.strip():
                lines.append(line.strip())
            elif lines:
                blocks.append(" ".join(lines))
                lines = []
    for block in blocks:
        if block.strip():
            yield block.strip()


def _demo(spec: CorpusSource) -> Iterator[str]:
    folder = files("metashot.data") / "demo_corpus"
    names = sorted(item.name for item in folder.iterdir() if item.name.endswith(".txt"))
    for name in names:
        yield from split_documents((folder / name).read_text(encoding="utf-8"), spec.document)


def _paths(spec: CorpusSource, what: str, is_wanted: Callable[[Path], bool]) -> list[Path]:
    assert spec.path is not None
    root = Path(spec.path).expanduser()
    paths = sorted(filter(is_wanted, root.rglob("*"))) if root.is_dir() else [root] if root.is_file() else []
    if not paths:
        raise DataError("corpus.path", f"no {what} at {str(root)!r}", "check the path")
    return paths


def _text(spec: CorpusSource) -> Iterator[str]:
    for path in _paths(spec, ".txt file", lambda path: plain_suffix(path) == ".txt" and path.is_file()):
        with open_text(path, newline=None) as stream:
            text = stream.read()
        yield from split_documents(text, spec.document)


def _jsonl(spec: CorpusSource) -> Iterator[str]:
    for path in _paths(spec, "table", lambda path: is_table(path) and path.is_file()):
        for number, row in numbered_rows(path):
            try:
                text = text_of(lookup(row, spec.field), spec.field)
            except (BadRow, Dropped) as error:
                raise DataError(
                    row_place(path, number), f"no text under {spec.field!r}: {error}", "set corpus.field"
                ) from error
            yield from split_documents(text, spec.document)


def _hub(spec: CorpusSource) -> Iterator[str]:
    datasets = import_extra("datasets", "corpus")
    assert spec.path is not None
    try:
        rows = datasets.load_dataset(spec.path, spec.config, split=spec.split, streaming=True)
    except Exception as error:
        raise DataError(
            "corpus.path",
            f"cannot open dataset {spec.path!r}: {type(error).__name__}",
            "check id, config, split and network, or use corpus.source=text with a local copy",
        ) from error
    for row in rows:
        if spec.field not in row:
            raise DataError(
                "corpus.field", f"rows of {spec.path!r} have no {spec.field!r}", f"one of {sorted(row)}"
            )
        yield from split_documents(str(row[spec.field]), spec.document)
