"""Stopping anywhere and resuming changes no bit of where a run ends."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

from metashot.base.errors import CheckpointError, ConfigError, OutputError
from metashot.engine.training.checkpoint import CheckpointStore, best_checkpoint, checkpoint_folders, verify
from metashot.engine.training.learner import DivergedError
from metashot.engine.training.loop import LoopConfig, run_training
from metashot.engine.training.randomness import capture_rng
from metashot.engine.training.signals import Interrupted

_spec = importlib.util.spec_from_file_location("toy_learner", Path(__file__).with_name("toy_learner.py"))
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
ToyLearner = _module.ToyLearner

STEPS = 40


class Recorder:
    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log(self, metrics: Any, step: int) -> None:
        self.rows.append((step, dict(metrics)))


class StopsAt(ToyLearner):
    """Gets a SIGTERM in the middle of one step."""

    def __init__(self, stop_step: int, **kwargs: Any) -> None:
        super().__init__(STEPS, **kwargs)
        self.stop_step = stop_step

    def train_step(self, step: int) -> Any:
        report = super().train_step(step)
        if step + 1 == self.stop_step:
            os.kill(os.getpid(), signal.SIGTERM)
        return report


def settings(**changes: Any) -> LoopConfig:
    defaults: dict[str, Any] = {"steps": STEPS, "save_every": 0, "evaluate_every": 7, "progress": False}
    return LoopConfig(**{**defaults, **changes})


def stop_at(step: int, store: CheckpointStore, rules: LoopConfig | None = None, **kwargs: Any) -> None:
    with pytest.raises(Interrupted, match=f"SIGTERM after step {step} of {STEPS}, which is saved") as stopped:
        run_training(StopsAt(step, **kwargs), rules or settings(), store)
    assert stopped.value.exit_status == 143


def final_files(folder: Path) -> dict[str, Any]:
    return verify(folder)["files"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    ends = {}
    for optimizer in ("adamw", "adafactor", "adam8bit"):
        store = CheckpointStore(tmp_path_factory.mktemp(optimizer), {"lr": 0.01})
        outcome = run_training(ToyLearner(STEPS, optimizer), settings(), store)
        assert outcome.checkpoint is not None
        ends[optimizer] = final_files(outcome.checkpoint)
    return ends


@pytest.mark.parametrize("stop_step", range(1, STEPS))
def test_a_stop_at_any_step_and_a_resume_end_bit_identical(
    tmp_path: Path, uninterrupted: dict[str, dict[str, Any]], stop_step: int
) -> None:
    store = CheckpointStore(tmp_path, {"lr": 0.01})
    stop_at(stop_step, store)
    assert checkpoint_folders(tmp_path)[-1].name == f"step-{stop_step:08d}"
    resumed = run_training(ToyLearner(STEPS), settings(), store)
    assert (resumed.stopped_by, resumed.step) == ("finished", STEPS)
    assert resumed.checkpoint is not None
    assert final_files(resumed.checkpoint) == uninterrupted["adamw"]


@pytest.mark.parametrize("optimizer", ["adafactor", "adam8bit"])
def test_every_optimizer_resumes_bit_identical(
    tmp_path: Path, uninterrupted: dict[str, dict[str, Any]], optimizer: str
) -> None:
    store = CheckpointStore(tmp_path, {"lr": 0.01})
    stop_at(13, store, optimizer=optimizer)
    resumed = run_training(ToyLearner(STEPS, optimizer), settings(), store)
    assert resumed.checkpoint is not None
    assert final_files(resumed.checkpoint) == uninterrupted[optimizer]


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    first = run_training(ToyLearner(STEPS), settings(), store)
    learner = ToyLearner(STEPS)
    learner.train_step = None  # pyright: ignore
    again = run_training(learner, settings(), store)
    assert again.step == STEPS
    assert again.checkpoint == first.checkpoint


def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before_with_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, uninterrupted: dict[str, dict[str, Any]]
) -> None:
    store = CheckpointStore(tmp_path, {"lr": 0.01}, keep_last=3)
    stop_at(12, store, settings(save_every=5))
    newest = checkpoint_folders(tmp_path)[-1]
    content = bytearray((newest / "state.safetensors").read_bytes())
    content[-7] ^= 1
    (newest / "state.safetensors").write_bytes(content)
    with caplog.at_level(logging.WARNING):
        resumed = run_training(ToyLearner(STEPS), settings(save_every=5), store)
    (warning,) = caplog.messages
    assert "step-00000012: state.safetensors is damaged (its hash differs); using the one before" in warning
    assert resumed.checkpoint is not None
    assert final_files(resumed.checkpoint) == uninterrupted["adamw"]


def test_checkpoints_that_are_all_damaged_are_an_error(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    run_training(ToyLearner(STEPS), settings(), store)
    for folder in checkpoint_folders(tmp_path):
        (folder / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="checkpoints are damaged"):
        run_training(ToyLearner(STEPS), settings(), store)


def test_nan_loss_stops_with_step_and_batch_saved(tmp_path: Path) -> None:
    with pytest.raises(DivergedError):
        run_training(ToyLearner(STEPS, nan_at=6), settings(), CheckpointStore(tmp_path))
    saved = json.loads((tmp_path / "diverged.json").read_text())
    assert saved == {"step": 6, "problem": "the loss is nan", "batch": {"micro": 0, "tasks": ["toy"]}}


@pytest.fixture
def disk_full_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`disk_full_at(20, 30)`: the saves of these steps find a full disk."""

    original = safetensors.torch.save_file

    def fill(*steps: int) -> None:
        def save_file(tensors: Any, path: Path, metadata: Any = None) -> None:
            if any(f"step-{step:08d}" in str(path) for step in steps):
                raise OSError(28, "No space left on device")
            original(tensors, path, metadata)

        monkeypatch.setattr(safetensors.torch, "save_file", save_file)

    return fill


