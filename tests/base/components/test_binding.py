"""A node is held to what it makes before anything is made; one line says what is wrong with it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import pytest
import torch

from metashot.base.components.binding import bind, bind_call, make
from metashot.base.components.targets import TRUSTED_VARIABLE, import_target
from metashot.base.components.values import convert
from metashot.base.errors import ConfigError

HERE = __name__


class Speaker(Protocol):
    @property
    def name(self) -> str: ...

    def speak(self, times: int) -> str: ...


@dataclass(frozen=True)
class Dog:
    name: str
    sounds: tuple[str, ...] = ("wuff",)

    def speak(self, times):
        return " ".join(self.sounds) * times


class Stone:
    name = "stone"


class Nameless:
    def speak(self, times):
        return ""


def trained_dog(name: str, tricks: int = 0) -> Dog:
    return Dog(name, ("wuff",) * tricks)


def unsaid(kind: str):
    return Stone() if kind == "stone" else Dog(kind)


class Echo:
    def __init__(self, speaker: Speaker, times: int = 1):
        self.speaker, self.times, self.name = speaker, times, "echo"

    def speak(self, times):
        return self.speaker.speak(self.times * times)


@dataclass(frozen=True)
class Whole:
    speaker: Speaker
    count: int
    pack: Mapping[str, Speaker] | None = None
    later: Callable[[str], Speaker] | None = None
    rule: Callable[..., torch.optim.Optimizer] | None = None
    free: object = None


@pytest.fixture(autouse=True)
def trusted(monkeypatch):
    monkeypatch.setenv(TRUSTED_VARIABLE, HERE)


def node(target, /, **keys):
    return {"_target_": f"{HERE}.{target}", **keys}


DOG = node("Dog", name="Rex")


def test_inner_nodes_are_made_first_and_values_get_their_types():
    whole = make(bind_call(Whole, {"speaker": node("Echo", speaker=DOG, times=2), "count": "3"}, ""))
    assert whole.count == 3
    assert whole.speaker.speak(1) == "wuffwuff"
    made = make(bind_call(Whole, {"speaker": node("Dog", name="Rex", sounds=["a", "b"]), "count": 1}, ""))
    assert made.speaker.sounds == ("a", "b")


def test_a_mapping_of_nodes_is_a_mapping_of_objects():
    whole = make(bind_call(Whole, {"speaker": DOG, "count": 1, "pack": {"one": DOG, "two": DOG}}, ""))
    assert {name: dog.name for name, dog in whole.pack.items()} == {"one": "Rex", "two": "Rex"}


def test_a_partial_node_waits_for_what_only_the_code_has():
    keys = {"speaker": DOG, "count": 1, "later": node("trained_dog", _partial_=True, tricks=2)}
    whole = make(bind_call(Whole, keys, ""))
    assert isinstance(whole.later, partial)
    assert whole.later("Bello").sounds == ("wuff", "wuff")


def test_a_library_class_may_be_named_with_its_own_keys():
    rule = {"_target_": "torch.optim.NAdam", "_partial_": True, "betas": [0.8, 0.9]}
    whole = make(bind_call(Whole, {"speaker": DOG, "count": 1, "rule": rule}, ""))
    optimizer = whole.rule([torch.nn.Parameter(torch.zeros(2))], lr=0.5)
    assert type(optimizer) is torch.optim.NAdam
    assert optimizer.defaults["betas"] == (0.8, 0.9)


GOOD = {"speaker": DOG, "count": 1}
BAD = [
    ({"cuont": 1}, r"^cuont: unknown key \(did you mean 'count'\?\)"),
    ({"count": "many"}, r"^count: input should be a valid integer"),
    ({"speaker": {**DOG, "nmae": 1}}, r"^speaker\.nmae: unknown key \(did you mean 'name'\?\)"),
    ({"speaker": {**DOG, "name": 1}}, r"^speaker\.name: input should be a valid string"),
    ({"speaker": node("Dog")}, r"^speaker\.name: is missing \(set speaker\.name=<value>\)"),
    ({"speaker": node("Echo", speaker=node("Dog"))}, r"^speaker\.speaker\.name: is missing"),
    ({"speaker": node("Cat")}, r"^speaker\._target_: cannot import"),
    ({"speaker": node("Stone")}, rf"^speaker: {HERE}\.Stone lacks speak \(a Speaker has these\)"),
    ({"speaker": node("Nameless")}, r"^speaker: Nameless lacks name"),
    ({"speaker": node("unsaid", kind="stone")}, r"^speaker: Stone lacks speak"),
    ({"speaker": {**DOG, "_partial_": True}}, r"^speaker\._partial_: must not be set here"),
    ({"speaker": {"name": "Rex"}}, r"^speaker\._target_: is missing"),
    ({"speaker": None}, r"^speaker: is not set \(choose one: speaker=<name>\)"),
    ({"speaker": 3}, r"^speaker: has keys of its own, got 3"),
    ({"pack": {"one": {**DOG, "x": 1}}}, r"^pack\.one\.x: unknown key"),
    ({"later": node("trained_dog", tricks=2)}, r"^later\._partial_: must be true"),
    ({"later": node("trained_dog", _partial_=True, name="Rex")}, r"^later\.name: unknown key"),
    ({"rule": {"_target_": "torch.optim.Adam", "_partial_": True, "lrr": 1}}, r"^rule\.lrr: unknown key"),
    ({"rule": {"_target_": "torch.nn.Linear", "_partial_": True}}, r"^rule\._target_: .* makes no Optimizer"),
    ({"rule": {"_target_": "torch.load", "_partial_": True}}, r"'torch.load' does not say that it makes"),
    (
        {"speaker": {"_target_": "os.system", "command": "true"}},
        r"^speaker\._target_: 'os\.system' is in no tr",
    ),
    ({"free": [{"_target_": "torch.nn.ReLU"}]}, r"^free\[0\]\._target_: nothing is made here"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_a_mistake_is_one_line(changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make(bind_call(Whole, {**GOOD, **changes}, ""))
    assert "\n" not in str(caught.value)


def test_mistakes_are_found_before_anything_is_made(monkeypatch):
    made = []
    monkeypatch.setattr(Dog, "__post_init__", lambda self: made.append(self), raising=False)
    with pytest.raises(ConfigError):
        make(bind_call(Whole, {**GOOD, "count": "many"}, ""))
    assert not made


def test_what_a_trusted_module_only_imports_is_not_trusted():
    with pytest.raises(ConfigError, match="in no trusted package"):
        import_target("metashot.stages.replay.compose", "x")
    with pytest.raises(ConfigError, match="cannot import"):
        import_target("metashot.base.files.os.system", "x")


def test_none_fits_only_where_it_is_allowed():
    assert bind(int | None, None, "x") is None
    with pytest.raises(ConfigError, match="x: input should be a valid integer"):
        bind(int, None, "x")


def test_a_text_where_a_number_or_some_words_may_stand_is_told_the_words():
    with pytest.raises(
        ConfigError, match=r"node\.order: input should be 'first' or 'last', or a whole number, got 'lost'"
    ):
        convert(int | Literal["first", "last"], "lost", "node.order")
    assert convert(int | Literal["first", "last"], "3", "node.order") == 3
    assert convert(int | Literal["first", "last"], "last", "node.order") == "last"
