"""`prompt=set`: several named formats, each evaluated in a run of its own below one output folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Annotated, Any

from metashot.base.errors import ConfigError
from metashot.base.identity import NoEffect
from metashot.base.value_kinds import Name
from metashot.engine.models.text_tokenizer import AnyTokenizer
from metashot.icl.prompting.config import PromptConfig
from metashot.icl.prompting.frame import Frame
from metashot.icl.prompting.methods import Method


@dataclass(frozen=True, slots=True)
class PromptSet(PromptConfig):
    """Formats that one run compares: how much does a result depend on the prompt?"""

    name: Annotated[Name, NoEffect("what messages call it")] = "set"
    _: KW_ONLY
    prompts: Mapping[str, PromptConfig] = field(default_factory=dict[str, PromptConfig])
    """The formats by the names that tables show (`prompt=<name>`); keys of the set itself are not theirs."""

    def __post_init__(self) -> None:
        """Refuse what is no set.

        Raises:
            ConfigError: no format, or a set within the set.
        """
        if not self.prompts:
            raise ConfigError(
                "prompt.prompts", "names no format", "'+prompt.prompts.mine={...}', or prompt=chat"
            )
        for key, prompt in self.prompts.items():
            if re.fullmatch(r"\w[\w.-]*", key) is None:
                raise ConfigError(
                    "prompt.prompts", f"{key!r} is no name of a folder", "letters, digits, _ . and -"
                )
            if isinstance(prompt, PromptSet):
                raise ConfigError(f"prompt.prompts.{key}", "is a set itself", "name its formats here")

    @property
    def members(self) -> dict[str, PromptConfig]:
        """Each format under the name that the set gives it."""
        return {key: replace(prompt, name=key) for key, prompt in self.prompts.items()}

    def frame(self, method: Method, model_name: str, tokenizer: AnyTokenizer) -> Frame:
        """No format of its own.

        Raises:
            ConfigError: always: only `stage=evaluate` and `stage=plan` go through a set.
        """
        raise _one_format(self)

    def trained_as(self) -> Any:
        """Nothing is trained with a set.

        Raises:
            ConfigError: always.
        """
        raise _one_format(self)


def _one_format(prompts: PromptSet) -> ConfigError:
    return ConfigError(
        "prompt",
        "'set' holds several formats, which stage=evaluate and stage=plan go through one by one",
        f"name one format here, for example one of: {', '.join(prompts.prompts)}",
    )
