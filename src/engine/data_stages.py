"""`stage=prepare` and `stage=doctor`: config nodes to the data layer's functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.doctor import doctor
from data.prepare import PrepareSettings, prepare
from data.settings import Setting, load_setting
from engine.config import build
from engine.errors import ConfigError
from engine.run_context import RunContext


@dataclass(frozen=True, slots=True)
class PrepareKeys:
    """The config node `prepare`; see `data.prepare.PrepareSettings`."""

    roles: tuple[str, ...]
    only: tuple[str, ...]
    k: int
    seeds: tuple[int, ...]
    pool_k: int
    pool_seeds: tuple[int, ...]
    workers: int
    source: str
    prepared: str
    cache: Path
    online: bool
    timeout_seconds: float
    promptsource: Path | None
    force: bool


def prepare_stage(run: RunContext) -> float:
    """Make the files of the setting below `data.root`; returns the share of tasks that are there, in percent.

    Raises:
        ConfigError: no setting and no `prepare.only`, or a data group without a root.
        DataError: a request that cannot be met.
    """
    keys = build(PrepareKeys, run.config["prepare"], "prepare")
    data: Mapping[str, Any] = run.config["data"]
    report = prepare(
        PrepareSettings(
            root=_root(data),
            setting=_setting(run.config, keys),
            roles=keys.roles,
            only=keys.only,
            k=keys.k,
            seeds=keys.seeds,
            pool_k=keys.pool_k,
            pool_seeds=keys.pool_seeds,
            workers=keys.workers,
            source=keys.source,
            prepared=keys.prepared,
            raw=None if data.get("raw") is None else Path(str(data["raw"])),
            cache=keys.cache,
            online=keys.online,
            timeout_seconds=keys.timeout_seconds,
            recipe_path=tuple(data.get("recipe_path", ())),
            fixes=bool(data["fixes"]),
            promptsource=keys.promptsource,
            force=keys.force,
        ),
        run.console,
    )
    there = len(report.with_status("ok")) + len(report.with_status("skipped"))
    return 100.0 * there / max(1, len(report.outcomes))


def doctor_stage(run: RunContext) -> float:
    """Compare `data.root` with its manifest and the setting; returns the number of faults."""
    keys = build(PrepareKeys, run.config["prepare"], "prepare")
    report = doctor(
        _root(run.config["data"]),
        _setting(run.config, keys),
        keys.k,
        keys.seeds,
        keys.roles,
        keys.pool_k,
        keys.pool_seeds[0],
        run.console,
    )
    return float(len(report.findings))


def _root(data: Mapping[str, Any]) -> Path:
    if not data.get("root"):
        raise ConfigError("data.root", "is not set", "choose data=hub and give data.root=<folder>")
    return Path(str(data["root"])).expanduser()


def _setting(config: Mapping[str, Any], keys: PrepareKeys) -> Setting:
    if config["setting"] is not None:
        return load_setting(str(config["setting"]["name"]))
    if not keys.only:
        raise ConfigError(
            "setting", "is not set", "choose setting=<name>, or name tasks: 'prepare.only=[<task>]'"
        )
    return Setting("selection", list(keys.only), list(keys.only), [])
