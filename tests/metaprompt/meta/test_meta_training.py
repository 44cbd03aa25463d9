"""Meta-training end to end on tiny models: resume after a kill, skipping, oddities, what comes out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metashot.base.errors import CheckpointError, ConfigError, DataError
from metashot.engine.models.loading import LanguageModel
from metashot.engine.training.checkpoint import checkpoint_folders, verify
from metashot.engine.training.learner import DivergedError
from metashot.engine.training.loop import LoopConfig
from metashot.engine.training.optimizers import OptimizerConfig
from metashot.metaprompt.backbone import input_embeddings
from metashot.metaprompt.clusters.pseudo_tokens import cluster_embeddings, load_cluster_vectors
from metashot.metaprompt.clusters.store import ClusterStore
from metashot.metaprompt.meta.config import MetaConfig
from metashot.metaprompt.meta.learner import PromptLearner
from metashot.metaprompt.meta.released_behaviour import released_behaviour
from metashot.metaprompt.meta.setup import outer_rules
from metashot.metaprompt.meta.steps.regularizer import RegularizerConfig
from metashot.metaprompt.meta.training import load_meta_learned, meta_train
from metashot.metaprompt.soft_prompt import load_prompt

SETTINGS = MetaConfig(
    prompt_length=3,
    prompt_init="vocabulary",
    prompt_path=None,
    formats=("nsp", "nss", "scsp", "scss", "scc"),
    examples_per_set=4,
    tasks_per_step=2,
    steps_per_draw=2,
    max_context_tokens=120,
    max_batch_tokens=2000,
    inner_lr=0.1,
    second_order=False,
    interpolate=True,
    regularize=True,
    coefficient_weight=1.0,
    concentration=1.0,
    curriculum_base=2.0,
    similarity_decay=0.5,
    held_out_fraction=0.25,
    min_domain_sentences=8,
    test_tasks_per_format=1,
    test_queries=0,
    pseudo_tokens="input_embeddings",
    dropout=True,
    max_skipped_tasks=1,
    seed=0,
    regularizer=RegularizerConfig(4, 1, True, "none", "near_identity", "row_l2", 8),
    prompt_optimizer=OptimizerConfig(learning_rate=0.05),
    regularizer_optimizer=OptimizerConfig(learning_rate=1e-3),
    as_released=False,
    switches={},
)
LOOP = LoopConfig(
    steps=5, save_every=1, evaluate_every=2, log_every=1, best_metric="query_loss", progress=False
)


class Killed(BaseException):
    """Stands for a kill: nothing in the loop may catch it."""


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["t5", "gpt2"])
@pytest.mark.parametrize("second_order", [False, True])
def test_resume_after_a_kill_changes_no_bit(
    architecture: str,
    second_order: bool,
    store: ClusterStore,
    make_model: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Dropout on, mid-draw, between evaluations: prompt, psi, optimizers, curriculum and RNG all come back."""
    settings = replace(SETTINGS, second_order=second_order)
    model: LanguageModel = make_model(architecture, 0.1)
    whole = meta_train(settings, model, store, LOOP, tmp_path / "whole")
    original = PromptLearner.train_step

    def dying(self: PromptLearner, step: int):
        if step == 3:
            original(self, step)  # the update was made in memory, but never saved
            raise Killed
        return original(self, step)

    monkeypatch.setattr(PromptLearner, "train_step", dying)
    with pytest.raises(Killed):
        meta_train(settings, make_model(architecture, 0.1), store, LOOP, tmp_path / "cut")
    monkeypatch.undo()
    torch.manual_seed(12345)
    np.random.seed(1)  # noqa: NPY002 - a fresh process has other global states
    resumed = meta_train(settings, make_model(architecture, 0.1), store, LOOP, tmp_path / "cut")
    assert whole.checkpoint is not None
    assert resumed.checkpoint is not None
    assert verify(whole.checkpoint)["files"] == verify(resumed.checkpoint)["files"]
    assert resumed.step == 5


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["t5", "gpt2"])
def test_resume_after_sigkill_of_a_process(architecture: str, tmp_path: Path):
    """The same through `run.py`, killed with SIGKILL as soon as a checkpoint is there."""
    root = Path(__file__).parents[3]
    command = [
        sys.executable, "run.py", "method=supmer", "stage=train", "model=tiny", f"model.path={architecture}",
        "supmer=small", "supmer.formats=[scsp]", "supmer.prompt_length=2", "supmer.examples_per_set=2",
        "supmer.tasks_per_step=1", "supmer.loop.steps=30", "supmer.loop.save_every=1",
        "supmer.loop.evaluate_every=0", "supmer.loop.progress=false",
    ]  # fmt: skip
    environment = {**os.environ, "METASHOT_CACHE": str(tmp_path / "cache")}

    def start(name: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*command, f"results_root={tmp_path / name}"], cwd=root, env=environment)

    assert start("whole").wait() == 0
    process = start("cut")
    checkpoints = tmp_path / "cut" / "supmer" / "tiny-demo"
    while len(checkpoint_folders(checkpoints)) < 2 and process.poll() is None:
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert start("cut").wait() == 0
    last = [checkpoint_folders(tmp_path / name / "supmer" / "tiny-demo")[-1] for name in ("whole", "cut")]
    assert last[0].name == last[1].name == "step-00000030"
    assert verify(last[0])["files"] == verify(last[1])["files"]


