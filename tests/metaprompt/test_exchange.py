"""A learned prompt and its psi as one folder: `peft` reads it with equal logits, and everything comes back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from metashot.base.errors import CheckpointError, ModelError
from metashot.engine.models.loading import LanguageModel
from metashot.engine.models.sources import LocalModel
from metashot.metaprompt.backbone import make_backbone
from metashot.metaprompt.batch import PromptExample, collate
from metashot.metaprompt.exchange import export_learned, import_learned, is_adapter
from metashot.metaprompt.meta.setup import make_regularizer
from metashot.metaprompt.meta.steps.regularizer import RegularizerConfig, Rescale

SHAPE = RegularizerConfig(4, 1, True, "none", "near_identity", "row_l2", 8)


@pytest.mark.parametrize("architecture", ["t5", "gpt2", "llama"])
def test_a_round_trip_through_peft_gives_equal_logits_and_the_same_psi(
    architecture: str, make_model, tmp_path: Path
):
    model: LanguageModel = make_model(architecture)
    prompt, psi = torch.randn(4, 16), make_regularizer(16, SHAPE, 1)
    psi.rescale = Rescale.MATRIX_L2
    export_learned(tmp_path / "a", model, prompt, psi, {"from": "a test"})
    target = (2, 30) if model.is_seq2seq else (30,)
    batch = collate([PromptExample((50, 51, 52), target)], pad_id=0, device=torch.device("cpu"))
    backbone = make_backbone(model)
    ours = backbone.decode(backbone.encode(prompt[None], batch), batch)
    theirs = PeftModel.from_pretrained(make_model(architecture).model, str(tmp_path / "a")).eval()
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.mask.long()}
    with torch.no_grad():
        if model.is_seq2seq:
            logits = theirs(**inputs, decoder_input_ids=torch.tensor([[0, 2]])).logits
        else:
            logits = theirs(**inputs).logits[:, -1:]
    torch.testing.assert_close(ours, logits, rtol=1e-4, atol=1e-4)
    theirs.save_pretrained(tmp_path / "b", save_embedding_layers=False)  # back from PEFT, which knows no psi
    assert torch.equal(import_learned(tmp_path / "b", 16).prompt, prompt)
    assert import_learned(tmp_path / "b").regularizer is None
    back = import_learned(tmp_path / "a", 16)
    gradient, state = torch.randn(4, 16), torch.randn(16)
    assert back.regularizer is not None
    assert torch.equal(back.regularizer(gradient, state)[0], psi(gradient, state)[0])
    assert not any(parameter.requires_grad for parameter in back.regularizer.parameters())


def test_the_card_names_the_model_and_no_folder(gpt2: LanguageModel, tmp_path: Path):
    model = replace(gpt2, spec=LocalModel("mine", "/somewhere/private"))
    export_learned(tmp_path / "made", model, torch.randn(4, 16), None, {"method": "soft_prompt"})
    card, config = ((tmp_path / "made" / name).read_text() for name in ("README.md", "adapter_config.json"))
    assert json.loads(config)["base_model_name_or_path"] == "mine"
    assert "4 virtual tokens of width 16" in card
    assert model.weights_digest in card
    assert "regularizer.safetensors" not in card
    assert "/somewhere" not in card + config
    assert is_adapter(tmp_path / "made")
    assert not (tmp_path / "made" / "regularizer.safetensors").exists()


def test_damaged_folders_are_said(gpt2: LanguageModel, tmp_path: Path):
    export_learned(tmp_path / "made", gpt2, torch.randn(4, 16), make_regularizer(16, SHAPE, 1), {})
    with pytest.raises(CheckpointError, match="prompt of width 16, the model has 48"):
        import_learned(tmp_path / "made", 48)
    (tmp_path / "made" / "regularizer.safetensors").write_bytes(b"x")
    with pytest.raises(
        ModelError, match=r"regularizer.safetensors: is not as it was exported \(export it again; if"
    ):
        import_learned(tmp_path / "made")
    (tmp_path / "made" / "metashot.json").unlink()  # as a folder that another program wrote
    with pytest.raises(CheckpointError, match="no readable regularizer"):
        import_learned(tmp_path / "made")
    with pytest.raises(CheckpointError, match="no PEFT adapter"):
        import_learned(tmp_path / "nothing")
