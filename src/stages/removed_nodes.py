"""Nodes that `~name` took out of the config: every stage reads the whole of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from metashot.base.components.choices import CONFIG_FOLDER
from metashot.base.errors import ConfigError

_OPTIONAL = ("hydra", "experiment", "debug")
"""Groups that leave no node behind."""
_NAMED = ("data", "method", "model")
"""Groups whose choices have a name; what other files add to them has none."""


def check_nothing_is_removed(config: Mapping[str, Any]) -> None:
    """Hold a config against the keys and groups of `conf/config.yaml`.

    Raises:
        ConfigError: one of them is not there.
    """
    main = yaml.safe_load((CONFIG_FOLDER / "config.yaml").read_text(encoding="utf-8"))
    groups = [name for entry in main.pop("defaults") if isinstance(entry, dict) for name in entry]
    wanted = [
        *main,
        *(
            name
            for name in groups
            if not name.startswith(("override ", "optional ")) and name not in _OPTIONAL
        ),
    ]
    for name in wanted:
        if name not in config or (name in _NAMED and not {"name", "_target_"} & set(config[name])):
            raise ConfigError(
                name, "was taken out, and is needed", f"leave ~{name} out, or choose with {name}=<name>"
            )
