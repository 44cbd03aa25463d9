"""What a checkpoint was meta-trained for, and whether a method agrees with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from metashot.base.errors import ConfigError
from metashot.engine.training.checkpoint import verify
from metashot.icl.prompting.boundary import Boundary
from metashot.icl.prompting.config import RELEASED_PROMPT, PromptConfig
from metashot.icl.prompting.methods import Method


def trained_method(folder: str | Path) -> dict[str, Any] | None:
    """What a checkpoint folder was meta-trained for (see `training_settings.trained_for`), or None.

    Raises:
        CheckpointError: the folder has a manifest but is damaged.
    """
    path = Path(folder).expanduser()
    if not (path / "manifest.json").is_file():
        return None
    method: dict[str, Any] = verify(path)["method"]
    return method or None


def follow_checkpoint(folder: str | Path, prompt: PromptConfig) -> PromptConfig:
    """`prompt` as the checkpoint in `folder` was trained, if it was.

    `bos: auto` is settled, and the pieces of a template or chat are tokenized one by one, as training sequences are.
    """
    trained = trained_method(folder)
    if trained is None:
        return prompt
    if trained.get("prompt", RELEASED_PROMPT) != RELEASED_PROMPT:
        prompt = replace(prompt, boundary=Boundary.SEPARATE)
    return prompt if prompt.bos != "auto" else replace(prompt, bos=bool(trained.get("bos", False)))


def check_method(folder: str | Path, method: Method, k: int, prompt: PromptConfig) -> None:
    """Raise ConfigError when `method` or `prompt` contradicts what the checkpoint in `folder` was trained for.

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
    if trained.get("prompt", RELEASED_PROMPT) != prompt.trained_as():
        raise ConfigError(
            "prompt",
            f"{prompt.name!r} is not the format that the checkpoint was trained with: "
            f"{trained.get('prompt', RELEASED_PROMPT)!r}",
            "use that format, with the same texts",
        )
    if method.demonstrations and k == 0:
        raise ConfigError("k", f"0, but {trained['name']!r} was trained with demonstrations", "use k=16")
