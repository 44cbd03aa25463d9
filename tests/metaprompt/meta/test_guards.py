"""What meta-training tells its user: cut contexts, accuracy with its interval, what the frozen model holds."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from metashot.engine.models.loading import LanguageModel
from metashot.metaprompt.backbone import Encoding, make_backbone
from metashot.metaprompt.batch import PromptBatch, PromptExample, collate
from metashot.metaprompt.clusters.store import ClusterStore
from metashot.metaprompt.meta import cuts, held_out, probe
from metashot.metaprompt.meta.drawing.formats import RenderRules, bind_format, load_format
from metashot.metaprompt.meta.drawing.tasks import TaskStream
from metashot.metaprompt.meta.setup import make_regularizer
from metashot.metaprompt.meta.steps.inner_loop import PassRules
from metashot.metaprompt.meta.steps.regularizer import RegularizerConfig
from metashot.metaprompt.soft_prompt import initial_prompt

from .drawing.test_meta_tasks import domains_of

FORMATS = ("nsp", "nss", "scsp", "scss")
PASSES = PassRules(4000, None, state_over_padding=False, mix_padding=False)


def stream_of(store: ClusterStore, model: LanguageModel, limit: int = 300) -> TaskStream:
    rules = RenderRules(limit, bare_pieces=False, released_truncation=False, third_position=False)
    renderers = tuple(
        bind_format(load_format(name), model.tokenizer, rules, is_seq2seq=model.is_seq2seq)
        for name in FORMATS
    )
    domains = domains_of(store)
    return TaskStream(renderers, domains["meta_train"], domains["meta_test"], 0, 3, 2, False)


def test_the_interval_is_that_of_the_binomial_where_tasks_agree():
    """Four tasks of 100 queries at 0.5, one format: variance 0.25 / 400, half-width 1.96 * 0.025 = 0.049."""
    low, high = held_out.accuracy_interval(torch.full((4,), 0.5), [100] * 4, ["a"] * 4)
    assert (low, high) == pytest.approx((0.451, 0.549))


def test_the_interval_widens_where_tasks_differ():
    """Tasks at 0.2 and 0.8: their variance 0.18 over 2 tasks, half-width 1.96 * 0.3 = 0.588; cut at 0 and 1."""
    low, high = held_out.accuracy_interval(torch.tensor([0.2, 0.8]), [1000, 1000], ["a", "a"])
    assert (low, high) == (0.0, 1.0)
    # A difference between formats is no noise: both are always there.
    low, high = held_out.accuracy_interval(torch.tensor([0.2, 0.8]), [1000, 1000], ["a", "b"])
    half = 1.96 * math.sqrt(2 * 0.25 * 0.16 / 1000)
    assert (low, high) == pytest.approx((0.5 - half, 0.5 + half))


def test_held_out_tasks_hold_the_queries_asked_for(store: ClusterStore, gpt2: LanguageModel):
    stream = stream_of(store, gpt2)
    tasks = stream.test_tasks(2, 1000)
    assert [task.format for task in tasks] == [name for name in FORMATS for _ in range(2)]
    assert all(len(task.query) == 125 and len(task.support) == 16 for task in tasks)
    assert not {e.input_ids for t in tasks for e in t.query} & {e.input_ids for t in tasks for e in t.support}
    assert {len(task.query) for task in stream.test_tasks(2)} == {16}


@pytest.mark.parametrize("regularize", [True, False])
def test_held_out_metrics_stand_beside_guessing(store: ClusterStore, gpt2: LanguageModel, regularize: bool):
    tasks = stream_of(store, gpt2).test_tasks(1)
    psi = make_regularizer(16, RegularizerConfig(4, 1, True, "none", "near_identity", "row_l2", 8), 0)
    prompt = initial_prompt(gpt2, 3, "vocabulary", 0)
    metrics = held_out.held_out_metrics(
        make_backbone(gpt2), psi if regularize else None, prompt, tasks, 0.1, PASSES
    )
    labels = (3, 4, 2, 4)  # nsp, nss, scsp, scss
    assert metrics["guess_loss"] == pytest.approx(sum(math.log(n) for n in labels) / 4)
    assert metrics["guess_accuracy"] == pytest.approx(sum(1 / n for n in labels) / 4)
    assert metrics["query_accuracy_low"] <= metrics["query_accuracy"] <= metrics["query_accuracy_high"]
    assert metrics["queries"] == 64
    assert (metrics["coefficient"] == 1.0) == (not regularize)
    line = held_out.describe(metrics)
    assert "64 queries" in line
    assert f"{metrics['guess_loss']:.2f}" in line


def test_cut_contexts_are_counted(store: ClusterStore, gpt2: LanguageModel):
    free = cuts.measure_cuts(stream_of(store, gpt2), 32)
    assert all(cut.share == 0 and cut.kept == 1 for cut in free)
    longest = max(cut.longest for cut in free)
    assert cuts.describe(free, 300) == f"no context is cut (longest {longest} of 300 tokens)"
    limit = next(cut.longest for cut in free if cut.format == "scsp")
    cut = {one.format: one for one in cuts.measure_cuts(stream_of(store, gpt2, limit), 32)}
    assert cut["scsp"].share == 0
    assert cut["scss"].share == cut["nss"].share == 1.0
    assert 0 < cut["scss"].kept < 1
    line = cuts.describe(list(cut.values()), limit)
    assert f"supmer.max_context_tokens={limit}" in line
    assert "nss 100%" in line
    assert "scsp" not in line


class Knowing:
    """A backbone whose answer state says whether both words of a pair are equal, and nothing else."""

    def __init__(self, model: LanguageModel) -> None:
        self.inner = make_backbone(model)
        self.language_model, self.width = model, 16

    def encode(self, prompts: Tensor, batch: PromptBatch) -> Encoding:
        return self.inner.encode(prompts, batch)

    def decode(self, encoding: Encoding, batch: PromptBatch) -> Tensor:
        return self.inner.decode(encoding, batch)

    def answer_state(self, encoding: Encoding, batch: PromptBatch) -> Tensor:
        truth = batch.target_ids[:, -1:].float()
        return torch.cat([truth, torch.ones(len(truth), 15)], dim=1)


def embed_by_topic(sentences: list[str]) -> np.ndarray:
    """One direction for each topic named in a sentence of the toy corpus (`of <topic> `)."""
    topics = ["river", "bread", "chess", "storm", "piano", "train"]
    return np.array([[float(f"of {topic} " in s) for topic in topics] for s in sentences], dtype=np.float32)


def test_the_probe_tells_a_model_that_knows_from_one_that_does_not(store: ClusterStore, gpt2: LanguageModel):
    stream = replace(stream_of(store, gpt2), renderers=stream_of(store, gpt2).renderers[2:])
    settings = probe.ProbeConfig(train=128, test=128)

    def rows(backbone: object) -> list[probe.ProbeRow]:
        return probe.probe_formats(
            stream, backbone, torch.empty(0, 16), store, settings, max_batch_tokens=4000, embed=embed_by_topic
        )  # pyright: ignore[reportArgumentType]

    knowing = rows(Knowing(gpt2))
    assert [row.format for row in knowing] == ["scsp", "scss"]
    assert all(row.probe == 1.0 and row.vectors == 1.0 and row.verdict == "held" for row in knowing)
    assert [row.guess for row in knowing] == pytest.approx([0.5, 0.25])
    blank = Knowing(gpt2)
    blank.answer_state = lambda encoding, batch: torch.ones(len(batch.target_ids), 16)
    assert all(row.verdict == "nothing to select" for row in rows(blank))


@pytest.mark.parametrize("architecture", ["t5", "gpt2", "llama"])
def test_the_head_on_the_answer_state_gives_the_logits(architecture: str, make_model):
    model: LanguageModel = make_model(architecture)
    backbone = make_backbone(model)
    target = (2, 30) if model.is_seq2seq else (30,)
    examples = [PromptExample((50, 51, 52), target), PromptExample((60, 61), target)]
    batch = collate(examples, pad_id=0, device=torch.device("cpu"))
    encoding = backbone.encode(torch.randn(2, 3, 16), batch)
    state = backbone.answer_state(encoding, batch)
    scale = 16**-0.5 if architecture == "t5" and model.model.config.tie_word_embeddings else 1.0
    logits = model.model.get_output_embeddings()(state * scale)
    torch.testing.assert_close(logits, backbone.decode(encoding, batch)[:, -1], rtol=1e-4, atol=1e-4)
