"""The composed config checked as a whole, then made into objects by Hydra."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from hydra.utils import instantiate

from metashot.base.components.binding import PARTIAL, TARGET, Call, bind_call, make
from metashot.stages.run_config import RunConfig


def make_run_config(composed: Mapping[str, Any]) -> RunConfig:
    """Every node checked, then every component made.

    Args:
        composed: the resolved config as plain values.

    Raises:
        ConfigError: a mistake in any node, used by the chosen stages or not; see `engine.components.binding`.
    """
    return make(bind_call(RunConfig, composed, ""), _by_hydra)


def _by_hydra(call: Call, values: Mapping[str, Any]) -> Any:
    """Hydra finds and calls the target; its arguments have their types already."""
    if call.partial:
        return functools.partial(call.target, **values)
    return (
        call.target(**values)
        if call.name is None
        else instantiate({TARGET: call.name, PARTIAL: True})(**values)
    )
