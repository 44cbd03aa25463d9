"""The training loop of every method: stepping, logging, evaluating, saving, stopping and resuming.

The loop owns all effects around a step and knows no method: a `Learner` steps and hands out its state.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from tqdm import tqdm

from metashot.base.components.values import hold_to_choices
from metashot.base.errors import CheckpointError, ConfigError, OutputError
from metashot.base.files import HeldFolder, check_held, write_json
from metashot.engine.metrics.scale import in_percent
from metashot.engine.training.checkpoint import (
    Checkpoint,
    CheckpointStore,
    checkpoint_folders,
    stored_tensors,
)
from metashot.engine.training.config import LoopConfig
from metashot.engine.training.learner import DivergedError, Learner, MetricSink, StepReport
from metashot.engine.training.randomness import capture_rng, draw_anew, restore_rng
from metashot.engine.training.ranks import (
    barrier,
    gather_objects,
    max_over_ranks,
    rank,
    world_size,
)
from metashot.engine.training.sharded import Gathering, is_finite, sharded_among
from metashot.engine.training.signals import Interrupted, StopRequest, catch_stop_signals
from metashot.engine.training.window import Totals, Window, step_totals

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)

DIVERGED_FILE = "diverged.json"
REWINDS = 5
"""So often a training goes back at most: more of the same would not end."""
_EXPLODED, _LARGE = 10.0, 30.0
"""A loss has exploded when it is so many times that of the first step, and above so many nats a token, which no guess costs."""
_GONE = 2
"""Severity of a save that failed because the folder is gone; 1 is any other failure."""


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """How a run ended.

    Attributes:
        step: optimizer steps done.
        stopped_by: `finished` or `early_stop`; a signal raises `Interrupted` instead.
        checkpoint: the newest checkpoint.
        metrics: of the last evaluation.
        seconds: of this process.
    """

    step: int
    stopped_by: str
    checkpoint: Path
    metrics: dict[str, float]
    seconds: float


@dataclass(slots=True)
class _Cursor:
    """Where the run stands; all of it is stored."""

    step: int = 0
    sequences: int = 0
    target_tokens: int = 0
    tokens: int = 0
    best: float | None = None
    evaluations_since_best: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    first_loss: float | None = None
    rewinds: int = 0


def run_training(
    learner: Learner,
    settings: LoopConfig,
    store: CheckpointStore,
    sink: MetricSink | None = None,
    node: str = "trainer",
) -> TrainingOutcome:
    """Train until the last step or an early stop; a checkpoint stands at the end, also after a signal.

    A resumed run on a CPU ends bit-identical to one that never stopped.

    Args:
        learner: the method.
        settings: how long, how often.
        store: where checkpoints go; its `identity` decides which may be continued. Another number of processes
            continues with the same sequences; only what is drawn inside the model (dropout) differs.
        sink: where metrics go (rank 0 only).
        node: where `settings` stand in the config, for errors.

    Raises:
        Interrupted: SIGTERM or Ctrl-C came; the step in hand was ended and saved, and the same call goes on there.
        OutputError: the last checkpoint could not be written, or the folder was removed meanwhile.
        DivergedError: the loss exploded, or loss or weights are no longer numbers; `diverged.json` beside the
            checkpoints names step and batch. With `on_divergence=rewind` only after `REWINDS` rewinds.
        CheckpointError: the checkpoints there belong to another run, or all are damaged.
        ConfigError: a setting outside its rule.
    """
    _check(settings, node)
    started = time.monotonic()
    with store.alone() if rank() == 0 else nullcontext() as held:
        cursor = _resume(learner, settings, store, node)
        run = _Run(learner, settings, store, held, sink, cursor, node)
        with catch_stop_signals() as stop:
            stopped_by = run.advance(stop)
        if held is not None:
            check_held(held)
            store.prune()  # a run killed behind its last save has saved nothing now
    cursor, newest = run.cursor, checkpoint_folders(store.root)[-1]
    return TrainingOutcome(cursor.step, stopped_by, newest, dict(cursor.metrics), time.monotonic() - started)


def _check(settings: LoopConfig, node: str) -> None:
    hold_to_choices(settings, node)
    if settings.early_stop_evaluations and not settings.evaluate_every:
        raise ConfigError(
            f"{node}.early_stop_evaluations",
            "is set but nothing is evaluated",
            f"set {node}.evaluate_every",
        )


def _resume(learner: Learner, settings: LoopConfig, store: CheckpointStore, node: str) -> _Cursor:
    if settings.resume == "never" and checkpoint_folders(store.root):
        raise ConfigError(
            f"{node}.resume",
            f"never, but {store.root} holds checkpoints",
            "use auto or another output folder",
        )
    if rank() == 0:
        store.remove_leftovers()  # a run killed after its last step saves no more
    barrier()
    checkpoint = store.latest()
    if checkpoint is None:
        return _Cursor()
    _restore(learner, checkpoint)
    if rank() == 0:
        _log.info("continuing from %s", checkpoint.folder)
    return _Cursor(**checkpoint.state["cursor"])


def _restore(learner: Learner, checkpoint: Checkpoint) -> None:
    try:
        learner.load_weights(checkpoint.weights)
        learner.load_state(checkpoint.state["learner"])
        _restore_randomness(checkpoint)
    except (KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            str(checkpoint.folder),
            f"does not fit this model or optimizer: {error}",
            "continue with the model and optimizer it was written by",
        ) from error


def _restore_randomness(checkpoint: Checkpoint) -> None:
    states = checkpoint.state["rng"]
    if len(states) == world_size():
        restore_rng(states[rank()])
        return
    draw_anew(checkpoint.step, rank())
    if rank() == 0:
        _log.info(
            "written by %d processes, continued by %d: the sequences stay the same, dropout is drawn anew",
            len(states),
            world_size(),
        )


@dataclass(slots=True)
class _Run:
    learner: Learner
    settings: LoopConfig
    store: CheckpointStore
    held: HeldFolder | None
    sink: MetricSink | None
    cursor: _Cursor
    node: str
    saved_step: int = -1
    window: Window = field(default_factory=Window)

    def advance(self, stop: StopRequest) -> str:
        """Step until there is a reason to end, and name it."""
        total = self.settings.steps
        self.saved_step = self.cursor.step
        bar = tqdm(
            total=total,
            initial=self.cursor.step,
            unit="step",
            disable=rank() != 0 or not self.settings.progress,
        )
        if self.settings.on_divergence == "rewind" and not checkpoint_folders(self.store.root):
            barrier()
            self.saved_step = -1
            self._save(bar, last=False)  # what a divergence of the first steps goes back to
        with bar:
            while self.cursor.step < total and not self._exhausted():
                self._step(bar)
                signal_number = max_over_ranks(stop.signal_number, self.learner.device)
                last = self.cursor.step == total or self._exhausted() or bool(signal_number)
                if last or (self.settings.save_every and self.cursor.step % self.settings.save_every == 0):
                    self._save(bar, last=last)
                if signal_number:
                    self._interrupt(signal_number)
        # One that came while the last checkpoint was written.
        if signal_number := max_over_ranks(stop.signal_number, self.learner.device):
            self._interrupt(signal_number)
        return "finished" if self.cursor.step >= total else "early_stop"

    def _interrupt(self, signal_number: int) -> NoReturn:
        raise Interrupted(
            signal_number, f"after step {self.cursor.step} of {self.settings.steps}, which is saved"
        )

    def _step(self, bar: tqdm) -> None:
        cursor = self.cursor
        try:
            detour = {"detour": cursor.rewinds} if cursor.rewinds else {}
            report = self.learner.train_step(cursor.step, **detour)
            totals = step_totals(report, self.learner.device)
            self._check_exploded(totals, report)
        except DivergedError as error:
            self._leave(error, bar)
            return
        cursor.step += 1
        cursor.sequences += int(totals.sequences)
        cursor.target_tokens += int(totals.target_tokens)
        cursor.tokens += int(totals.tokens)
        self.window.add(totals, report)
        bar.update(1)
        if cursor.step % max(1, self.settings.log_every) == 0 or cursor.step == self.settings.steps:
            self._log_window(bar, report)
        if self.settings.evaluate_every and cursor.step % self.settings.evaluate_every == 0:
            self._evaluate()

    def _log_window(self, bar: tqdm, report: StepReport) -> None:
        steps_left = self.settings.steps - self.cursor.step
        metrics = self.window.metrics(report, steps_left, self.learner.device)
        self.window = Window()
        shown = {"loss": f"{metrics['loss']:.3f}", "tokens": f"{self.cursor.tokens:,}"}
        if "grad_norm" in metrics:
            shown["grad_norm"] = f"{metrics['grad_norm']:.2g}"
        bar.set_postfix(shown, refresh=False)
        seen = {"sequences": self.cursor.sequences, "tokens": self.cursor.tokens}
        self._send("train", {**metrics, **seen})

    def _evaluate(self) -> None:
        metrics = self.learner.evaluate(self.cursor.step)
        self.cursor.metrics = {key: float(value) for key, value in metrics.items()}
        self._send("held_out", self.cursor.metrics)
        if self.settings.best_metric not in metrics:
            raise ConfigError(
                f"{self.node}.best_metric",
                f"{self.settings.best_metric!r} is not among the evaluation's metrics",
                f"one of {', '.join(sorted(key for key in metrics if '/' not in key))}",
            )
        value = self.cursor.metrics[self.settings.best_metric]
        if self._is_better(value):
            self.cursor.best, self.cursor.evaluations_since_best = value, 0
        else:
            self.cursor.evaluations_since_best += 1

    def _is_better(self, value: float) -> bool:
        best = self.cursor.best
        if best is None:
            return True
        return value > best if self.store.higher_is_better else value < best

    def _exhausted(self) -> bool:
        patience = self.settings.early_stop_evaluations
        return bool(patience) and self.cursor.evaluations_since_best >= patience

    def _send(self, phase: str, metrics: Mapping[str, float]) -> None:
        if self.sink is not None and rank() == 0:
            shown = in_percent(metrics)
            self.sink.log({f"{phase}/{key}": float(value) for key, value in shown.items()}, self.cursor.step)

    def _check_exploded(self, totals: Totals, report: StepReport) -> None:
        loss = totals.loss / max(totals.sequences, 1.0)
        if self.cursor.first_loss is None:
            self.cursor.first_loss = loss
        if loss > max(_LARGE, _EXPLODED * self.cursor.first_loss):
            means = {
                key.removeprefix("loss/"): one[0] / one[1]
                for key, one in report.means.items()
                if key.startswith("loss/") and one[1]
            }
            task = max(means, key=lambda name: means[name]) if means else None
            raise DivergedError(
                f"the loss is {loss:.3g} nats, {self.cursor.first_loss:.3g} at first",
                {"step": self.cursor.step},
                task,
            )

    def _leave(self, error: DivergedError, bar: tqdm) -> None:
        """Go back to a checkpoint and on with other data, or end with one line."""
        step, settings = self.cursor.step, self.settings
        self._record_divergence(error)
        rewinds = self.cursor.rewinds + 1
        kept = checkpoint_folders(self.store.root)
        if settings.on_divergence == "rewind" and rewinds <= REWINDS and kept:
            barrier()
            if rank() == 0:
                self.store.rewind(max(0, step - settings.rewind_steps))
            barrier()
            checkpoint = self.store.latest()
            assert checkpoint is not None
            _restore(self.learner, checkpoint)
            self.cursor = _Cursor(**checkpoint.state["cursor"])
            self.cursor.rewinds = rewinds
            self.saved_step, self.window = checkpoint.step, Window()
            bar.n = checkpoint.step
            if rank() == 0:
                _log.warning(
                    "after %d steps: %s; back to step %d and on with other data (rewind %d of at most %d)",
                    step, error.problem, checkpoint.step, rewinds, REWINDS,
                )  # fmt: skip
            return
        rewind = "" if settings.on_divergence == "rewind" else f" or set {self.node}.on_divergence=rewind"
        stands = f"; {kept[-1].name} is kept" if kept else "; no checkpoint stood before it"
        raise DivergedError(
            error.problem, error.batch, None, step, f"lower optimizer.learning_rate{rewind}{stands}"
        ) from error

    def _check_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        lost = [name for name, tensor in weights.items() if not is_finite(tensor)]
        if max_over_ranks(bool(lost), self.learner.device):
            problem = f"the weights are not finite ({lost[0] if lost else 'on another process'})"
            raise DivergedError(problem, {"step": self.cursor.step})

    def _save(self, bar: tqdm, *, last: bool) -> None:
        """Save on rank 0. A full disk is said in one line and training goes on, but without its end it has failed.

        Where the folder is gone, training ends: the checkpoints to come would stand without the best one so far.
        """
        if self.cursor.step == self.saved_step:
            return
        try:
            self._check_weights(self.learner.weights())
        except DivergedError as error:
            self._leave(error, bar)
            return
        state = {
            "cursor": {name: getattr(self.cursor, name) for name in _Cursor.__slots__},
            "rng": gather_objects(capture_rng()),
            "learner": self.learner.state(),
        }
        weights = self.learner.weights()
        metric = None
        if self.settings.evaluate_every and self.cursor.step % self.settings.evaluate_every == 0:
            metric = self.cursor.metrics.get(self.settings.best_metric)
        failure: OutputError | None = None
        gathering = Gathering(sharded_among(stored_tensors(weights, state)))
        if self.held is not None:
            try:
                check_held(self.held)
                self.store.save(
                    self.cursor.step,
                    weights,
                    state,
                    metric=metric,
                    export=self.learner.export,
                    gather=gathering,
                )
            except OutputError as error:
                failure = error
        gathering.finish()
        self.saved_step = self.cursor.step
        gone = failure is not None and self.held is not None and self.held.is_gone
        severity = max_over_ranks(_GONE if gone else int(failure is not None), self.learner.device)
        if not severity:
            return
        failure = failure or OutputError(str(self.store.root), "process 0 could not save", "see its error")
        if last or severity == _GONE:
            raise failure
        _log.warning("no checkpoint at step %d: %s; training goes on", self.cursor.step, failure)

    def _record_divergence(self, error: DivergedError) -> None:
        path = self.store.root / (DIVERGED_FILE if rank() == 0 else f"rank{rank()}-{DIVERGED_FILE}")
        write_json(path, {"step": self.cursor.step, "problem": error.problem, "batch": error.batch})
