"""The command line as people type it: keys of an open map need no sign in front."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

_OPEN_MAPS = re.compile(r"data\.task_types(\.[^=]+)?=")
"""Maps whose keys the user chooses; Hydra takes new keys only behind `+` or `++`."""


def with_new_keys(arguments: Sequence[str]) -> list[str]:
    """The arguments with `++` in front of those that may add a key: `data.task_types.my_task=multi-choice`."""
    return [f"++{argument}" if _OPEN_MAPS.match(argument) else argument for argument in arguments]


def program() -> str:
    """How this command is called: `python run.py` in a checkout, `metashot` where it is installed."""
    return "python run.py" if Path(sys.argv[0]).name == "run.py" else "metashot"
