"""What `trainer.micro_batch_size: auto` picks, worked out by hand, and that it decides no weight."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config

from metashot.engine.training.checkpoint import read_checkpoint, verify
from metashot.engine.training.config import TrainableConfig
from metashot.engine.training.signals import Interrupted
from metashot.icl import meta_learner
from metashot.icl.learning.batches.collate import Batching
from metashot.icl.learning.batches.slices import pick_slices
from metashot.icl.learning.meta_learner import MetaLearner
from metashot.icl.learning.meta_training import train
from metashot.icl.learning.writing.sequences import Question, TrainingSequence
from metashot.icl.prompting.prompt import LengthLimits

_spec = importlib.util.spec_from_file_location("kit", Path(__file__).parents[1] / "training_helpers.py")
assert _spec is not None
assert _spec.loader is not None
kit: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(kit)

# As in tests/engine/training/test_activation_memory.py: a token of a layer keeps 152 bytes, gradients of two more
# layers are alive, a target takes 120 bytes, and 80 bytes are needed whatever the batch. Limits allow 256 tokens.
CONFIG = GPT2Config(n_embd=2, n_head=1, n_layer=1, n_inner=8, vocab_size=10, attn_pdrop=0.0)
EACH = 3 * 152 * 256 + 120


def sample(tokens: int = 200) -> list[TrainingSequence]:
    return [TrainingSequence(np.zeros(tokens, dtype=np.int32), (Question(tokens - 1, tokens, 0),), 0, 0)]


def picked(
    fitting: float, *, tokens: int = 200, on_gpu: bool = True, processes: int = 1, **episodes: Any
) -> int:
    """What is picked where memory has room for `fitting` sequences; a fifth of it stays free."""
    settings = kit.settings(episodes={"batch_size": 8, "micro_batch_size": "auto", **episodes})
    free = (fitting * EACH + 80) / 0.8
    return pick_slices(
        settings, CONFIG, sample(tokens), context_length=1024, free=free, on_gpu=on_gpu, processes=processes
    ).size


def test_as_many_as_fit_in_slices_of_equal_size() -> None:
    # 8 sequences in slices of at most 8.5, 7, 5, 3.9, 2.2 and 1.
    assert [picked(fitting) for fitting in (8.5, 7, 5, 3.9, 2.2, 1.01)] == [8, 4, 4, 3, 2, 1]
    assert picked(8.5, processes=2) == 4
    assert picked(3.9, processes=2) == 2


def test_a_cpu_takes_some_two_thousand_tokens_of_the_usual_length() -> None:
    # 2048 / 200 is 10, 2048 / 500 is 4, and padded sequences all have 256 tokens.
    assert picked(100, on_gpu=False) == 8
    assert picked(100, tokens=250, batch_size=16, on_gpu=False) == 8
    assert picked(100, tokens=100, batch_size=16, on_gpu=False, batching=Batching.PADDED) == 8
    assert picked(100, tokens=100, batch_size=16, on_gpu=False) == 16


def test_one_sequence_that_does_not_fit_is_tried_and_the_way_out_is_said() -> None:
    settings = kit.settings(episodes={"batch_size": 8, "micro_batch_size": "auto"})
    few = pick_slices(settings, CONFIG, sample(), context_length=1024, free=-1e9, on_gpu=True)
    assert few.size == 1
    assert few.line() == (
        "trainer.micro_batch_size=auto: 1 sequences a forward pass, 8 of them a step; one of 256 tokens needs 0.0 GB of "
        "the 0.0 GB that are there: too little; trainer.gradient_checkpointing=true or trainer.attention_dropout=0 need less"
    )


@pytest.mark.parametrize(
    ("dropout", "checkpointing", "gigabytes", "expected"),
    [(None, False, 13.3, 1), (0.0, False, 3.8, 4), (None, True, 1.2, 8)],
)
def test_gpt2_large_on_a_machine_of_32_gb(
    dropout: float | None, checkpointing: bool, gigabytes: float, expected: int
) -> None:
    """774 million weights with gradients and AdamW's state are 12.4 GB; 8 sequences in one slice took 112 or 42 GB."""
    config = GPT2Config(n_embd=1280, n_layer=36, n_head=20)
    training = TrainableConfig(attention_dropout=dropout, gradient_checkpointing=checkpointing)
    episodes = {"batch_size": 8, "micro_batch_size": "auto", "limits": LengthLimits(256, 1024)}
    settings = kit.settings(trainable=training, episodes=episodes)
    slicing = pick_slices(settings, config, sample(), context_length=1024, free=32e9 - 12.4e9, on_gpu=False)
    assert (slicing.size, round(slicing.bytes_each / 1e9, 1)) == (expected, gigabytes)


