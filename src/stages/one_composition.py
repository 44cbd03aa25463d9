"""Composing the config of a command once, and its jobs from files that are read once.

Hydra composes a config to read `hydra.mode` alone, which a file or an override may set, and composes it again to run
it. This loader composes it the first time as the command line wants it run, and hands that out the second time. The
jobs of a sweep are composed from the same files: each is read once, and choices that were merged before are copied.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Any

from hydra._internal import hydra as internals
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from metashot.stages.launch import MULTIRUN

_SEARCH_PATH = "hydra.searchpath"


@dataclass(frozen=True, slots=True)
class _Composed:
    """A config, and what it was composed from."""

    name: str | None
    overrides: tuple[str, ...]
    mode: RunMode
    config: DictConfig


class _Copies:
    """A repository of files that hands out copies of their contents; composing takes contents apart."""

    def __init__(self, repository: Any) -> None:
        self._repository = repository

    def __getattr__(self, name: str) -> Any:
        return getattr(self._repository, name)

    def load_config(self, config_path: str) -> Any:
        """Hydra's method of that name."""
        result = copy.copy(self._repository.load_config(config_path))
        if result is not None:
            result.config = copy.deepcopy(result.config)
        return result


class KeepingLoader(ConfigLoaderImpl):
    """Hydra's loader, which reads a file once, merges the same choices once, and composes a command once."""

    def __init__(self, config_search_path: Any) -> None:
        super().__init__(config_search_path)
        self._forget()

    def _forget(self) -> None:
        self._kept: _Composed | None = None
        self._composes_jobs = False
        self._files: Any = None
        self._merged: dict[tuple[Any, ...], DictConfig] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Without what is kept: workers of other processes compose anew."""
        state = dict(vars(self))
        for name in ("_kept", "_composes_jobs", "_files", "_merged"):
            del state[name]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Hydra's method of that name."""
        if run_mode is RunMode.MULTIRUN and not validate_sweep_overrides:  # only the mode is asked for
            mode = RunMode.MULTIRUN if MULTIRUN & set(sys.argv) else RunMode.RUN
            self._composes_jobs = mode is RunMode.MULTIRUN
            try:
                config = super().load_configuration(config_name, overrides, mode, from_shell, True)
            except Exception:  # a file may make this a multirun, which allows more
                return super().load_configuration(config_name, overrides, run_mode, from_shell, False)
            self._kept = _Composed(config_name, tuple(overrides), mode, config)
            return config
        kept, self._kept = self._kept, None
        if kept is not None and _fits(kept, config_name, overrides, run_mode):
            return _in_mode(kept.config, overrides[len(kept.overrides) :])
        self._composes_jobs |= run_mode is RunMode.MULTIRUN
        return super().load_configuration(
            config_name, overrides, run_mode, from_shell, validate_sweep_overrides
        )

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Any], Any]:
        if not self._composes_jobs or any(_SEARCH_PATH in override for override in overrides):
            return super()._parse_overrides_and_create_caching_repo(config_name, overrides)
        if self._files is None:
            parsed, self._files = super()._parse_overrides_and_create_caching_repo(config_name, overrides)
            return parsed, self._files
        return OverridesParser.create().parse_overrides(overrides), self._files

    def _load_single_config(self, default: Any, repo: Any) -> Any:
        if repo is not self._files:
            return super()._load_single_config(default, repo)
        return super()._load_single_config(default, _Copies(repo))  # pyright: ignore[reportArgumentType]

    def _compose_config_from_defaults_list(self, defaults: list[Any], repo: Any) -> DictConfig:
        if repo is not self._files:
            return super()._compose_config_from_defaults_list(defaults, repo)
        key = tuple(map(astuple, defaults))
        if key not in self._merged:
            self._merged[key] = super()._compose_config_from_defaults_list(defaults, repo)
        return copy.deepcopy(self._merged[key])


def _fits(kept: _Composed, name: str | None, overrides: Sequence[str], mode: RunMode) -> bool:
    """Whether nothing was added to what was composed but the mode, which Hydra makes an override."""
    added = tuple(overrides[len(kept.overrides) :])
    given = (name, (*kept.overrides, *added), mode)
    return given == (kept.name, tuple(overrides), kept.mode) and added in ((), (f"hydra.mode={mode.name}",))


def _in_mode(config: DictConfig, added: Sequence[str]) -> DictConfig:
    for override in added:
        key, _, value = override.partition("=")
        OmegaConf.update(config, key, value)
        config.hydra.overrides.hydra.append(override)
    return config


@contextmanager
def composing_once() -> Generator[None]:
    """Inside, Hydra's command line uses `KeepingLoader`."""
    original = internals.ConfigLoaderImpl
    internals.ConfigLoaderImpl = KeepingLoader
    try:
        yield
    finally:
        internals.ConfigLoaderImpl = original
