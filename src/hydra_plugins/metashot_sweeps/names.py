"""Names of sweeps, as resolvers for conf/hydra and conf/logger."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

_NAME_CHARACTERS = 10
_NOT_PART = ("hydra.launcher", "hydra/launcher", "logger")


def register_resolvers() -> None:
    """`${sweep_name:}` and `${sweep_group:}`."""
    OmegaConf.register_new_resolver("sweep_name", sweep_name, replace=True)
    OmegaConf.register_new_resolver("sweep_group", sweep_group, replace=True)


def sweep_name() -> str:
    """A name that the same command always gets, so that it finds its ledger again."""
    words = [word for word in sys.argv[1:] if word not in ("-m", "--multirun")]
    text = "\0".join(sorted(word for word in words if not word.startswith(_NOT_PART)))
    return "sweep-" + hashlib.sha256(text.encode("utf-8")).hexdigest()[:_NAME_CHARACTERS]


def sweep_group() -> str | None:
    """Folder name of the sweep that the running job belongs to; None for a single run."""
    if not HydraConfig.initialized() or HydraConfig.get().mode is not RunMode.MULTIRUN:
        return None
    return Path(str(HydraConfig.get().sweep.dir)).name
