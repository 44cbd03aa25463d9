"""The node `prompt` as a prompt format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metashot.data.errors import suggestion
from metashot.engine.errors import ConfigError
from metashot.icl.prompting.config import ChatPrompt, MetaiclPrompt, PromptConfig, TemplatePrompt
from metashot.stages.nodes import build

_FORMATS = {
    f"{kind.__module__}.{kind.__name__}": kind for kind in (MetaiclPrompt, TemplatePrompt, ChatPrompt)
}


def make_prompt(node: Mapping[str, Any]) -> PromptConfig:
    """The format that the node names.

    Raises:
        ConfigError: a format that does not exist, or a key that it does not take.
    """
    target = str(node.get("_target_"))
    if target not in _FORMATS:
        raise ConfigError("prompt._target_", f"unknown format {target!r}", suggestion(target, _FORMATS))
    keys = {key: value for key, value in node.items() if key != "_target_"}
    return build(_FORMATS[target], keys, "prompt")
