"""`experiments/supmer_smollm2/adapt_backbone.py`: what it writes is a PEFT adapter that the product loads."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "supmer_smollm2" / "adapt_backbone.py"


@pytest.fixture
def script() -> Any:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("adapt_backbone", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_adapter_is_trained_on_the_formats_and_loads(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from metashot.engine.models.loading import load_model
    from metashot.engine.models.sources import TinyModel, named_model

    pytest.importorskip("peft")
    tiny = load_model(TinyModel("tiny", path="llama"))
    tiny.model.save_pretrained(tmp_path / "base")
    tiny.tokenizer.save_pretrained(tmp_path / "base")
    output = tmp_path / "adapter"
    monkeypatch.setattr(
        sys, "argv",
        ["adapt_backbone.py", f"--output={output}", "--steps=25", "--batch-size=4", "--last-layers=1", "--learning-rate=0.05",
         "model=local", f"model.path={tmp_path / 'base'}", "model.dtype=float32", "supmer.formats=[scsp]"],
    )  # fmt: skip
    script.main()
    told = capsys.readouterr()
    assert f"model.adapter={output}" in told.out
    assert "step 25, loss of the last five batches in nats: scsp" in told.out + told.err

    base = named_model(str(tmp_path / "base"))
    adapted = named_model(str(tmp_path / "base"), adapter=str(output))
    ids = torch.arange(2, 12)[None]
    with torch.no_grad():
        before, after = (load_model(spec).model(input_ids=ids).logits for spec in (base, adapted))
    assert (before - after).abs().max() > 1e-2  # the update is not nothing
    assert base.weights_digest() != adapted.weights_digest()
