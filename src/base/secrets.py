"""What no record may hold: one rule for every file that is written.

Secret are values that come from the environment, or stand, under a secret's name; every value that the environment holds
under such a name; and what shows by itself to be one: the tokens of known services, and the password of a URL.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from metashot.base.files import write_atomic

_SECRET_NAME = r"\w*(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL)\w*|(?:\w+_)?(?:PAT|PW|PASS)(?:_\w+)?"
"""Of an environment variable: HF_TOKEN, WANDB_API_KEY, GH_PAT."""
_SECRET_VARIABLE = re.compile(rf"\$\{{oc\.env:\s*['\"]?({_SECRET_NAME})(?=['\",\s}}])", re.IGNORECASE)
_SECRET_KEY = re.compile(
    r"(?:^|.*[._])(?:(?:api|access|auth|secret|private)_?(?:key|token)|token|secret|password|passwd|pat|credentials?)",
    re.IGNORECASE,
)
_LITERAL = re.compile(
    r"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{16,}|gh[opsur]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
    r"|sk-[\w-]{20,}|xox[abeoprs]-[\w-]{10,}|AKIA[0-9A-Z]{16}|AIza[\w-]{30,}|eyJ[\w-]{8,}\.eyJ[\w-]{8,}(?:\.[\w-]+)?)"
    r"|(?<=://)[^/\s:@'\"]*:[^/\s@'\"]+@"
)
"""Tokens of Hugging Face, GitHub, GitLab, OpenAI and those who name theirs alike, Slack, AWS and Google; JSON web tokens;
user and password in a URL."""
HIDDEN = "(secret, not recorded)"
_SHORTEST_PART = 4
"""A shorter secret is hidden where it is the whole value only."""
_SHORTEST_VALUE = 8
"""A shorter value of the environment is no secret: `TOKENIZERS_PARALLELISM=false`."""


def secrets_of(resolved: Any, unresolved: Any, key: str = "") -> set[str]:
    """The secret texts of a config.

    Args:
        resolved: plain values.
        unresolved: the same config before interpolation.
        key: under which both stand.
    """
    return {*_secrets(resolved, unresolved, key), *environment_secrets()}


def environment_secrets() -> set[str]:
    """What the environment holds under the names of secrets."""
    named = re.compile(_SECRET_NAME, re.IGNORECASE)
    return {
        value for name, value in os.environ.items() if len(value) >= _SHORTEST_VALUE and named.fullmatch(name)
    }


def without_secrets_in(text: str) -> str:
    """A text as a record may hold it, when no config is at hand: log lines, errors of a job."""
    return _hidden(text, environment_secrets() | set(_LITERAL.findall(text)))


def _secrets(resolved: Any, unresolved: Any, key: str) -> Iterator[str]:
    if isinstance(resolved, str):
        named = _SECRET_KEY.fullmatch(key) is not None
        if resolved and (named or (isinstance(unresolved, str) and _SECRET_VARIABLE.search(unresolved))):
            yield resolved
        yield from _LITERAL.findall(resolved)
    elif isinstance(resolved, dict):
        other = cast(dict[Any, Any], unresolved if isinstance(unresolved, dict) else {})
        for name, value in cast(dict[Any, Any], resolved).items():
            yield from _secrets(value, other.get(name), str(name))
    elif isinstance(resolved, list):
        items = cast(list[Any], resolved)
        others = cast(list[Any], unresolved) if isinstance(unresolved, list) else []
        for place, value in enumerate(items):
            yield from _secrets(value, others[place] if place < len(others) else None, key)


def without_secrets(value: Any, secrets: set[str]) -> Any:
    """A plain value with every secret in it, wherever it stands, replaced by a note."""
    if isinstance(value, dict):
        node = cast(dict[Any, Any], value)
        return {key: without_secrets(item, secrets) for key, item in node.items()}
    if isinstance(value, list):
        return [without_secrets(item, secrets) for item in cast(list[Any], value)]
    return HIDDEN if isinstance(value, str) and _holds_one(value, secrets) else value


def recorded_overrides(overrides: Sequence[str], secrets: set[str]) -> list[str]:
    """The command line without the overrides that hold a secret: the run can be replayed from the rest."""
    return [text for text in overrides if not _holds_one(text.partition("=")[2].strip("'\""), secrets)]


def hide_in_files(folder: Path, secrets: set[str]) -> None:
    """Replace secrets in the YAML files that Hydra has written already, if there are any."""
    for path in sorted(folder.glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        hidden = _hidden(text, secrets)
        if hidden != text:
            write_atomic(path, hidden)


def _hidden(text: str, secrets: Collection[str]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST_PART:
            text = text.replace(secret, HIDDEN)
    return text


def _holds_one(text: str, secrets: set[str]) -> bool:
    return _LITERAL.search(text) is not None or any(
        text == secret or (len(secret) >= _SHORTEST_PART and secret in text) for secret in secrets
    )
