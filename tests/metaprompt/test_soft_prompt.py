"""Soft prompts: start, storage, nearest words, PEFT."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from metashot.base.errors import CheckpointError, ConfigError, ModelError
from metashot.engine.models.loading import LanguageModel
from metashot.metaprompt.backbone import embed, input_embeddings, make_backbone
from metashot.metaprompt.batch import PromptExample, collate
from metashot.metaprompt.soft_prompt import initial_prompt, load_prompt, nearest_tokens, save_prompt
from metashot.metaprompt.tuning.adapters import export_adapter, import_adapter


def test_starts_are_pure_functions_of_the_seed(gpt2: LanguageModel):
    table = input_embeddings(gpt2)
    prompt = initial_prompt(gpt2, 6, "vocabulary", 3)
    assert torch.equal(prompt, initial_prompt(gpt2, 6, "vocabulary", 3))
    assert all((row == table).all(dim=1).any() for row in prompt)
    assert initial_prompt(gpt2, 2000, "random", 0).std() == pytest.approx(0.01, rel=0.05)
    with pytest.raises(
        ConfigError, match=r"prompt_init: input should be .*, got 'vocab' \(did you mean 'vocabulary'"
    ):
        initial_prompt(gpt2, 6, "vocab", 0)


def test_a_prompt_comes_back_from_its_file(tmp_path: Path):
    prompt = torch.randn(5, 8)
    save_prompt(tmp_path / "p.safetensors", prompt)
    assert torch.equal(load_prompt(tmp_path / "p.safetensors", width=8), prompt)
    with pytest.raises(CheckpointError, match="prompt of width 8, but the model's embeddings have width 9"):
        load_prompt(tmp_path / "p.safetensors", width=9)
    (tmp_path / "p.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="no readable prompt"):
        load_prompt(tmp_path / "p.safetensors")


def test_nearest_tokens_of_embeddings_are_the_tokens(gpt2: LanguageModel):
    near = nearest_tokens(gpt2, input_embeddings(gpt2)[[40, 50]] * 3.0, 2)
    pieces = [gpt2.tokenizer.convert_ids_to_tokens(i) for i in (40, 50)]
    assert [row[0].piece for row in near] == pieces
    assert near[0][0].cosine == pytest.approx(1.0, abs=1e-5)


def test_a_prompt_of_token_embeddings_equals_those_tokens(language_model: LanguageModel):
    """Prompt rows that are embeddings of tokens give the logits of the text with these tokens in front."""
    backbone = make_backbone(language_model)
    target = (2, 30) if language_model.is_seq2seq else (30,)
    ahead, context = (40, 41, 42), (50, 51, 52, 53)
    device = torch.device("cpu")
    soft = collate([PromptExample(context, target)], pad_id=0, device=device)
    hard = collate([PromptExample(ahead + context, target)], pad_id=0, device=device)
    prompt = input_embeddings(language_model)[list(ahead)][None]
    empty = torch.empty(1, 0, backbone.width)
    torch.testing.assert_close(
        backbone.decode(backbone.encode(prompt, soft), soft),
        backbone.decode(backbone.encode(empty, hard), hard),
        rtol=1e-4,
        atol=1e-5,
    )


def test_peft_adapter_gives_equal_logits_and_comes_back(make_model, tmp_path: Path):
    for architecture in ("t5", "gpt2", "llama"):
        model: LanguageModel = make_model(architecture)
        backbone, prompt = make_backbone(model), torch.randn(4, 16)
        export_adapter(tmp_path / architecture, model, prompt)
        assert torch.equal(import_adapter(tmp_path / architecture, width=16), prompt)
        from peft import PeftModel

        fresh: LanguageModel = make_model(architecture)
        peft = PeftModel.from_pretrained(fresh.model, str(tmp_path / architecture)).eval()
        target = (2, 30) if model.is_seq2seq else (30,)
        batch = collate([PromptExample((50, 51, 52), target)], pad_id=0, device=torch.device("cpu"))
        ours = backbone.decode(backbone.encode(prompt[None], batch), batch)
        with torch.no_grad():
            if model.is_seq2seq:
                decoder = torch.tensor([[0, 2]])
                theirs = peft(
                    input_ids=batch.input_ids, attention_mask=batch.mask.long(), decoder_input_ids=decoder
                ).logits
            else:
                theirs = peft(input_ids=batch.input_ids, attention_mask=batch.mask.long()).logits[:, -1:]
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    with pytest.raises(CheckpointError, match="prompt of width 16, the model has 48"):
        import_adapter(tmp_path / "gpt2", width=48)
    with pytest.raises(CheckpointError, match="no PEFT adapter"):
        import_adapter(tmp_path)


def test_pseudo_tokens_stand_for_their_vectors(gpt2: LanguageModel):
    pseudo = torch.randn(3, 16)
    vectors = embed(gpt2, torch.tensor([[5, -1, -3]]), pseudo)
    assert torch.equal(vectors[0, 0], input_embeddings(gpt2)[5])
    assert torch.equal(vectors[0, 1:], pseudo[[0, 2]])
    with pytest.raises(ModelError, match="pseudo-token has no embedding"):
        embed(gpt2, torch.tensor([[-1]]), None)


@pytest.mark.parametrize(
    ("architecture", "scaling"),
    [
        ("granite", {"logits_scaling": 3.0}),
        ("cohere", {"logit_scale": 0.3}),
        ("gemma2", {"final_logit_softcapping": 2.0}),
    ],
)
def test_logits_at_the_answer_are_the_models_own(
    gpt2: LanguageModel, architecture: str, scaling: dict[str, float]
):
    """Architectures that scale or cap what comes out of their vocabulary projection."""
    config = AutoConfig.for_model(
        architecture, vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, pad_token_id=0, **scaling,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    backbone = make_backbone(replace(gpt2, model=model))
    batch = collate([PromptExample((5, 6, 7), (8,))], pad_id=0, device=torch.device("cpu"))
    with torch.no_grad():
        answer = backbone.decode(backbone.encode(torch.empty(1, 0, 32), batch), batch)
        own = model(input_ids=torch.tensor([[5, 6, 7]])).logits[:, -1:]
    torch.testing.assert_close(answer, own)
