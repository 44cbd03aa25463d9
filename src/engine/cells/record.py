"""`run.json`: what was run, with what, where, and at what cost."""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from metashot.base.errors import OutputError
from metashot.base.files import check_held, hold, remove_leftovers, write_json
from metashot.base.json_text import SEAL, parse_json, sealed, unsealed
from metashot.engine.cells.results import RUN_FILE

_FORMAT = 2
_PACKAGES = (
    "metashot",
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "hydra-core",
    "omegaconf",
    "safetensors",
)


class RunRecord:
    """Collects what belongs into `run.json` and writes it, whole, at every change of status.

    Args:
        folder: the run's output folder.
        config: the resolved config.
        overrides: the command line's overrides.
        writes: False for a process whose run another one records.

    Raises:
        OutputError: the folder cannot be made.
    """

    def __init__(
        self, folder: Path, config: Mapping[str, Any], overrides: list[str], *, writes: bool = True
    ) -> None:
        self.folder = folder
        self._start = time.monotonic()
        self._held = hold(folder) if writes else None
        if writes:
            remove_leftovers(folder)
        self._content: dict[str, Any] = {
            "format": _FORMAT,
            "config": dict(config),
            "overrides": overrides,
            "versions": package_versions(),
            "git_commit": git_commit(),
            "host": {
                "system": platform.platform(),
                "processor": platform.machine(),
                "python": sys.version.split()[0],
            },
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        if (trained := _training_of(folder)) is not None:
            self._content["training"] = trained

    @property
    def trained_steps(self) -> int:
        """Steps of a training that ended in this folder before, 0 without any."""
        return int(self._content.get("training", {}).get("step", 0))

    def part(self, name: str, changes: Mapping[str, Any]) -> RunRecord:
        """The record of a run of its own in the folder `name` below, with other values for some keys of the config.

        Raises:
            OutputError: the folder cannot be made.
        """
        config = {**self._content["config"], **changes}
        return RunRecord(
            self.folder / name, config, self._content["overrides"], writes=self._held is not None
        )

    @property
    def config(self) -> Mapping[str, Any]:
        """The resolved config that is recorded."""
        return self._content["config"]

    def expect(self, cells: Mapping[tuple[str, int], str]) -> None:
        """Write down the cells that the run will hold: fingerprint by task and seed."""
        rows = [{"task": task, "seed": seed, "fingerprint": print_} for (task, seed), print_ in cells.items()]
        self.write("running", cells=rows)

    def write(self, status: str, **facts: Any) -> None:
        """Write the file with `status` (`running`, `finished`, `failed`, `interrupted`, `pruned`) and further facts.

        Raises:
            OutputError: it cannot be written, or the folder was removed since the run began.
        """
        self._content.update(_computer() | facts)
        self._content["status"] = status
        self._content["wall_seconds"] = round(time.monotonic() - self._start, 3)
        if self._held is not None:
            check_held(self._held)
            write_json(self.folder / RUN_FILE, sealed(self._content))


def _training_of(folder: Path) -> dict[str, Any] | None:
    """What the record of an earlier run in the folder says of its training."""
    try:
        found = parse_json((folder / RUN_FILE).read_bytes())["training"]
        return {**found, "step": int(found["step"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _computer() -> dict[str, Any]:
    """What torch computes on, where the run has loaded it; a run that found everything stored has not."""
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return {}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {"device": device, "threads": torch.get_num_threads()}


@dataclass(frozen=True, slots=True)
class SavedRun:
    """What `run.json` says about a run.

    Attributes:
        folder: its output folder.
        overrides: the command line it was started with.
        config: its resolved config, nested.
        status: `finished`, `failed`, `interrupted`, `pruned` or `running`.
        cells: fingerprint of every cell that it holds, by task and seed; empty when it evaluated nothing.
        facts: when it was started and at which commit, and by which route its cells were scored and how far at most
            from requests alone (`route`, `self_check` in nats), as far as it says so.
    """

    folder: Path
    overrides: tuple[str, ...]
    config: dict[str, Any]
    status: str
    cells: dict[tuple[str, int], str]
    facts: dict[str, str]


_FACTS, _FACTS_OF_COST = ("started", "git_commit"), ("route", "self_check")


def read_run(folder: Path) -> SavedRun:
    """Read the record of a run.

    Raises:
        OutputError: no run lies there, or its record is damaged.
    """
    path = folder / RUN_FILE
    try:
        content = parse_json(path.read_bytes())
        # Records of earlier versions carry neither format nor digest.
        content = unsealed(content) if "format" in content or SEAL in content else content
        cells = {(str(c["task"]), int(c["seed"])): str(c["fingerprint"]) for c in content.get("cells", ())}
        overrides, config = tuple(content.get("overrides", ())), dict(content["config"])
        cost = dict(content.get("cost") or {})
        told = {name: content.get(name) for name in _FACTS} | {
            name: cost.get(name) for name in _FACTS_OF_COST
        }
        facts = {name: str(value) for name, value in told.items() if value not in (None, "")}
        return SavedRun(folder, overrides, config, str(content.get("status", "")), cells, facts)
    except FileNotFoundError:
        raise OutputError(
            str(path), "no such file", "give the output folder of a run, the one with results.jsonl"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OutputError(
            str(path), f"damaged: {error}", "run the same command again in this folder"
        ) from None


@cache
def package_versions() -> Mapping[str, str]:
    """Installed versions of the packages that can change a number."""
    found: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


@cache
def git_commit() -> str | None:
    """The checkout's commit when this process first asked, with `-dirty` when files differ from it; None outside a checkout."""
    folder = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=folder, capture_output=True, text=True, check=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()