def test_a_checkpoint_of_other_settings_is_not_continued(
    store: ClusterStore, gpt2: LanguageModel, tmp_path: Path
):
    short = replace(LOOP, steps=1, evaluate_every=0)
    meta_train(SETTINGS, gpt2, store, short, tmp_path)
    with pytest.raises(CheckpointError, match=r"supmer\.inner_lr is 0\.1 there, 0\.2 here"):
        meta_train(replace(SETTINGS, inner_lr=0.2), gpt2, store, short, tmp_path)


def test_without_an_inner_step_a_held_out_task_is_answered_by_the_prompt_as_it_is(
    store: ClusterStore, gpt2: LanguageModel, tmp_path: Path
):
    multi_task = replace(SETTINGS, inner_lr=0.0, interpolate=False, regularize=False)
    outcome = meta_train(multi_task, gpt2, store, replace(LOOP, steps=2), tmp_path)
    assert outcome.metrics["query_loss"] == outcome.metrics["query_loss_unadapted"]
    assert load_meta_learned(outcome.checkpoint).regularizer is None


def test_what_training_hands_on(store: ClusterStore, gpt2: LanguageModel, tmp_path: Path):
    before = gpt2.model.state_dict()["transformer.wte.weight"].clone()
    outcome = meta_train(SETTINGS, gpt2, store, replace(LOOP, steps=2), tmp_path)
    assert outcome.checkpoint is not None
    learned = load_meta_learned(outcome.checkpoint, width=16)
    assert learned.prompt.shape == (3, 16)
    assert torch.equal(load_prompt(outcome.checkpoint / "prompt.safetensors"), learned.prompt)
    out, coefficient = learned.regularizer(torch.randn(3, 16), torch.randn(16))
    assert out.shape == (3, 16)
    assert 0 < float(coefficient) < 1
    assert torch.equal(gpt2.model.state_dict()["transformer.wte.weight"], before)
    assert {"query_loss", "query_accuracy", "query_loss_unadapted"} <= outcome.metrics.keys()
    with pytest.raises(CheckpointError, match="prompt of width 16, but the model's embeddings have width 48"):
        load_meta_learned(outcome.checkpoint, width=48)


def test_nan_tasks_are_counted_and_end_the_run(store: ClusterStore, gpt2: LanguageModel, tmp_path: Path):
    learner = PromptLearner(SETTINGS, gpt2, store, 10)
    with torch.no_grad():
        learner.prompt.fill_(float("nan"))
    with pytest.raises(DivergedError):
        learner.train_step(0)
    patient = PromptLearner(replace(SETTINGS, max_skipped_tasks=2), gpt2, store, 10)
    kept = {name: p.detach().clone() for name, p in patient.regularizer.named_parameters()}
    with torch.no_grad():
        patient.prompt.fill_(float("nan"))
    report = patient.train_step(0)
    assert report.metrics["skipped_tasks"] == 2
    assert patient.similarity == 0.0
    assert all(torch.equal(p, kept[name]) for name, p in patient.regularizer.named_parameters())


