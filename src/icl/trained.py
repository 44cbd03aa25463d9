"""Trained checkpoints: where a config's lies, what it was trained for, and whether a method agrees with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.checkpoint import MANIFEST, best_checkpoint, verify
from engine.errors import ConfigError
from engine.files import digest_of
from engine.run_context import RunContext
from icl.methods import Method

_DECIDES = ("data", "setting", "method", "model", "optimizer", "prompt", "k")
_DECIDES_NOTHING = ("folder", "resume", "progress", "log_every", "save_every", "keep_last", "keep_best")


def checkpoint_folder(run: RunContext) -> Path:
    """Where the checkpoints of this config lie: `trainer.folder`, or a folder named after all that decides them.

    So the same command finds its own checkpoints again, and another config never another's.
    """
    config = run.config
    chosen = config["trainer"]["folder"]
    if chosen is not None:
        return Path(chosen).expanduser()
    trainer = {key: value for key, value in config["trainer"].items() if key not in _DECIDES_NOTHING}
    digest = digest_of({"trainer": trainer, **{key: config[key] for key in _DECIDES}})
    return (
        run.results_root / "trained" / f"{config['method']['name']}-{config['model']['name']}-{digest[:12]}"
    )


def trained_folder(output: Path) -> Path | None:
    """The checkpoint of a training that evaluation should use: the best one, else the newest, if there is any."""
    return best_checkpoint(output / "checkpoints")


def trained_method(folder: str | Path) -> dict[str, Any] | None:
    """What a checkpoint folder was meta-trained for (see `training_settings.trained_for`), or None.

    Raises:
        CheckpointError: the folder has a manifest but is damaged.
    """
    path = Path(folder).expanduser()
    if not (path / MANIFEST).is_file():
        return None
    method: dict[str, Any] = verify(path)["method"]
    return method or None


def check_method(folder: str | Path, method: Method, k: int) -> None:
    """Raise ConfigError when `method` contradicts what the checkpoint in `folder` was trained for.

    The number of demonstrations may differ (accuracy over k is a result of the paper), their presence may not.
    """
    trained = trained_method(folder)
    if trained is None:
        return
    asked = {
        "objective": method.objective.value,
        "demonstrations": method.demonstrations,
        "layout": method.layout_for(Path(folder).name).value,
    }
    differing = [key for key, value in asked.items() if trained.get(key) != value]
    if differing:
        told = ", ".join(f"{key} is {trained.get(key)!r} there, {asked[key]!r} here" for key in differing)
        raise ConfigError(
            "method",
            f"{method.name!r} contradicts the checkpoint, which was trained for {trained['name']!r}: {told}",
            f"use method={trained['name']}",
        )
    if method.demonstrations and k == 0:
        raise ConfigError("k", f"0, but {trained['name']!r} was trained with demonstrations", "use k=16")
