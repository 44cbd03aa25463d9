"""Foreign text on a terminal: control sequences are shown, never carried out."""

from __future__ import annotations

import logging

from metashot.base.secrets import without_secrets_in

_KEPT = "\n\t"


def printable(text: str) -> str:
    r"""The text with every control and other unprintable character as its escape (`\x1b`); lines and tabs stay."""
    return "".join(
        one if one in _KEPT or one.isprintable() else one.encode("unicode_escape").decode("ascii")
        for one in text
    )


def counted(number: int, noun: str) -> str:
    """`1 cell`, `2,400 cells`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


class PrintableRecords(logging.Filter):
    """Log messages without control sequences and without secrets."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the message; every record passes."""
        record.msg, record.args = printable(without_secrets_in(record.getMessage())), ()
        return True
