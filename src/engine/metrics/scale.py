"""One scale of shares in dashboards: percent, which the name says. Files of results hold 0..1."""

from __future__ import annotations

import re
from collections.abc import Mapping

_SHARE = re.compile(
    r"(?:^|_)(?:accuracy|metric|most_frequent|predicted|demonstrations_cut)(?:_low|_high|_unadapted)?$"
)


def in_percent(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics as dashboards show them: shares 0..1 in percent and with `_percent` in their name, others as they are.

    A share is told by the part of its name before the first slash: `accuracy`, `metric`, `most_frequent`, `predicted`
    or `demonstrations_cut`, also at the end of a longer name and with `_low`, `_high` or `_unadapted` behind it.
    `{"accuracy/sst2": 0.5, "query_loss": 0.5}` -> `{"accuracy_percent/sst2": 50.0, "query_loss": 0.5}`.
    """
    shown: dict[str, float] = {}
    for key, value in metrics.items():
        name, slash, rest = key.partition("/")
        if _SHARE.search(name):
            shown[f"{name}_percent{slash}{rest}"] = 100 * value
        else:
            shown[key] = value
    return shown