def test_a_full_disk_during_a_save_leaves_the_previous_and_training_goes_on(
    tmp_path: Path, disk_full_at: Any, caplog: pytest.LogCaptureFixture
) -> None:
    disk_full_at(20, 30)
    outcome = run_training(ToyLearner(STEPS), settings(save_every=10), CheckpointStore(tmp_path))
    assert outcome.step == STEPS
    assert [folder.name for folder in checkpoint_folders(tmp_path)] == ["step-00000010", "step-00000040"]
    assert [message.split(":")[0] for message in caplog.messages] == [
        f"no checkpoint at step {step}" for step in (20, 30)
    ]
    verify(tmp_path / "step-00000010")
    assert not list(tmp_path.glob(".step-*"))


def test_a_full_disk_at_the_last_save_fails_the_run_and_names_the_file(
    tmp_path: Path, disk_full_at: Any
) -> None:
    disk_full_at(40)
    with pytest.raises(OutputError, match=r"step-00000040.*: cannot write: No space left on device"):
        run_training(ToyLearner(STEPS), settings(save_every=10), CheckpointStore(tmp_path))
    assert checkpoint_folders(tmp_path)[-1].name == "step-00000030"


@pytest.mark.parametrize("made_again", [False, True])
def test_a_folder_that_vanishes_ends_the_training_at_the_next_save(tmp_path: Path, made_again: bool) -> None:
    """Checkpoints to come would stand without the best one so far."""
    root = tmp_path / "checkpoints"

    class Removing(ToyLearner):
        def train_step(self, step: int) -> Any:
            if step == 15:
                shutil.rmtree(root)
                if made_again:
                    root.mkdir()
            return super().train_step(step)

    learner = Removing(STEPS)
    with pytest.raises(OutputError, match="the folder was removed while the run wrote to it"):
        run_training(learner, settings(save_every=10), CheckpointStore(root))
    assert not checkpoint_folders(root)
    assert run_training(ToyLearner(STEPS), settings(save_every=10), CheckpointStore(root)).step == STEPS


def test_a_signal_that_comes_during_the_last_save_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = CheckpointStore.save

    def save(self: CheckpointStore, step: int, *args: Any, **kwargs: Any) -> Path:
        os.kill(os.getpid(), signal.SIGINT)
        return original(self, step, *args, **kwargs)

    monkeypatch.setattr(CheckpointStore, "save", save)
    with pytest.raises(Interrupted, match="SIGINT after step 40") as stopped:
        run_training(ToyLearner(STEPS), settings(), CheckpointStore(tmp_path))
    assert stopped.value.exit_status == 130
    verify(tmp_path / "step-00000040")


def test_early_stop_ends_after_evaluations_without_a_better_value_and_keeps_the_best(tmp_path: Path) -> None:
    # accuracy = -|step - 10| / 10 is best at step 10, then falls: steps 15 and 20 are no better.
    rules = settings(evaluate_every=5, save_every=5, early_stop_evaluations=2)
    outcome = run_training(ToyLearner(STEPS), rules, CheckpointStore(tmp_path, keep_last=1, keep_best=1))
    assert (outcome.stopped_by, outcome.step) == ("early_stop", 20)
    assert [folder.name for folder in checkpoint_folders(tmp_path)] == ["step-00000010", "step-00000020"]
    assert best_checkpoint(tmp_path) == tmp_path / "step-00000010"
    again = run_training(ToyLearner(STEPS), rules, CheckpointStore(tmp_path, keep_last=1))
    assert (again.stopped_by, again.step) == ("early_stop", 20)


