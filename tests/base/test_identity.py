"""What `identity_of` takes for the same component, and what for another one."""

import functools
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from threading import Lock
from typing import Annotated, Any

import numpy as np
import pytest

from metashot.base.errors import ConfigError
from metashot.base.identity import ByContent, NoEffect, deciding_fields, identity_of
from metashot.base.json_text import digest_of
from metashot.engine.metrics.rules import CALIBRATIONS, NORMALIZATIONS
from metashot.engine.training.config import OptimizerConfig, adamw


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Inner:
    size: int = 1


@dataclass(frozen=True)
class Component:
    """One field of every kind that components have."""

    number: float = 1.0
    flag: bool = True
    text: str = "a"
    colour: Colour = Colour.RED
    many: tuple[str, ...] = ("a", "b")
    mapping: dict[Any, Any] = field(default_factory=lambda: {"a": 1})
    inner: Inner = Inner()
    call: Callable[..., Any] = field(default_factory=lambda: functools.partial(Inner, size=2))
    kind: type = Inner
    given: Annotated[str, ByContent()] = "no file"
    path: Path = Path("no file")
    table: Any = field(default_factory=lambda: np.arange(3))
    pattern: Any = re.compile("a")
    names: frozenset[str] = frozenset({"a", "b"})
    label: Annotated[str, NoEffect("shown only")] = "x"


