"""FSDP2 as accelerate applies it, on a mesh of one process: the same training, and checkpoints that change places.

accelerate shards on GPUs only, so its `prepare` is replaced by the same calls of `fully_shard` on a CPU mesh.
"""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch.distributed.tensor import DTensor

from metashot.base.errors import ConfigError
from metashot.engine.training.checkpoint import read_checkpoint
from metashot.engine.training.config import LoraConfig, TrainableConfig
from metashot.engine.training.signals import Interrupted
from metashot.icl.learning.held_out import HeldOutConfig
from metashot.icl.learning.meta_learner import MetaLearner
from metashot.icl.learning.meta_training import train

_spec = importlib.util.spec_from_file_location("kit", Path(__file__).with_name("training_helpers.py"))
assert _spec is not None
assert _spec.loader is not None
kit: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(kit)


@pytest.fixture
def _one_process(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def run(folder: Path, lora: LoraConfig | None, stop_step: int = 0, shard: bool = False) -> Any:
    original = MetaLearner.train_step

    def train_step(self: MetaLearner, step: int) -> Any:
        if shard:
            parameters = list(self._trainable.module.parameters())
            assert all(isinstance(parameter, DTensor) for parameter in parameters)
        report = original(self, step)
        if step + 1 == stop_step:
            os.kill(os.getpid(), signal.SIGTERM)
        return report

    settings = kit.settings(
        loop={"steps": 8, "evaluate_every": 4},
        trainable=TrainableConfig(lora=lora),
        held_out=HeldOutConfig(k=2, test_examples=2),
    )
    tasks = kit.SOURCE.training_tasks(), kit.SOURCE.testing_tasks()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MetaLearner, "train_step", train_step)
        if shard:
            patch.setattr(Accelerator, "prepare", kit.sharding)
        return train(settings, kit.tiny("llama"), kit.SOURCE, *tasks, folder)


@pytest.mark.usefixtures("_one_process")
@pytest.mark.parametrize("lora", [None, LoraConfig(r=2, alpha=4)])
def test_sharded_training_ends_as_whole_training_and_each_continues_the_other(
    tmp_path: Path, lora: LoraConfig | None
) -> None:
    whole = read_checkpoint(run(tmp_path / "whole", lora).checkpoint)
    ends = [run(tmp_path / "sharded", lora, shard=True)]
    for name, first in (("from-sharded", True), ("from-whole", False)):
        with pytest.raises(Interrupted):
            run(tmp_path / name, lora, stop_step=4, shard=first)
        ends.append(run(tmp_path / name, lora, shard=not first))
    for end in ends:
        found = read_checkpoint(end.checkpoint)
        assert found.weights.keys() == whole.weights.keys()
        for name, tensor in whole.weights.items():
            torch.testing.assert_close(found.weights[name], tensor, atol=1e-6, rtol=1e-5, msg=name)
        assert (found.folder / "manifest.json").is_file()


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, "distributed_type FSDP shards over GPUs"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "distributed_type DEEPSPEED keeps optimizer shards"),
    ],
)
def test_what_a_launch_config_asks_for_and_this_machine_cannot_do_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], line: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=line):
        run(tmp_path, None)
