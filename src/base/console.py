"""A console for foreign text."""

from __future__ import annotations

import errno
import os
from typing import Any

from rich.console import Console
from rich.text import Text

from metashot.base.terminal import printable


class PlainConsole(Console):
    """A console on which every string is text: nothing in it is markup, an emoji code or a control sequence."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def on_broken_pipe(self) -> None:
        """Raise what rich would end the process for, without a word."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def render_str(self, text: str, **options: Any) -> Text:
        """The string as it is shown."""
        return super().render_str(printable(text), **options)
