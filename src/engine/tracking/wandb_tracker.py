"""Weights & Biases: one run per output folder, opened with its first record, so that a refused config leaves none behind.

This is the only module that imports wandb. What the user's environment says (`WANDB_MODE`, `WANDB_DISABLED`,
`WANDB_PROJECT`, `WANDB_ENTITY`, `WANDB_NAME`, `WANDB_TAGS`, `WANDB_NOTES`, `WANDB_RUN_ID`, `WANDB_RUN_GROUP`,
`WANDB_JOB_TYPE`, `WANDB_RESUME`, `WANDB_DIR`) wins over the config.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from metashot.base.errors import ConfigError, OutputError
from metashot.base.extras import import_extra
from metashot.base.files import write_atomic, write_json
from metashot.base.json_text import read_json
from metashot.engine.tracking.tracker import (
    STEPS,
    Mode,
    RunLabel,
    Status,
    first_line,
    flatten,
    quietly,
)

log = logging.getLogger(__name__)

RESOLVED_CONFIG = "resolved_config.yaml"
ADDRESS_FILE = "wandb.json"
"""In a run's output folder: which W&B run belongs to it, for runs that build on it."""
_INIT_SECONDS = 30.0
_FINISH_SECONDS = 60.0
_LONGEST = {"name": 128, "project": 128, "group": 128, "tags": 64, "id": 64, "entity": 128}
_FORBIDDEN = {"project": r"[/\\#?%:]", "id": r"[/\\#?%:]", "entity": r"[/\\#?%: ]"}
_LEVELS_UP = 3
_EXIT_CODES: dict[Status, int] = {"ok": 0, "failed": 1, "interrupted": 255, "pruned": 0}
"""255 is the client's own for Ctrl-C: W&B shows such a run as killed."""