@pytest.mark.slow
def test_meta_training_lowers_the_loss(store: ClusterStore, make_model: Any):
    """Held-out query loss after 30 outer steps is below that at the start."""
    settings = replace(SETTINGS, formats=("scsp",), dropout=False)
    learner = PromptLearner(settings, make_model("llama"), store, 30)
    start = learner.evaluate(0)["query_loss"]
    for step in range(30):
        learner.train_step(step)
    assert learner.evaluate(30)["query_loss"] < start


def test_as_released_turns_on_every_oddity_and_each_can_be_set_alone():
    on, off = released_behaviour(True, {}), released_behaviour(False, {})
    names = on.__dataclass_fields__
    assert all(getattr(on, name) for name in names)
    assert not any(getattr(off, name) for name in names)
    assert released_behaviour(True, {"repeats": False}).repeats is False
    assert released_behaviour(False, {"repeats": True, "mix_padding": None}).repeats is True
    with pytest.raises(ConfigError, match=r"supmer\.switches\.last_task: no such switch.*last_task_only"):
        released_behaviour(True, {"last_task": True})


def test_released_switches_reach_the_step(store: ClusterStore, t5: LanguageModel):
    released = PromptLearner(replace(SETTINGS, as_released=True), t5, store, 10)
    ours = PromptLearner(SETTINGS, t5, store, 10)
    rules = outer_rules(replace(SETTINGS, as_released=True))
    assert (rules.last_task_only, rules.constant_similarity) == (True, True)
    assert (rules.passes.pad_to, rules.passes.state_over_padding, rules.passes.mix_padding) == (
        120,
        True,
        True,
    )
    assert (outer_rules(SETTINGS).passes.pad_to, outer_rules(SETTINGS).last_task_only) == (None, False)
    gradient = torch.randn(5, 16)
    assert (released.regularizer.direction(gradient) >= 0).all()
    assert (ours.regularizer.direction(gradient) < 0).any()
    lengths = {
        len(example.target_ids) for task in released.stream.step_tasks(0) for example in task.support
    } | {len(example.target_ids) for task in ours.stream.step_tasks(0) for example in task.support}
    assert lengths <= {2, 3}
    assert released.stream.repeats
    assert not ours.stream.repeats
    released.train_step(0)
    released.train_step(1)
    assert released.train_step(2).metrics["gradient_similarity"] == 0.5


def test_the_mean_state_leaves_padding_out_unless_released(language_model: LanguageModel):
    from metashot.metaprompt.backbone import make_backbone
    from metashot.metaprompt.batch import PromptExample, collate

    backbone = make_backbone(language_model)
    target = (2, 30) if language_model.is_seq2seq else (30,)
    prompt = torch.randn(1, 2, backbone.width)
    short, long = (
        backbone.encode(
            prompt,
            collate([PromptExample((20, 21, 22), target)], pad_id=0, device=torch.device("cpu"), length=n),
        )
        for n in (3, 12)
    )
    corrected = [e.mean(over_padding=False) for e in (short, long)]
    released = [e.mean(over_padding=True) for e in (short, long)]
    torch.testing.assert_close(corrected[0], corrected[1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(released[0], released[1], rtol=1e-3)


def test_pseudo_tokens_have_the_vocabulary_s_norm(store: ClusterStore, gpt2: LanguageModel, tmp_path: Path):
    vectors = cluster_embeddings(store, gpt2, 0)
    norm = input_embeddings(gpt2).norm(dim=1).mean()
    torch.testing.assert_close(vectors.norm(dim=1), norm.expand(6))
    centered = cluster_embeddings(store, gpt2, 0, centered=True)
    torch.testing.assert_close(centered.norm(dim=1), norm.expand(6))
    off = ~torch.eye(6, dtype=torch.bool)

    def likeness(rows: torch.Tensor) -> float:
        unit = rows / rows.norm(dim=1, keepdim=True)
        return float((unit @ unit.T)[off].mean())

    assert likeness(centered) < 0 < likeness(vectors)
    np.save(tmp_path / "given.npy", np.ones((6, 16), dtype=np.float32))
    assert torch.equal(load_cluster_vectors(tmp_path / "given.npy", 6, 16), torch.ones(6, 16))
    with pytest.raises(DataError, match=r"shape \(6, 16\), but 6 clusters of width 48 are needed"):
        load_cluster_vectors(tmp_path / "given.npy", 6, 48)
