"""The command line as people type it: keys of an open map need no sign in front."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

_OPEN_MAPS = re.compile(r"data\.task_types(\.[^=]+)?=")
"""Maps whose keys the user chooses; Hydra takes new keys only behind `+` or `++`."""
_SWEPT_GROUP = re.compile(r"([a-z_]+)=[^'\"\[{(]+,")
_KEY_OF_GROUP = re.compile(r"([a-z_]+)\.[\w.]+=")


def with_new_keys(arguments: Sequence[str]) -> list[str]:
    """The arguments with `++` in front of those that may add a key: `data.task_types.my_task=multi-choice`.

    So do the keys of a group that is swept over (`-m model=hf,local model.path=x`): before there is a job Hydra knows
    the default choice only. Each job is checked with its own choice.
    """
    swept = {match[1] for match in map(_SWEPT_GROUP.match, arguments) if match}

    def may_add(argument: str) -> bool:
        key = _KEY_OF_GROUP.match(argument)
        return bool(_OPEN_MAPS.match(argument)) or (key is not None and key[1] in swept)

    return [f"++{argument}" if may_add(argument) else argument for argument in arguments]


def program() -> str:
    """How this command is called: `python run.py` in a checkout, `metashot` where it is installed."""
    return "python run.py" if Path(sys.argv[0]).name == "run.py" else "metashot"
