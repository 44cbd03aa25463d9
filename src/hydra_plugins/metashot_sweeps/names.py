"""Names of sweeps, as resolvers for conf/hydra and conf/logger."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf

_NAME_CHARACTERS = 10
_FLAGS = ("-m", "--multirun")
_STUDY = "hydra.sweeper.search.study"
"""The one key of Hydra's own node that makes a sweep another one."""


def register_resolvers() -> None:
    """`${sweep_name:}` and `${sweep_group:}`."""
    OmegaConf.register_new_resolver("sweep_name", sweep_name, replace=True)
    OmegaConf.register_new_resolver("sweep_group", sweep_group, replace=True)


def sweep_name() -> str:
    """A name that the same command always gets, so that it finds its ledger again."""
    text = "\0".join(identity(sys.argv[1:]))
    return "sweep-" + hashlib.sha256(text.encode("utf-8")).hexdigest()[:_NAME_CHARACTERS]


def identity(words: Sequence[str]) -> list[str]:
    """What makes a command line the same sweep, sorted: what it fixes, and which keys it sweeps.

    The swept values are no part of it, so that a sweep with more of them goes on with the same ledger; neither is
    what decides no result (loggers, names, tags, launchers, the number of trials).
    """
    from metashot.engine.sweeps.ledger import decides

    parser = OverridesParser.create()
    parts: list[str] = []
    for word in words:
        if word in _FLAGS or (not word.startswith(("-", _STUDY)) and not decides(word)):
            continue
        try:
            (override,) = parser.parse_overrides([word])
        except HydraException:  # a flag, or an override that composing will refuse
            parts.append(word)
            continue
        parts.append(override.get_key_element() + " is swept" if override.is_sweep_override() else word)
    return sorted(parts)


def sweep_group() -> str | None:
    """Folder name of the sweep that the running job belongs to; None for a single run."""
    if not HydraConfig.initialized() or HydraConfig.get().mode is not RunMode.MULTIRUN:
        return None
    return Path(str(HydraConfig.get().sweep.dir)).name
