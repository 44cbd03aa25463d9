"""Tensors in shards are written as whole ones, one at a time, in a file that safetensors reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from metashot.base.errors import OutputError
from metashot.engine.training.checkpoint import CheckpointStore, read_checkpoint, stored_tensors
from metashot.engine.training.sharded import Gathering, sharded_among, sharded_like, whole, write_safetensors


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Any]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        yield init_device_mesh("cpu", (1,))
    finally:
        dist.destroy_process_group()


def test_the_file_is_what_safetensors_reads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensors = {
        "half": torch.randn(3, 5).half(), "brain": torch.randn(7).bfloat16(), "none": torch.zeros(0, 4),
        "number": torch.tensor(3, dtype=torch.int64), "turned": torch.randn(4, 6).T, "bytes": torch.arange(9).to(torch.uint8),
    }  # fmt: skip
    write_safetensors(tensors, tmp_path / "own.safetensors", {"format": "pt"}, whole)
    found = load_file(tmp_path / "own.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


def test_a_store_writes_shards_as_whole_tensors_and_ties_once(tmp_path: Path, mesh: Any) -> None:
    plain = {"a": torch.randn(6, 4), "b": torch.randn(5)}
    sharded: dict[str, torch.Tensor] = {
        name: distribute_tensor(tensor, mesh, [Shard(0)]) for name, tensor in plain.items()
    }
    weights = {**sharded, "tied": sharded["a"]}
    state = {"moment": distribute_tensor(plain["a"] + 1, mesh, [Shard(0)]), "step": torch.tensor(3.0)}
    gathering = Gathering(sharded_among(stored_tensors(weights, state)))
    folder = CheckpointStore(tmp_path / "s").save(3, weights, state, gather=gathering)
    gathering.finish()
    found = read_checkpoint(folder)
    assert found.weights.keys() == plain.keys()
    for name, tensor in plain.items():
        torch.testing.assert_close(found.weights[name], tensor, rtol=0, atol=0)
    torch.testing.assert_close(found.state["moment"], plain["a"] + 1, rtol=0, atol=0)
    back = sharded_like(found.weights["a"], sharded["a"])
    assert isinstance(back, DTensor)
    torch.testing.assert_close(back.to_local(), plain["a"], rtol=0, atol=0)
    assert sharded_like(found.weights["a"], plain["a"]) is found.weights["a"]


def test_where_the_first_rank_cannot_write_the_others_are_not_left_waiting(
    tmp_path: Path, mesh: Any, monkeypatch: pytest.MonkeyPatch
) -> None:

    weights: dict[str, torch.Tensor] = {
        name: distribute_tensor(torch.randn(3), mesh, [Shard(0)]) for name in "abc"
    }
    gathered: list[torch.Tensor] = []

    def counted(tensor: torch.Tensor) -> torch.Tensor:
        gathered.append(tensor)
        return whole(tensor)

    def full_disk(tensors: Any, path: Path, metadata: Any, gather: Any) -> None:
        gather(tensors["a"])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("metashot.engine.training.sharded.write_safetensors", full_disk)
    monkeypatch.setattr("metashot.engine.training.sharded.whole", counted)
    gathering = Gathering(sharded_among(weights.values()))
    with pytest.raises(OutputError, match="No space left"):
        CheckpointStore(tmp_path / "s").save(1, weights, {}, gather=gathering)
    gathering.finish()
    assert len(gathered) == 3
    with pytest.raises(ValueError, match="in their order"):
        gathering(weights["a"])
