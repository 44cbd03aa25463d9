"""What meta-training says of itself: loss by task, cut demonstrations, answers on held-out tasks."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from metashot.data.task import Example, TaskData, TaskType
from metashot.engine.training.lr_range import LrRangeConfig
from metashot.icl import held_out, meta_learner
from metashot.icl.learning.batches.collate import Batching, collate
from metashot.icl.learning.batches.episode_stream import episode_stream
from metashot.icl.learning.batches.objective import LossWeights, TargetLoss
from metashot.icl.learning.held_out import HeldOutConfig, collapsed_tasks, held_out_metrics
from metashot.icl.learning.meta_training import find_learning_rate, train
from metashot.icl.prompting.prompt import LengthLimits

_spec = importlib.util.spec_from_file_location("kit", Path(__file__).with_name("training_helpers.py"))
assert _spec is not None
assert _spec.loader is not None
kit: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(kit)

TRAIN, TARGETS = kit.SOURCE.training_tasks(), kit.SOURCE.testing_tasks()


def sequences(**changes: Any) -> Any:
    model = kit.tiny()
    settings = kit.settings(**changes)
    pools = {task: kit.SOURCE.pool(task, size=8) for task in TRAIN}
    stream = episode_stream(settings, model.tokenizer, model.context_length, pools)
    return model, stream.step(0)


@pytest.mark.parametrize("batching", [Batching.BUCKETED, Batching.PACKED])
@pytest.mark.parametrize("weights", [LossWeights(), LossWeights(0.5, 2.0)])
def test_the_loss_by_task_is_that_of_its_sequences_alone_and_sums_to_the_loss(
    weights: LossWeights, batching: Batching
) -> None:
    model, step = sequences(episodes={"batch_size": 12, "option_weight": 1.0})
    module = TargetLoss(model.model, weights)
    batch = collate(step, batching, len(step))
    total = module(batch)
    together = dict(zip(batch.tasks, module.by_task.tolist(), strict=True))
    assert sum(together.values()) == pytest.approx(float(total.detach()), abs=1e-5)
    assert set(together) == {sequence.task for sequence in step}
    for task, loss in together.items():
        alone = collate([one for one in step if one.task == task], batching, len(step))
        assert loss == pytest.approx(float(module(alone).detach()), abs=1e-5)


class Rows:
    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []

    def log(self, metrics: Any, step: int) -> None:
        self.seen.append(dict(metrics))


def test_a_log_line_has_losses_by_task_gradient_norm_tokens_time_left_and_what_was_cut(
    tmp_path: Path,
) -> None:
    rows = Rows()
    settings = kit.settings(
        loop={"steps": 6, "log_every": 3, "evaluate_every": 6}, held_out=HeldOutConfig(k=2)
    )
    train(settings, kit.tiny(), kit.SOURCE, TRAIN, TARGETS, tmp_path, rows)
    first, last, evaluated = rows.seen
    by_task = {key: value for key, value in last.items() if key.startswith("train/loss/")}
    assert {key.removeprefix("train/loss/") for key in by_task} <= set(TRAIN)
    assert min(by_task.values()) <= last["train/loss"] <= max(by_task.values())
    assert last["train/grad_norm"] > 0
    assert last["train/tokens"] > first["train/tokens"] > first["train/sequences"] == 12
    assert first["train/hours_left"] > 0 == last["train/hours_left"]
    assert last["train/demonstrations_cut_percent"] == 0
    for task in TARGETS:
        shares = [
            value for key, value in evaluated.items() if key.startswith(f"held_out/predicted_percent/{task}/")
        ]
        assert sum(shares) == pytest.approx(100.0)
        assert evaluated[f"held_out/most_frequent_percent/{task}"] == pytest.approx(max(shares))


def test_either_limit_counts_as_a_cut_and_most_demonstrations_cut_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = sequences()[1]
    by_example = sequences(episodes={"limits": LengthLimits(8, 256)})[1]
    by_sequence = sequences(episodes={"limits": LengthLimits(64, 40)})[1]
    assert {(one.demonstrations, one.demonstrations_cut) for one in whole} == {(2, 0)}
    assert {one.demonstrations_cut for one in by_example} == {2}
    for before, after in zip(whole, by_sequence, strict=False):
        if len(before.ids) <= 40:
            assert after.demonstrations_cut == 0
    assert any(one.cut for one in by_sequence)
    assert all(bool(one.demonstrations_cut) == bool(one.cut) for one in by_sequence)
    rows = Rows()
    settings = kit.settings(episodes={"limits": LengthLimits(8, 256)})
    with caplog.at_level(logging.WARNING):
        train(settings, kit.tiny(), kit.SOURCE, TRAIN, TARGETS, tmp_path, rows)
    assert rows.seen[-1]["train/demonstrations_cut_percent"] > 90
    assert [r.message for r in caplog.records if "lose tokens to" in r.message] == [
        "of 8 demonstrations in a step, 8 lose tokens to prompt.max_length=256 or max_length_per_example=8"
    ]


def cell(task: str, gold: list[str], options: list[tuple[str, ...]], kind: TaskType) -> TaskData:
    shown = tuple(Example(task, "x", answer, one) for answer, one in zip(gold, options, strict=True))
    return TaskData(task, 100, kind, (), shown)


def test_held_out_answers_are_counted_by_task_and_label(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [("no", "yes")] * 4
    cells = [
        cell("a", ["no", "no", "yes", "yes"], both, TaskType.CLASSIFICATION),
        cell("a", ["no", "no", "yes", "yes"], both, TaskType.CLASSIFICATION),
        cell("own", ["p", "r"], [("p", "q"), ("r", "s")], TaskType.MULTI_CHOICE),
        cell("same", ["no"] * 4, both, TaskType.CLASSIFICATION),
    ]
    answers = iter([["no", "no", "no", "yes"], ["no"] * 4, ["p", "s"], ["no"] * 4])

    def answered(data: TaskData, *_: Any) -> tuple[list[str], list[str]]:
        return [example.output for example in data.test], next(answers)

    monkeypatch.setattr(held_out, "predict", answered)
    model = kit.tiny()
    found = held_out_metrics(model, cells, kit.settings(), lambda model: model)  # pyright: ignore
    assert found["accuracy"] == pytest.approx((0.75 + 0.5 + 0.5 + 1.0) / 4)
    assert found["accuracy/a"] == pytest.approx((0.75 + 0.5) / 2)
    assert found["predicted/a/no"] == pytest.approx((0.75 + 1.0) / 2)
    assert found["predicted/a/yes"] == pytest.approx(0.125)
    assert found["most_frequent"] == pytest.approx((0.75 + 1.0) / 2)
    assert not [key for key in found if key.startswith(("predicted/own", "predicted/same"))]
    assert collapsed_tasks(found) == []
    assert collapsed_tasks({**found, "predicted/a/no": 0.96}) == ["a: 'no' for 96 %"]


def test_a_collapse_is_warned_of_with_task_label_and_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    collapsed = {
        "accuracy": 0.5,
        "metric": 0.3,
        "predicted/sst2/positive": 1.0,
        "predicted/sst2/negative": 0.0,
    }
    monkeypatch.setattr(meta_learner, "held_out_metrics", lambda *_, **__: dict(collapsed))
    settings = kit.settings(loop={"steps": 2, "evaluate_every": 2}, held_out=HeldOutConfig(k=2))
    with caplog.at_level(logging.WARNING):
        train(settings, kit.tiny(), kit.SOURCE, TRAIN, TARGETS, tmp_path)
    said = [r.message for r in caplog.records if "held-out" in r.message]
    assert said == ["step 2: held-out tasks get one answer whatever the input: sst2: 'positive' for 100 %"]


def test_the_range_test_of_meta_training_takes_the_rates_of_its_range_and_learns() -> None:
    torch.manual_seed(0)
    found = find_learning_rate(
        kit.settings(), kit.tiny(), kit.SOURCE, TRAIN, LrRangeConfig(1e-4, 0.03, steps=25)
    )
    assert found.rates[0] == pytest.approx(1e-4)
    assert min(found.losses) < 0.9 * found.losses[0]
    assert 1e-4 <= 10 * found.suggestion <= 0.03 + 1e-9