def test_metrics_carry_throughput_and_are_logged_at_their_steps(tmp_path: Path) -> None:
    recorder = Recorder()
    run_training(ToyLearner(STEPS), settings(log_every=20), CheckpointStore(tmp_path), recorder)
    train = [(step, row) for step, row in recorder.rows if "train/loss" in row]
    assert [step for step, _ in train] == [20, 40]
    assert {"train/sequences_per_second", "train/target_tokens_per_second", "train/network"} <= train[0][
        1
    ].keys()
    assert [step for step, row in recorder.rows if "held_out/accuracy_percent" in row] == [7, 14, 21, 28, 35]


def test_a_changed_config_is_refused_by_the_names_of_its_keys(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, {"optimizer.learning_rate": 0.01, "model": "a"})
    stop_at(5, store)
    other = CheckpointStore(tmp_path, {"optimizer.learning_rate": 0.02, "model": "a"})
    with pytest.raises(CheckpointError, match=r"optimizer\.learning_rate is 0\.01 there, 0\.02 here"):
        run_training(ToyLearner(STEPS), settings(), other)


def test_a_checkpoint_of_an_earlier_version_is_refused_in_one_line_with_the_way_out(tmp_path: Path) -> None:
    """Until checkpoints could change the number of processes, that number was part of a run's identity."""
    earlier = CheckpointStore(tmp_path, {"seed": 1, "trainer.world_size": 1})
    run_training(ToyLearner(STEPS), settings(), earlier)
    with pytest.raises(CheckpointError) as refused:
        run_training(ToyLearner(STEPS), settings(), CheckpointStore(tmp_path, {"seed": 1}))
    assert str(refused.value) == (
        f"{tmp_path / 'step-00000040'}: cannot be continued by this run: trainer.world_size is 1 there, "
        "not recorded here (another version began it: start in another output folder; it evaluates as before)"
    )
    assert best_checkpoint(tmp_path) is not None


def test_a_checkpoint_of_two_processes_is_continued_by_one_with_dropout_of_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ends = []
    for name in ("a", "b"):
        store = CheckpointStore(tmp_path / name)
        learner = ToyLearner(STEPS)
        cursor = {"step": 5, "sequences": 40, "target_tokens": 40}
        state = {"cursor": cursor, "rng": [capture_rng(), capture_rng()], "learner": learner.state()}
        store.save(5, learner.weights(), state)
        with caplog.at_level(logging.INFO):
            ends.append(final_files(run_training(ToyLearner(STEPS), settings(), store).checkpoint))
    assert ends[0] == ends[1]
    assert "written by 2 processes, continued by 1: the sequences stay the same" in caplog.text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"resume": "always"}, "trainer.resume: input should be 'auto' or 'never', got 'always'"),
        ({"early_stop_evaluations": 2, "evaluate_every": 0}, "nothing is evaluated"),
        ({"best_metric": "f1"}, "'f1' is not among the evaluation's metrics"),
    ],
)
def test_settings_outside_their_rule_are_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
        run_training(ToyLearner(STEPS), settings(**changes), CheckpointStore(tmp_path))


def test_resume_never_refuses_a_folder_with_checkpoints(tmp_path: Path) -> None:
    stop_at(5, CheckpointStore(tmp_path))
    with pytest.raises(ConfigError, match="holds checkpoints"):
        run_training(ToyLearner(STEPS), settings(resume="never"), CheckpointStore(tmp_path))


def test_a_finished_run_started_again_removes_what_a_kill_left(tmp_path: Path) -> None:
    run_training(ToyLearner(STEPS), settings(), CheckpointStore(tmp_path))
    left = tmp_path / ".step-00000038.123.old.tmp"
    left.mkdir()
    outcome = run_training(ToyLearner(STEPS), settings(), CheckpointStore(tmp_path))
    assert not left.exists()
    assert outcome.step == STEPS


def test_a_second_process_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    with store.alone(), pytest.raises(OutputError, match="another process trains in this folder"):
        run_training(ToyLearner(STEPS), settings(), store)
    assert run_training(ToyLearner(STEPS), settings(), store).step == STEPS


def test_a_run_killed_between_its_last_save_and_the_pruning_is_pruned_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(tmp_path, keep_last=2, keep_best=0)
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "prune", lambda self, least=1: None)
        run_training(ToyLearner(STEPS), settings(save_every=5), store)
    assert len(checkpoint_folders(tmp_path)) > 2
    run_training(ToyLearner(STEPS), settings(save_every=5), store)
    assert len(checkpoint_folders(tmp_path)) == 2
