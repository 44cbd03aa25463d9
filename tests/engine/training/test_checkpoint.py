"""A checkpoint is whole or passed over; nothing in it is a pickle."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from metashot.base.errors import CheckpointError, OutputError
from metashot.engine.models.exports import exporting
from metashot.engine.training.checkpoint import CheckpointStore, checkpoint_folders, read_checkpoint, verify
from metashot.engine.training.randomness import capture_rng, restore_rng, seed_everything
from metashot.engine.training.state_tree import join_tree, split_tree

STATE = {
    "optimizer": {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(4)}}, "lr": (0.1, 1e-8)}
}
WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b.bias": torch.zeros(2)}


def save(root: Path, step: int = 1, **options: Any) -> Path:
    metric = options.pop("metric", None)
    return CheckpointStore(root, {"lr": 0.1}, **options).save(step, WEIGHTS, STATE, metric=metric)


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(save(tmp_path, 7))
    assert checkpoint.step == 7
    assert torch.equal(checkpoint.weights["a.weight"], WEIGHTS["a.weight"])
    assert checkpoint.state["optimizer"]["lr"] == (0.1, 1e-8)
    assert torch.equal(checkpoint.state["optimizer"]["state"][0]["exp_avg"], torch.ones(4))


@pytest.mark.parametrize("name", ["model.safetensors", "state.safetensors", "state.json", "manifest.json"])
def test_every_flipped_byte_and_every_truncation_is_seen(tmp_path: Path, name: str) -> None:
    folder = save(tmp_path)
    path = folder / name
    content = path.read_bytes()
    draw = random.Random(name)
    for _ in range(100):
        damaged = bytearray(content)
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            verify(folder)
        path.write_bytes(content[: draw.randrange(len(content))])
        with pytest.raises(CheckpointError):
            verify(folder)
    path.write_bytes(content)
    verify(folder)
    path.unlink()
    with pytest.raises(CheckpointError, match=name):
        verify(folder)


def test_keep_last_and_keep_best_decide_what_stays(tmp_path: Path) -> None:
    for step, metric in enumerate([0.1, 0.9, 0.5, 0.9, 0.2, 0.3], start=1):
        save(tmp_path, step, metric=metric, keep_last=2, keep_best=1)
    assert [folder.name[-1] for folder in checkpoint_folders(tmp_path)] == ["2", "5", "6"]


def test_half_written_folders_of_a_kill_are_no_checkpoints_and_are_removed(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    shutil.copytree(folder, tmp_path / ".step-00000002.77.tmp")
    assert checkpoint_folders(tmp_path) == [folder]
    save(tmp_path, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000003"]


def test_a_damaged_checkpoint_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    (save(tmp_path) / "state.json").write_text("{}")
    verify(save(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_a_read_only_folder_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        save(tmp_path / "file" / "below")


def test_a_folder_that_is_removed_and_made_again_while_it_is_written_is_no_checkpoint(tmp_path: Path) -> None:
    """What was written before is not in it, and its manifest would not miss it."""

    def export(folder: Path) -> None:
        shutil.rmtree(folder)
        folder.mkdir()

    with pytest.raises(OutputError, match="was removed while the run wrote to it"):
        CheckpointStore(tmp_path / "root").save(1, {"w": torch.ones(2)}, {}, export=export)
    assert not [path for path in (tmp_path / "root").iterdir() if path.is_dir()]


def test_a_tied_tensor_is_stored_once(tmp_path: Path) -> None:
    tied = torch.ones(3, 2)
    folder = CheckpointStore(tmp_path).save(1, {"embed": tied, "head": tied}, {"shared": [tied, tied]})
    checkpoint = read_checkpoint(folder)
    assert list(checkpoint.weights) == ["embed"]
    assert checkpoint.state["shared"][0] is checkpoint.state["shared"][1]


_leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
_trees = st.recursive(
    _leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(_trees)
def test_any_json_tree_survives_the_split(tree: Any) -> None:
    tensors, values = split_tree(tree)
    assert tensors == {}
    assert join_tree(tensors, values) == tree


def test_a_leaf_that_is_neither_tensor_nor_json_is_refused_by_its_path() -> None:
    with pytest.raises(TypeError, match=r"optimizer\.0: a object"):
        split_tree({"optimizer": [object()]})


def test_random_generators_continue_where_they_were() -> None:
    import numpy as np

    seed_everything(5)
    random.random(), np.random.normal(), torch.randn(3)  # noqa: NPY002
    tensors, values = split_tree(capture_rng())
    ahead = (random.random(), np.random.normal(), torch.randn(3).tolist(), random.gauss(0, 1))  # noqa: NPY002
    seed_everything(6)
    restore_rng(join_tree(tensors, values))
    assert ahead == (random.random(), np.random.normal(), torch.randn(3).tolist(), random.gauss(0, 1))  # noqa: NPY002


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o007, 0o660)])
def test_who_may_read_a_checkpoint_and_an_export_is_for_the_umask_to_say(
    tmp_path: Path, umask: int, mode: int
) -> None:
    before = os.umask(umask)
    try:
        folder = save(tmp_path / "run")
        with exporting(tmp_path / "export") as made:
            save_file(WEIGHTS, made / "model.safetensors")
    finally:
        os.umask(before)
    files = [*folder.iterdir(), *(tmp_path / "export").iterdir()]
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in files} == {
        path.name: oct(mode) for path in files
    }