class WandbTracker:
    """A W&B run, offline unless a key is set.

    The dotted config goes to `run.config`; the nested one is saved as `resolved_config.yaml`. Offline
    runs lie under `<folder>/wandb` and are uploaded with `wandb sync`. When the server is lost during a
    run, metrics stay on disk for `wandb sync`; a table or artifact is given up after about 20 seconds.

    Args:
        label: how the run is called.
        config: the resolved config, nested.
        folder: where the run is kept. A run of the same kind and name that a former job left there is
            continued, unless `id` or `resume` say otherwise: a resumed training stays one run.
        mode: `online`, `offline`, `disabled`, or `auto`: online when a key is set.
        entity: whose project it is; None is the key's own.
        id: W&B's own name of the run; None draws one.
        resume: what to do when the server knows the id.

    Raises:
        ConfigError: wandb is not installed, or a name, tag or id that W&B refuses.
    """

    def __init__(
        self,
        label: RunLabel,
        config: Mapping[str, Any],
        *,
        folder: Path,
        mode: Mode = "auto",
        entity: str | None = None,
        id: str | None = None,
        resume: Literal["allow", "must", "never", "auto"] | None = None,
    ) -> None:
        self._wandb = import_extra("wandb", "logger=wandb")
        self._folder = Path(os.environ.get("WANDB_DIR") or folder)
        self._output = folder
        self._mode = mode
        self._config = dict(config)
        own = {
            "project": label.project, "group": label.group, "job_type": label.job_type, "name": label.name,
            "notes": label.notes, "entity": entity, "id": id, "resume": resume,
        }  # fmt: skip
        self._settings: dict[str, Any] = {
            key: value for key, value in own.items() if not os.environ.get(_variable(key))
        }
        self._called = {"job_type": label.job_type, "name": label.name}
        before = _noted(folder)
        self._continues = before is not None and self._called.items() <= before.items()
        self._artifacts = dict(before["artifacts"]) if before is not None and self._continues else {}
        if before is not None and self._continues and id is None and resume is None and _free("id", "resume"):
            self._settings |= {"id": before["id"], "resume": "allow"}
        if not os.environ.get("WANDB_TAGS"):
            self._settings["tags"] = list(label.tags)
        _check(self._settings)
        self._open: Any = None

    @property
    def _run(self) -> Any:
        """The run; opened by its first record."""
        if self._open is None:
            self._open = self._opened()
            with quietly("save the resolved config"):
                path = Path(self._open.dir) / RESOLVED_CONFIG
                write_atomic(path, yaml.safe_dump(self._config, sort_keys=False, allow_unicode=True))
                self._open.save(str(path), base_path=self._open.dir, policy="now")
            with quietly("name its metrics"):
                for phase, step in STEPS.items():
                    self._open.define_metric(step, hidden=True)
                    self._open.define_metric(f"{phase}/*", step_metric=step)
            with quietly("note its address"):
                own = self._open
                address = {
                    **self._called,
                    "id": own.id,
                    "project": own.project,
                    "entity": own.entity or None,
                    "artifacts": self._artifacts,
                    "url": self._open.url,
                }
                write_json(self._output / ADDRESS_FILE, address)
        return self._open

    def _opened(self) -> Any:
        mode = self._choose_mode()
        try:
            return self._start(mode)
        except Exception as error:
            if mode != "online":
                raise OutputError(
                    str(self._folder), f"W&B cannot start: {error}", "choose logger=jsonl or logger=none"
                ) from error
            log.warning("W&B: the server does not answer (%s); logging offline", first_line(error))
            return self._start("offline")

    def _choose_mode(self) -> str:
        if os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes"):
            return "disabled"
        wanted = os.environ.get("WANDB_MODE") or self._mode
        if wanted not in ("auto", "online"):
            return "offline" if wanted == "dryrun" else wanted
        if self._wandb.login(prompt=False, verify=False):
            return "online"
        log.warning(
            "W&B: no API key is set, logging offline to %s (upload later with `wandb sync`)",
            self._folder / "wandb",
        )
        return "offline"

    def _start(self, mode: str) -> Any:
        self._folder.mkdir(parents=True, exist_ok=True)
        # A Settings object keeps the id of the first run started with it, so each run gets its own.
        # Offline, the client would answer `resume` with a new id.
        settings = self._wandb.Settings(
            init_timeout=_INIT_SECONDS,
            finish_timeout=_FINISH_SECONDS,
            console="off",
            silent=True,
            x_graphql_retry_max=3,
        )
        return self._wandb.init(
            dir=str(self._folder),
            config=flatten(self._config),
            mode=mode,
            reinit="finish_previous",
            settings=settings,
            **{key: value for key, value in self._settings.items() if mode == "online" or key != "resume"},
        )

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics; each phase counts its own steps, W&B's row number only goes up."""
        row: dict[str, float] = dict(metrics)
        if step is not None:
            row |= {STEPS.get(name.split("/")[0], "step"): step for name in metrics}
        with quietly("log metrics"):
            self._run.log(row)

    def summary(self, values: Mapping[str, object]) -> None:
        """Set the run's summary, which sweeps and dashboards read."""
        with quietly("write the summary"):
            self._run.summary.update(flatten(values))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Log a W&B table."""
        with quietly(f"log table {name}"):
            data = [list(row) for row in rows]
            self._run.log({name: self._wandb.Table(columns=list(columns), data=data, allow_mixed_types=True)})

    def artifact(self, name: str, kind: str, path: Path) -> None:
        """Log a file or folder as an artifact called `<kind>-<run id>`, and note it for runs that build on it."""
        with quietly(f"log artifact {name}"):
            own = f"{name}-{self._run.id}"
            artifact = self._wandb.Artifact(name=own, type=kind)
            artifact.add_dir(str(path)) if path.is_dir() else artifact.add_file(str(path))
            self._run.log_artifact(artifact)
            address = read_json(self._output / ADDRESS_FILE)
            address["artifacts"][kind] = own
            write_json(self._output / ADDRESS_FILE, address)
            shared = not path.absolute().is_relative_to(self._output.absolute())
            if shared and kind in ("checkpoint", "prompt"):  # the newest run that left one is noted there
                write_json(path.parent / ADDRESS_FILE, address)

    def uses(self, path: Path) -> None:
        """Note the run that left `path` in `run.config["built_on"]`, and online its artifact as an input."""
        address = address_of(path)
        if address is None:
            return
        with quietly("note what the run builds on"):
            place = "/".join(str(part) for part in (address["entity"], address["project"]) if part)
            self._run.config.update({"built_on": f"{place}/{address['id']}"}, allow_val_change=True)
            kept = address["artifacts"].get("checkpoint") or address["artifacts"].get("prompt")
            if kept and not self._run.offline and not self._run.disabled:
                self._run.use_artifact(f"{place}/{kept}:latest")

    def finish(self, status: Status) -> None:
        """Finish the run; a lost server is waited for one minute at most. A run that ended before any record is none."""
        if self._open is None and status != "ok":
            return
        with quietly("finish the run"):
            if status in ("pruned", "interrupted"):
                self._run.summary[status] = True
                self._run.tags = (*(self._run.tags or ()), status)
            elif self._continues:  # it may have been interrupted before
                self._run.summary["interrupted"] = False
                self._run.tags = tuple(tag for tag in self._run.tags or () if tag != "interrupted")
            self._run.finish(exit_code=_EXIT_CODES[status])


def address_of(path: Path) -> dict[str, Any] | None:
    """Which W&B run left `path`: noted in its output folder, at or above it; None where none is."""
    for folder in (path, *list(path.absolute().parents)[:_LEVELS_UP]):
        if (address := _noted(folder)) is not None:
            return address
    return None


def _noted(folder: Path) -> dict[str, Any] | None:
    try:
        return read_json(folder / ADDRESS_FILE)
    except (OSError, ValueError):
        return None


def _free(*keys: str) -> bool:
    """Whether the environment leaves these settings to the config."""
    return not any(os.environ.get(_variable(key)) for key in keys)


def _variable(key: str) -> str:
    """The environment variable that stands for a setting."""
    names = {"id": "WANDB_RUN_ID", "group": "WANDB_RUN_GROUP"}
    return names.get(key, f"WANDB_{key.upper()}")


def _check(settings: Mapping[str, Any]) -> None:
    """Refuse what the server would refuse, before anything starts."""
    for key, longest in _LONGEST.items():
        value = settings.get(key)
        for text in value if isinstance(value, list) else [value]:
            if text is None:
                continue
            place = f"logger.{key}" if key in ("project", "group", "id", "entity") else key
            if not 1 <= len(str(text)) <= longest:
                raise ConfigError(
                    place,
                    f"W&B takes 1 to {longest} characters, got {len(str(text))}: {text!r}",
                    "shorten it" if text else "give it a text",
                )
            if key in _FORBIDDEN and re.search(_FORBIDDEN[key], str(text)):
                raise ConfigError(
                    place, f"{text!r} has a character that W&B refuses", "leave out / \\ # ? % :"
                )
