"""What `checkpoint=` may name, and exports that come back with the same logits."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from metashot.base.errors import CheckpointError, ConfigError
from metashot.engine.models.loading import load_model
from metashot.engine.models.sources import LocalModel, ModelConfig, TinyModel
from metashot.engine.training.config import LoraConfig, TrainableConfig
from metashot.icl.learning.checkpoint_choice import checkpoint_folder
from metashot.icl.learning.export import ExportConfig, export_checkpoint
from metashot.icl.learning.meta_training import train
from metashot.icl.prompting.methods import named_method
from metashot.icl.released import load_released_checkpoint
from metashot.icl.scoring.trained_method import trained_method

_spec = importlib.util.spec_from_file_location("kit", Path(__file__).with_name("training_helpers.py"))
assert _spec is not None
assert _spec.loader is not None
kit: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(kit)

IDS = torch.arange(30)[None]
TINY = TinyModel("tiny", device="cpu")
CHANNEL = named_method("channel_metaicl")


def published(folder: Path, vocabulary: int = 460) -> GPT2LMHeadModel:
    """The authors' file: a GPT-2 state dict with heads of 64."""
    torch.manual_seed(0)
    size = {"vocab_size": vocabulary, "n_positions": 64, "n_embd": 128, "n_layer": 1, "n_head": 2}
    model = GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0)).eval()
    folder.mkdir(parents=True)
    torch.save(model.state_dict(), folder / "model.pt")
    return model


@torch.no_grad()
def logits(folder: Path, model: ModelConfig = TINY) -> torch.Tensor:
    return load_model(model.with_weights(folder)).model(IDS).logits


@torch.no_grad()
def of(model: Any) -> torch.Tensor:
    return model.eval()(IDS).logits


@torch.no_grad()
def test_a_published_name_a_file_and_its_folder_mean_the_same_weights(tmp_path: Path) -> None:
    place = tmp_path / "released" / "channel-metaicl" / "qa_to_qa"
    model = published(place)
    names = ("channel-metaicl/qa_to_qa", str(place / "model.pt"), str(place))
    found = [checkpoint_folder(name, TINY, CHANNEL, tmp_path) for name in names]
    assert len(set(found)) == 1
    torch.testing.assert_close(
        logits(found[0], LocalModel("published", str(found[0]), device="cpu")), model(IDS).logits
    )
    told = trained_method(found[0])
    assert told is not None
    assert (told["name"], told["objective"]) == ("channel_metaicl", "channel")


def test_a_file_elsewhere_is_taken_for_the_method_asked(tmp_path: Path) -> None:
    published(tmp_path / "downloads")
    folder = checkpoint_folder(str(tmp_path / "downloads"), TINY, named_method("metaicl"), tmp_path / "out")
    told = trained_method(folder)
    assert told is not None
    assert told["name"] == "metaicl"


def test_what_is_not_there_is_told_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"published file of 'metaicl' is not at .*metaicl/hr_to_lr/model.pt"
    ):
        checkpoint_folder("metaicl", TINY, CHANNEL, tmp_path)
    with pytest.raises(ConfigError, match=r"holds no whole checkpoint, no model and no model.pt"):
        checkpoint_folder(str(tmp_path), TINY, CHANNEL, tmp_path)
    published(tmp_path / "small", vocabulary=30)
    with pytest.raises(CheckpointError, match=r"has 30 word vectors, and the tokenizer of model=\.\.\. has"):
        checkpoint_folder(str(tmp_path / "small"), TINY, CHANNEL, tmp_path)


def trained(folder: Path, lora: LoraConfig | None) -> Path:
    settings = kit.settings(
        trainable=TrainableConfig(lora=lora), optimizer={"learning_rate": 0.02}, loop={"steps": 2}
    )
    tasks = kit.SOURCE.training_tasks(), kit.SOURCE.testing_tasks()
    train(settings, kit.tiny(), kit.SOURCE, *tasks, folder)
    return checkpoint_folder(str(folder), TINY, named_method("metaicl"), folder)


def test_exports_come_back_with_the_same_logits(tmp_path: Path) -> None:
    full, low_rank = trained(tmp_path / "full", None), trained(tmp_path / "lora", LoraConfig(r=2))
    plain = export_checkpoint(full, TINY, ExportConfig(), tmp_path / "plain")
    assert not (plain / "manifest.json").exists()
    assert not list(plain.glob("state.*"))
    torch.testing.assert_close(of(AutoModelForCausalLM.from_pretrained(plain)), logits(full))
    peft = export_checkpoint(low_rank, TINY, ExportConfig(), tmp_path / "peft")
    wrapped = PeftModel.from_pretrained(TINY.read_model(), peft)
    torch.testing.assert_close(of(wrapped), logits(low_rank), atol=1e-4, rtol=1e-4)
    merged = export_checkpoint(low_rank, TINY, ExportConfig("transformers"), tmp_path / "merged")
    there = load_model(LocalModel("merged", str(merged), device="cpu")).model
    torch.testing.assert_close(of(there), logits(low_rank), atol=1e-5, rtol=1e-5)
    card = (peft / "README.md").read_text()
    assert "# metaicl, step 2" in card
    assert "2 demonstrations, newline layout" in card
    before = {path.name: path.read_bytes() for path in plain.iterdir()}
    export_checkpoint(full, TINY, ExportConfig(), plain)
    assert {path.name: path.read_bytes() for path in plain.iterdir()} == before
    for folder in (full, tmp_path / "full"):
        with pytest.raises(ConfigError, match="exists"):
            export_checkpoint(full, TINY, ExportConfig(), folder)


@pytest.mark.parametrize("heads", [2, 8])
def test_the_released_form_is_written_where_it_reads_back_the_same(tmp_path: Path, heads: int) -> None:
    """A state dict does not say how many heads there are: readers take 64 numbers for each."""
    base = TINY.read_model().config.to_dict()
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(**base | {"n_embd": 128, "n_head": heads})).save_pretrained(tmp_path / "base")
    TINY.read_tokenizer().save_pretrained(tmp_path / "base")
    model = LocalModel("base", str(tmp_path / "base"), device="cpu")
    tasks = kit.SOURCE.training_tasks(), kit.SOURCE.testing_tasks()
    train(kit.settings(loop={"steps": 1}), load_model(model), kit.SOURCE, *tasks, tmp_path / "run")
    checkpoint = checkpoint_folder(str(tmp_path / "run"), model, named_method("metaicl"), tmp_path)
    if heads == 8:
        with pytest.raises(ConfigError, match=r"export.format: .* n_head is 8, and would be read as 2"):
            export_checkpoint(checkpoint, model, ExportConfig("released"), tmp_path / "released")
        assert not (tmp_path / "released").exists()
        return
    export_checkpoint(checkpoint, model, ExportConfig("released"), tmp_path / "released")
    read = load_released_checkpoint(tmp_path / "released" / "model.pt")
    torch.testing.assert_close(of(read), logits(checkpoint, model))
