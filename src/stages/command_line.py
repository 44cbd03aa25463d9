"""The command line as people type it: keys of an open map need no sign in front."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
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


def with_typed_folder(arguments: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """While a shell asks for completions, the arguments with the `--config-dir` of the line that is being typed.

    The shell passes the line as `COMP_LINE`; Hydra reads the overrides in it, but searches the folder of its own
    arguments only. A line that is not finished, as an open quote, completes without the folder.
    """
    asks = any(word.startswith("query=") for word in arguments)
    try:
        typed = shlex.split(environment.get("COMP_LINE", "")) if asks else []
    except ValueError:
        typed = []
    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    options.add_argument("--config-dir", "-cd")
    try:
        folder = options.parse_known_args(typed)[0].config_dir
    except argparse.ArgumentError:  # the folder itself is not typed yet
        folder = None
    return [*arguments, *(["--config-dir", folder] if folder and Path(folder).is_dir() else [])]


def program() -> str:
    """How this command is called: `python run.py` in a checkout, `metashot` where it is installed."""
    return "python run.py" if Path(sys.argv[0]).name == "run.py" else "metashot"