OTHERS = {
    "number": 2.0, "flag": False, "text": "b", "colour": Colour.BLUE, "many": ("b", "a"), "mapping": {1: "a"},
    "inner": Inner(2), "call": functools.partial(Inner, size=3), "kind": Component, "given": "other", "path": Path("other"),
    "table": np.arange(3.0), "pattern": re.compile("a", re.IGNORECASE), "names": frozenset({"a"}),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_every_field_decides(name):
    assert identity_of(Component()) == identity_of(Component())
    assert identity_of(replace(Component(), **{name: OTHERS[name]})) != identity_of(Component())


def test_a_marked_field_does_not_decide_nor_in_a_subclass_that_does_not_repeat_the_mark():
    @dataclass(frozen=True)
    class Child(Component):
        label: str = "y"

    assert identity_of(Component(label="y")) == identity_of(Component())
    assert identity_of(Child()) == identity_of(Child(label="z"))
    assert "label" not in deciding_fields(Component())
    assert set(OTHERS) == set(deciding_fields(Component()))


def test_it_is_json_and_tells_kinds_of_values_apart():
    values = [1, 1.0, True, "1", None, "None", [1], {"1": 1}, {1: 1}, {1}, b"1", Inner(1), Path("1/2")]
    digests = [digest_of(identity_of(value)) for value in values]
    assert len(set(digests)) == len(values)
    assert json.loads(json.dumps(identity_of(Component()))) == identity_of(Component())


def test_the_order_of_a_mapping_decides_and_that_of_arguments_does_not():
    """The limits of a recipe's thresholds are tried one after the other."""
    assert identity_of({"a": 1, "b": 2}) != identity_of({"b": 2, "a": 1})
    calls = [functools.partial(Component, **given) for given in ({"a": 1, "b": 2}, {"b": 2, "a": 1})]
    assert len({digest_of(identity_of(call)) for call in calls}) == 1


def test_files_and_folders_decide_by_their_content_wherever_they_lie(tmp_path):
    def made(place, text):
        (tmp_path / place).mkdir()
        (tmp_path / place / "rows.txt").write_text(text)
        return tmp_path / place

    one, same, other = made("one", "x"), made("same", "x"), made("other", "y")
    for as_field in (lambda path: Component(path=path), lambda path: Component(given=str(path))):
        for inner in (lambda path: path, lambda path: path / "rows.txt"):
            first, second, third = (identity_of(as_field(inner(path))) for path in (one, same, other))
            assert first == second != third


def test_defaults_count_as_given_and_marked_parameters_do_not():
    def maker(model, size: int = 1, *, batch: Annotated[int, NoEffect("rounding")] = 8):
        return model, size, batch

    bare = identity_of(functools.partial(maker))
    assert bare == identity_of(functools.partial(maker, size=1, batch=2))
    assert bare != identity_of(functools.partial(maker, size=2))


def test_a_function_counts_with_what_it_closes_over_and_its_computed_defaults():
    def rule(power, scale):
        return lambda lengths, by=scale: lengths**power / by

    identities = [identity_of(rule(*given)) for given in ((1, 1), (2, 1), (1, 2), (1, 1))]
    assert identities[0] == identities[3]
    assert len({digest_of(one) for one in identities}) == 3


def test_two_functions_without_a_name_on_one_line_differ():
    first, second = (lambda x: x.tokens), (lambda x: x.chars)
    assert identity_of(first) != identity_of(second)


def test_a_formula_of_ours_counts_with_its_text_and_with_the_functions_it_calls():
    rules = [*NORMALIZATIONS.values(), *CALIBRATIONS.values()]
    formulas = [getattr(rule, "length", None) or rule.combine for rule in rules]  # pyright: ignore
    identities = [identity_of(formula) for formula in formulas]
    assert all("source" in identity for identity in identities)


def test_optimizers_are_known_by_their_torch_class():
    from torch.optim import AdamW

    ours = identity_of(OptimizerConfig(algorithm=adamw()))
    assert identity_of(OptimizerConfig(algorithm=functools.partial(AdamW, fused=True))) == ours
    assert identity_of(OptimizerConfig(algorithm=adamw(betas=(0.9, 0.99)))) != ours


def test_an_object_without_readable_state_is_refused_in_one_line():
    with pytest.raises(ConfigError, match=r"_thread\.lock: has no state"):
        identity_of(Component(table=Lock()))


def test_an_object_that_holds_itself_ends():
    ring: list[Any] = []
    ring.append(ring)
    assert identity_of(ring) == [{"again": 1}]


OWN = {
    "own/__init__.py": "",
    "own/rules.py": "from dataclasses import dataclass\nfrom . import numbers\nfrom own.helpers import half\n\n\n"
    "@dataclass(frozen=True)\nclass Base:\n    size: int = 1\n\n\n"
    "def rule():\n    import local_helper\n    return lambda x: half(x) * numbers.TWO\n",
    "own/numbers.py": "TWO = 2\n",
    "own/helpers.py": "def half(x):\n    return x / 2\n",
    "own/unused.py": "X = 1\n",
    "derived.py": "from own.rules import Base\n\n\nclass Derived(Base):\n    pass\n",
    "local_helper.py": "Y = 1\n",
}
ASK = """
import json
from metashot.base.identity import identity_of
from metashot.base.json_text import digest_of
from own.rules import Base, rule
from derived import Derived
print(json.dumps([digest_of(identity_of(one)) for one in (Base(), Derived(), rule())]))
"""


def asked(folder: Path, seed: str = "0") -> list[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "PYTHONHASHSEED": seed,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def write(folder: Path, changes: dict[str, str] | None = None) -> Path:
    for name, text in {**OWN, **(changes or {})}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_code_of_ones_own_decides_by_its_text_and_that_of_the_modules_it_imports(tmp_path):
    before = asked(write(tmp_path / "a"))
    assert len(set(before)) == 3
    assert asked(write(tmp_path / "elsewhere"), seed="7") == before
    assert asked(write(tmp_path / "b", {"own/unused.py": "X = 2\n"})) == before
    for name in ("own/rules.py", "own/numbers.py", "own/helpers.py", "local_helper.py"):
        after = asked(write(tmp_path / name.replace("/", "_"), {name: OWN[name] + "\nZ = 3\n"}))
        assert all(new != old for new, old in zip(after, before, strict=True)), name
    after = asked(write(tmp_path / "c", {"derived.py": OWN["derived.py"] + "\nZ = 3\n"}))
    assert [new != old for new, old in zip(after, before, strict=True)] == [False, True, False]


def test_a_class_without_a_file_counts_with_its_code():
    def made(body: str) -> Any:
        names: dict[str, Any] = {"__name__": "typed_in"}
        exec(f"class Rule:\n    def length(self, x):\n        return {body}\n", names)
        return identity_of(names["Rule"])

    assert made("x + 1") == made("x + 1") != made("x + 2")
    assert made("x + 1") != made("x - 1")


def test_the_package_is_not_read_for_classes_of_ours():
    assert identity_of(OptimizerConfig).keys() == {"class"}
    assert importlib.import_module("metashot.base.identity").identity_of is identity_of
