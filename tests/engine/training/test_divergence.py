"""When numbers blow up: one line, sound checkpoints stay, and a training may go back and on with other data."""

from __future__ import annotations

import importlib.util
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from metashot.base.errors import MetashotError
from metashot.engine.training.checkpoint import CheckpointStore, checkpoint_folders, read_checkpoint
from metashot.engine.training.config import LoopConfig
from metashot.engine.training.learner import DivergedError, StepReport
from metashot.engine.training.loop import REWINDS, run_training

_spec = importlib.util.spec_from_file_location("toy_learner", Path(__file__).with_name("toy_learner.py"))
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
ToyLearner: Any = _module.ToyLearner

STEPS = 20
SETTINGS = LoopConfig(steps=STEPS, save_every=4, log_every=1, progress=False)
REWIND = replace(SETTINGS, on_divergence="rewind")


def steps_of(root: Path) -> list[int]:
    return [int(folder.name.removeprefix("step-")) for folder in checkpoint_folders(root)]


class Ruined(ToyLearner):
    """Its weights are NaN from a step on, though its loss looks well; a detour mends it."""

    def train_step(self, step: int, detour: int = 0) -> StepReport:
        report = super().train_step(step, detour)
        if step == 11 and not detour:
            with torch.no_grad():
                self.prompt[0, 0] = float("nan")
        return replace(report, loss=1.0)


class Louder(ToyLearner):
    """Its loss is a thousand times larger from a step on, of which one task is to blame; `always` even after rewinds."""

    def __init__(self, always: bool = False, first: float = 1.0) -> None:
        super().__init__(STEPS)
        self.always, self.first = always, first

    def train_step(self, step: int, detour: int = 0) -> StepReport:
        report = super().train_step(step, detour)
        loss = self.first * (1000.0 if step >= 9 and (self.always or not detour) else 1.0)
        means = {"loss/calm": (1.0, 4.0), "loss/loud": (4 * loss, 4.0)}
        return replace(report, loss=loss, means=means)


def test_a_loss_that_is_no_number_ends_in_one_line_with_its_step_and_the_checkpoint_that_stays(
    tmp_path: Path,
) -> None:
    with pytest.raises(MetashotError) as error:
        run_training(ToyLearner(STEPS, nan_at=9), SETTINGS, CheckpointStore(tmp_path))
    assert str(error.value) == (
        "training, after 9 steps: the loss is nan (lower optimizer.learning_rate or set trainer.on_divergence=rewind; "
        "step-00000008 is kept)"
    )
    assert steps_of(tmp_path) == [4, 8]
    assert json.loads((tmp_path / "diverged.json").read_text())["step"] == 9


def test_an_exploding_loss_is_told_from_a_high_one_and_names_the_task(tmp_path: Path) -> None:
    with pytest.raises(
        DivergedError, match=r"after 9 steps: the loss is 1e\+03 nats, 1 at first, of task 'loud'"
    ):
        run_training(Louder(), SETTINGS, CheckpointStore(tmp_path / "loud"))
    # A thousand times of next to nothing is a loss like any other.
    assert run_training(Louder(first=0.01), SETTINGS, CheckpointStore(tmp_path / "low")).step == STEPS


@pytest.mark.parametrize("keep_last", [1, 2])
def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path, keep_last: int) -> None:
    store = CheckpointStore(tmp_path, keep_last=keep_last)
    with pytest.raises(DivergedError, match=r"after 12 steps: the weights are not finite \(prompt\)"):
        run_training(Ruined(STEPS), SETTINGS, store)
    assert steps_of(tmp_path) == [4, 8]
    for folder in checkpoint_folders(tmp_path):
        assert all(tensor.isfinite().all() for tensor in read_checkpoint(folder).weights.values())


def test_as_many_checkpoints_as_asked_for_stand_at_the_end(tmp_path: Path) -> None:
    run_training(ToyLearner(STEPS), SETTINGS, CheckpointStore(tmp_path, keep_last=1))
    assert steps_of(tmp_path) == [STEPS]


@pytest.mark.parametrize(
    ("make", "back_to"),
    [(lambda: ToyLearner(STEPS, nan_at=9), 8), (Louder, 8), (lambda: Ruined(STEPS), 8)],
    ids=["no number", "exploded", "weights"],
)
def test_a_rewind_goes_on_with_other_data_and_ends(
    tmp_path: Path, make: Any, back_to: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        outcome = run_training(make(), REWIND, CheckpointStore(tmp_path))
    assert (outcome.step, outcome.stopped_by) == (STEPS, "finished")
    (line,) = caplog.messages
    assert f"back to step {back_to} and on with other data (rewind 1 of at most {REWINDS})" in line
    straight = run_training(ToyLearner(STEPS), SETTINGS, CheckpointStore(tmp_path / "straight"))
    ours, theirs = (read_checkpoint(one.checkpoint).weights for one in (outcome, straight))
    assert not torch.equal(ours["prompt"], theirs["prompt"])


def test_a_rewind_goes_back_as_far_as_asked_and_removes_what_came_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        run_training(
            ToyLearner(STEPS, nan_at=9),
            replace(REWIND, rewind_steps=2),
            CheckpointStore(tmp_path, keep_last=9),
        )
    assert "back to step 4 " in caplog.messages[0]


def test_a_divergence_before_the_first_save_goes_back_to_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        outcome = run_training(ToyLearner(STEPS, nan_at=2), REWIND, CheckpointStore(tmp_path))
    assert "back to step 0 " in caplog.messages[0]
    assert outcome.step == STEPS


def test_rewinds_have_an_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(DivergedError, match="step-00000008 is kept"):
        run_training(Louder(always=True), REWIND, CheckpointStore(tmp_path))
    assert len(caplog.messages) == REWINDS


def test_a_run_that_rewound_and_was_cut_resumes_bit_for_bit(tmp_path: Path) -> None:
    def weights(root: Path) -> dict[str, torch.Tensor]:
        return read_checkpoint(checkpoint_folders(root)[-1]).weights

    run_training(ToyLearner(STEPS, nan_at=9), REWIND, CheckpointStore(tmp_path / "whole", keep_last=9))

    class Cut(ToyLearner):
        def train_step(self, step: int, detour: int = 0) -> StepReport:
            if step == 14:
                raise KeyboardInterrupt
            return super().train_step(step, detour)

    with pytest.raises(KeyboardInterrupt):
        run_training(Cut(STEPS, nan_at=9), REWIND, CheckpointStore(tmp_path / "cut", keep_last=9))
    run_training(ToyLearner(STEPS, nan_at=9), REWIND, CheckpointStore(tmp_path / "cut", keep_last=9))
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
