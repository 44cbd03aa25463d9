"""`stage=train` is one path: a family trains, the stage tells, logs and keeps what came of it."""

import io
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from metashot.base.errors import ConfigError
from metashot.engine.training.loop import TrainingOutcome
from metashot.stages.training import Trained, train_stage


@dataclass
class Untrained:
    """A method of one's own with cells alone."""

    name: str = "mine"

    def cells(self, run: Any) -> Any:
        raise AssertionError("training asks for no cells")


@dataclass
class OwnMethod(Untrained):
    def train(self, run: Any) -> Trained:
        outcome = TrainingOutcome(7, "finished", run.output / "last", {"accuracy": 0.25, "loss": 1.5}, 3.2)
        return Trained(outcome, 25.0, "weights", run.output / "best", ("trained [1] of 2 parts",))


def run_of(method: Any, output: Path) -> Any:
    told: list[Any] = []
    return SimpleNamespace(
        config=SimpleNamespace(method=method),
        output=output,
        console=Console(file=io.StringIO(), width=200),
        tracker=SimpleNamespace(artifact=lambda *words: told.append(words), summary=told.append),
        record=SimpleNamespace(write=lambda status, **facts: told.append((status, facts))),
        told=told,
    )


def test_a_family_of_ones_own_trains_by_the_same_stage(tmp_path: Path) -> None:
    run = run_of(OwnMethod(), tmp_path)
    assert train_stage(run) == 25.0
    said = run.console.file.getvalue()
    assert said.startswith(f"7 steps, finished, 3 s; checkpoint: {tmp_path}/last\ntrained [1] of 2 parts\n")
    assert "accuracy_percent" in said
    assert run.told == [
        ("running", {"training": {"step": 7, "stopped_by": "finished"}}),
        ("weights", "weights", tmp_path / "best"),
        {"held_out/accuracy_percent": 25.0, "held_out/loss": 1.5},
    ]


def test_a_method_that_trains_nothing_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"stage: method 'mine' has nothing to train .*give it train\(run\)"
    ):
        train_stage(run_of(Untrained(), tmp_path))