def run(
    output: Path, size: int | str, monkeypatch: pytest.MonkeyPatch, *, architecture: str, fitting: int = 4
) -> Any:
    """Train with `size`, on a machine whose memory has room for `fitting` sequences."""
    original = meta_learner.pick_slices

    def pick(settings: Any, config: Any, *arguments: Any, **named: Any) -> Any:
        enough = original(settings, config, *arguments, **{**named, "free": 1e12})
        room = (fitting + 0.5) * enough.bytes_each + 4 * config.vocab_size * config.hidden_size
        return original(settings, config, *arguments, **{**named, "free": room / 0.8})

    with monkeypatch.context() as patch:
        patch.setattr(meta_learner, "pick_slices", pick)
        settings = kit.settings(episodes={"micro_batch_size": size})
        tasks, targets = kit.SOURCE.training_tasks(), kit.SOURCE.testing_tasks()
        return train(settings, kit.tiny(architecture), kit.SOURCE, tasks, targets, output)


def test_what_is_picked_decides_no_weight_and_no_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without dropout: the gradient is a sum over sequences, and only its rounding depends on the slices."""
    with caplog.at_level(logging.INFO):
        ends = [
            run(tmp_path / str(n), "auto", monkeypatch, architecture="llama", fitting=n) for n in (1, 2, 4)
        ]
    said = [record.getMessage() for record in caplog.records if "micro_batch_size" in record.getMessage()]
    assert [line.split(";")[0] for line in said] == [
        f"trainer.micro_batch_size=auto: {size} sequences a forward pass, {4 // size} of them a step"
        for size in (1, 2, 4)
    ]
    first, *others = [read_checkpoint(end.checkpoint) for end in ends]
    for other in others:
        for name, tensor in first.weights.items():
            torch.testing.assert_close(other.weights[name], tensor, atol=1e-5, rtol=1e-4)
    assert len({str(verify(end.checkpoint)["identity"]) for end in ends}) == 1


@pytest.mark.parametrize(("later", "kept"), [(2, True), (4, True), (1, False)])
def test_a_resumed_training_keeps_its_slices_where_they_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, later: int, kept: bool
) -> None:
    """GPT-2 has dropout, so equal slices are what makes the end bit-identical, also on a larger machine."""
    whole = verify(run(tmp_path / "whole", "auto", monkeypatch, architecture="gpt2", fitting=2).checkpoint)[
        "files"
    ]
    original = MetaLearner.train_step

    def stopped(self: MetaLearner, number: int) -> Any:
        report = original(self, number)
        if number == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return report

    with monkeypatch.context() as patch:
        patch.setattr(MetaLearner, "train_step", stopped)
        with pytest.raises(Interrupted):
            run(tmp_path / "cut", "auto", monkeypatch, architecture="gpt2", fitting=2)
    with caplog.at_level(logging.INFO):
        end = run(tmp_path / "cut", "auto", monkeypatch, architecture="gpt2", fitting=later)
    names = ("model.safetensors",)
    files = verify(end.checkpoint)["files"]
    assert all(files[name] == whole[name] for name in names) == kept
    assert ("micro_batch_size stays 2, as it was before" in caplog.text) == (later == 4)
    assert ("micro_batch_size was 2 before, which is too many here" in caplog.text) == (later == 1)


def test_another_attention_dropout_is_another_training(tmp_path: Path) -> None:
    tasks, targets = kit.SOURCE.training_tasks(), kit.SOURCE.testing_tasks()
    ends = {}
    for value in (None, 0.1, 0.0):
        settings = kit.settings(trainable=TrainableConfig(attention_dropout=value))
        outcome = train(settings, kit.tiny("gpt2"), kit.SOURCE, tasks, targets, tmp_path / str(value))
        ends[value] = verify(outcome.checkpoint)["files"]["model.safetensors"]
    assert ends[None] == ends[0.1]  # GPT-2's published value
    assert ends[None] != ends[0.0]
