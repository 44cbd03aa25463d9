"""The kinds of numbers and names that settings take: annotations to which every value of the config is held.

A dataclass that says `steps: Positive` needs no check of its own; see `engine.components.values`. From Python the
annotations are plain `int`, `float` and `str`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

_MOST = 10**9
_MOST_ORDERS = 10**4
_LONGEST_NAME = 200

Count = Annotated[int, Field(ge=0, le=_MOST)]
"""How many, none included."""
Positive = Annotated[int, Field(ge=1, le=_MOST)]
"""How many, at least one."""
Signed = Annotated[int, Field(ge=-_MOST, le=_MOST)]
"""A place in an order."""
OrderNumber = Annotated[int, Field(ge=0, lt=_MOST_ORDERS)]
"""One of the orders of some things; all before it are drawn to tell it from them."""
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""What every random generator in use takes."""
Share = Annotated[float, Field(ge=0, le=1)]
"""Of a whole, both ends included."""
InnerShare = Annotated[float, Field(gt=0, lt=1)]
"""Of a whole, neither nothing nor all."""
PositiveShare = Annotated[float, Field(gt=0, le=1)]
"""Of a whole, not nothing."""
Dropout = Annotated[float, Field(ge=0, lt=1)]
"""Probability with which a unit is left out."""
LearningRate = Annotated[float, Field(gt=0, le=1000)]
"""Of any optimizer; prompts are tuned with rates up to some hundreds."""
InnerRate = Annotated[float, Field(ge=0, le=1000)]
"""The same of an inner step; 0 takes none."""
Weight = Annotated[float, Field(ge=0, le=1e6)]
"""Of a term in a sum, or a norm."""
PositiveWeight = Annotated[float, Field(gt=0, le=1e6)]
"""The same, not 0."""


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be one line of printable text")
    return text


def _given(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def _name(text: str) -> str:
    if len(text) > _LONGEST_NAME:
        raise ValueError(f"must have at most {_LONGEST_NAME} characters")
    if "\\" in text or any(part in ("", ".", "..") for part in text.split("/")):
        raise ValueError("must be a name, no path")
    return text


def _simple(text: str) -> str:
    if "/" in text:
        raise ValueError("must be a name, no path")
    return text


Language = Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}([_-][A-Za-z]+)*$")]
"""A language code, such as `en` or `pt-BR`."""
Line = Annotated[str, AfterValidator(_one_line)]
"""Printable text without a line break."""
GivenLine = Annotated[Line, AfterValidator(_given)]
"""The same, not blank."""
RepositoryName = Annotated[GivenLine, AfterValidator(_name)]
"""A name that may become folders: `owner/model`, but nothing that leads out of a folder."""
Name = Annotated[RepositoryName, AfterValidator(_simple)]
"""A name that may become a file or a folder."""
