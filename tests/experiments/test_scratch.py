"""A model made from nothing: loads as a local model, one token a word."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch

from metashot.engine.models.loading import load_model
from metashot.engine.models.sources import LocalModel

_path = Path(__file__).parents[2] / "experiments" / "metaicl_demo" / "scratch.py"
_scratch_spec = importlib.util.spec_from_file_location("scratch", _path)
assert _scratch_spec is not None
assert _scratch_spec.loader is not None
scratch: Any = importlib.util.module_from_spec(_scratch_spec)
sys.modules["scratch"] = scratch  # dataclasses look their module up
_scratch_spec.loader.exec_module(scratch)

SIZE = scratch.ScratchSize(layers=2, width=32, heads=2, positions=64, matched_attention=1.0)


def test_words_and_runs_of_newlines_are_tokens_and_spaces_vanish() -> None:
    tokenizer = scratch.word_tokenizer(["lamo", "biku", "7"])
    tokens = tokenizer.tokenize("lamo biku\n7\n\n\nbiku unknown")
    assert tokens == ["lamo", "biku", "\n", "7", "\n\n\n", "biku", "<unk>"]


def test_the_folder_loads_and_depends_on_the_seed_alone(tmp_path: Path) -> None:
    folders = [
        scratch.write_scratch_model(tmp_path / str(i), ["a", "b"], SIZE, seed)
        for i, seed in enumerate((1, 1, 2))
    ]
    models = [load_model(LocalModel("scratch", str(folder), device="cpu")) for folder in folders]
    assert models[0].weights_digest == models[1].weights_digest != models[2].weights_digest
    assert models[0].tokenizer("a b\nb").input_ids == [4, 5, 1, 5]


def test_matched_attention_starts_with_queries_equal_to_keys(tmp_path: Path) -> None:
    scratch.write_scratch_model(tmp_path, ["a"], SIZE, 0)
    model = load_model(LocalModel("scratch", str(tmp_path), device="cpu")).model
    weight = model.state_dict()["transformer.h.1.attn.c_attn.weight"]
    assert torch.equal(weight[:, :32], weight[:, 32:64])
    assert not torch.equal(weight[:, :32], weight[:, 64:])
