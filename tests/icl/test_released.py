"""Published checkpoints: names, tensor-only import, a round trip that changes no logit, and methods that agree."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from metashot.base.errors import CheckpointError, ConfigError
from metashot.engine.models.loading import load_model
from metashot.engine.models.sources import LocalModel
from metashot.engine.models.tiny import tiny_model
from metashot.engine.training.checkpoint import CheckpointStore
from metashot.icl.prompting.config import MetaiclPrompt, TemplatePrompt
from metashot.icl.prompting.methods import Method
from metashot.icl.prompting.prompt import Objective
from metashot.icl.released import (
    ReleasedName,
    import_released,
    load_released_checkpoint,
    method_of,
    parse_name,
)
from metashot.icl.scoring.trained_method import check_method, follow_checkpoint, trained_method


def gpt2_file(path: Path, prefix: str = "", **extra: Any) -> Any:
    """A GPT-2 of 64-wide heads, saved as the authors saved theirs."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    tokenizer = tiny_model("gpt2")[1]
    size = {"vocab_size": len(tokenizer), "n_positions": 64, "n_embd": 128, "n_layer": 2, "n_head": 2}
    model = GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0)).eval()
    torch.save({**{prefix + name: tensor for name, tensor in model.state_dict().items()}, **extra}, path)
    return model, tokenizer


IDS = torch.arange(30)[None]


@pytest.mark.parametrize("prefix", ["", "module.", "module.model."])
@torch.no_grad()
def test_import_and_round_trip_change_no_logit(tmp_path: Path, prefix: str) -> None:
    model, tokenizer = gpt2_file(tmp_path / "model.pt", prefix)
    imported = load_released_checkpoint(tmp_path / "model.pt")
    assert torch.equal(imported(IDS).logits, model(IDS).logits)
    folder = import_released(tmp_path / "model.pt", "channel-metaicl/qa_to_qa", tokenizer, tmp_path / "out")
    loaded = load_model(LocalModel("released", str(folder), device="cpu"))
    assert torch.equal(loaded.model(IDS).logits, model(IDS).logits)
    again = tmp_path / "again.pt"
    torch.save(load_file(folder / "model.safetensors"), again)
    assert torch.equal(load_released_checkpoint(again)(IDS).logits, model(IDS).logits)


def test_causal_mask_buffers_of_old_files_are_passed_over(tmp_path: Path) -> None:
    extra = {
        "transformer.h.0.attn.bias": torch.ones(1, 1, 4, 4),
        "transformer.h.0.attn.masked_bias": torch.zeros(()),
    }
    gpt2_file(tmp_path / "model.pt", **extra)
    load_released_checkpoint(tmp_path / "model.pt")


class _Payload:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("owned"),))


@pytest.mark.parametrize("kind", ["code", "whole model", "list", "noise", "missing"])
def test_a_file_that_is_more_or_less_than_tensors_is_refused_without_running_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.pt"
    if kind == "code":
        torch.save({"transformer.wte.weight": _Payload()}, path)
    elif kind == "whole model":
        torch.save(torch.nn.Linear(2, 2), path)
    elif kind == "list":
        torch.save([torch.ones(2)], path)
    elif kind == "noise":
        path.write_bytes(pickle.dumps(_Payload())[:-3])
    with pytest.raises(CheckpointError):
        load_released_checkpoint(path)
    assert not (tmp_path / "owned").exists()


def test_another_architecture_is_refused_by_the_names_at_odds(tmp_path: Path) -> None:
    torch.save({"transformer.wte.weight": torch.ones(9, 64), "transformer.wpe.weight": torch.ones(9, 64),
                "transformer.h.0.attn.c_attn.weight": torch.ones(64, 192), "lm.extra": torch.ones(1)}, tmp_path / "x.pt")  # fmt: skip
    with pytest.raises(CheckpointError, match=r"is no GPT-2 state dict \(at odds: lm\.extra"):
        load_released_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("name", "method", "setting"),
    [
        ("metaicl", "metaicl", "hr_to_lr"),
        ("channel-metaicl-instruction", "channel-metaicl", "hr_to_lr_inst_all"),
        ("multitask-zero-inst", "multitask-zero", "hr_to_lr_inst_all"),
        ("channel-multitask-zero/non_nli_to_nli", "channel-multitask-zero", "non_nli_to_nli"),
        ("metaicl/hr_to_lr_noinst", "metaicl", "hr_to_lr_noinst"),
    ],
)
def test_published_names(name: str, method: str, setting: str) -> None:
    assert parse_name(name) == ReleasedName(method, setting)
    assert parse_name(name).remote_path == f"{method}/{setting}/model.pt"


@pytest.mark.parametrize("name", ["metaicl/hr", "icl", "metaicl/hr_to_lr_diverse", "metaicl-instruct", ""])
def test_names_that_were_never_published(name: str) -> None:
    with pytest.raises(ConfigError, match="no published checkpoint is called"):
        parse_name(name)


CHANNEL = Method("channel_metaicl", Objective.CHANNEL, trained=True)


@pytest.fixture
def channel_checkpoint(tmp_path: Path) -> Path:
    store = CheckpointStore(tmp_path, method=method_of(parse_name("channel-metaicl")))
    return store.save(1, {"w": torch.ones(1)}, {})


def test_evaluation_with_the_trained_method_is_accepted_at_any_k(channel_checkpoint: Path) -> None:
    method = trained_method(channel_checkpoint)
    assert method is not None
    assert method["name"] == "channel_metaicl"
    check_method(channel_checkpoint, CHANNEL, k=4, prompt=MetaiclPrompt())
    check_method(channel_checkpoint, replace(CHANNEL, name="renamed"), k=16, prompt=MetaiclPrompt())


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (Method("metaicl", trained=True), "objective is 'channel' there, 'direct' here"),
        (replace(CHANNEL, demonstrations=False), "demonstrations is True there, False here"),
        (replace(CHANNEL, layout="space"), "layout is 'newline' there, 'space' here"),
    ],
)
def test_a_contradicting_method_is_refused(channel_checkpoint: Path, method: Method, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_method(channel_checkpoint, method, k=16, prompt=MetaiclPrompt())


def test_no_demonstrations_contradict_a_model_trained_with_them(channel_checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="was trained with demonstrations"):
        check_method(channel_checkpoint, CHANNEL, k=0, prompt=MetaiclPrompt())


def test_a_folder_without_a_manifest_says_nothing(tmp_path: Path) -> None:
    assert trained_method(tmp_path) is None
    check_method(tmp_path, Method("direct"), k=0, prompt=MetaiclPrompt())


def test_begin_of_sequence_follows_the_checkpoint(tmp_path, channel_checkpoint):
    """A checkpoint that says nothing was trained without it, whatever the tokenizer would prepend."""
    assert follow_checkpoint(channel_checkpoint, MetaiclPrompt()).bos is False
    assert follow_checkpoint(channel_checkpoint, MetaiclPrompt(bos=True)).bos is True
    assert follow_checkpoint(tmp_path, MetaiclPrompt()).bos == "auto"


def test_another_prompt_format_than_the_checkpoints_is_refused(channel_checkpoint):
    with pytest.raises(ConfigError, match=r"prompt: 'template' is not the format .*trained with: 'metaicl'"):
        check_method(channel_checkpoint, CHANNEL, k=4, prompt=TemplatePrompt())
