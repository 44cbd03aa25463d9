"""Meta-training of a soft prompt and its gradient regularizer: `stage=train` of the prompt methods."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from metashot.base.errors import CheckpointError
from metashot.base.identity import deciding_fields
from metashot.engine.models.loading import LanguageModel
from metashot.engine.training.checkpoint import CheckpointStore, read_checkpoint
from metashot.engine.training.learner import MetricSink
from metashot.engine.training.loop import LoopConfig, TrainingOutcome, run_training
from metashot.engine.training.randomness import seed_everything
from metashot.metaprompt.clusters.store import ClusterStore
from metashot.metaprompt.meta.config import MetaConfig
from metashot.metaprompt.meta.learner import PromptLearner, regularizer_state
from metashot.metaprompt.meta.steps.regularizer import GradientRegularizer, RegularizerConfig


def meta_train(
    settings: MetaConfig,
    language_model: LanguageModel,
    store: ClusterStore,
    loop: LoopConfig,
    checkpoints: Path,
    sink: MetricSink | None = None,
    *,
    keep_last: int = 2,
    keep_best: int = 1,
) -> TrainingOutcome:
    """Meta-train a prompt and psi; a folder that holds checkpoints of the same run is continued.

    Args:
        settings: the method.
        language_model: frozen; its weights are never changed.
        store: clusters of the corpus.
        loop: steps, saving, evaluation. `best_metric` is `query_loss` (lower is better) for this method.
        checkpoints: their folder.
        sink: where metrics go.
        keep_last: newest checkpoints to keep.
        keep_best: further ones to keep by `best_metric`.

    Raises:
        DivergedError: more than `max_skipped_tasks` tasks gave NaN.
    """
    # Nothing here draws from the global generators, but checkpoints hold their state.
    seed_everything(settings.seed)
    learner = PromptLearner(settings, language_model, store, loop.steps)
    identity = {
        **{f"supmer.{key}": value for key, value in deciding_fields(settings).items()},
        **{f"supmer.loop.{key}": value for key, value in deciding_fields(loop).items()},
        "model": language_model.weights_digest,
        "tokenizer": language_model.tokenizer_digest,
        "corpus": store.digest,
    }
    method = {
        "family": "prompt",
        "model": language_model.spec.name,
        "weights_digest": language_model.weights_digest,
        "regularizer": asdict(learner.regularizer_config) if settings.regularize else None,
    }
    higher = loop.best_metric not in ("query_loss", "query_loss_unadapted")
    return run_training(
        learner,
        loop,
        CheckpointStore(checkpoints, identity, method, keep_last, keep_best, higher_is_better=higher),
        sink,
        node="supmer.loop",
    )


@dataclass(frozen=True, slots=True)
class MetaLearned:
    """What meta-training hands on: the prompt [P, d], psi (None where `supmer.regularize=false`), and a digest."""

    prompt: Tensor
    regularizer: GradientRegularizer | None
    digest: str


def load_meta_learned(folder: Path, width: int | None = None) -> MetaLearned:
    """Prompt and frozen psi of one of our checkpoints.

    Args:
        folder: a `step-...` folder.
        width: the model's embedding width, checked when given.

    Raises:
        CheckpointError: damaged, of another kind, or of another width.
    """
    checkpoint = read_checkpoint(folder)
    method = checkpoint.manifest["method"]
    if method.get("family") != "prompt":
        raise CheckpointError(str(folder), "is no checkpoint of SUPMER meta-training", "give a step-* folder")
    prompt = checkpoint.weights["prompt"].clone()
    if width is not None and prompt.shape[1] != width:
        raise CheckpointError(
            str(folder),
            f"prompt of width {prompt.shape[1]}, but the model's embeddings have width {width}",
            f"use the model it was made for ({method['model']})",
        )
    digest = checkpoint.manifest["files"]["model.safetensors"]["sha256"]
    if method["regularizer"] is None:
        return MetaLearned(prompt, None, digest)
    regularizer = GradientRegularizer(prompt.shape[1], RegularizerConfig(**method["regularizer"]))
    regularizer.load_state_dict(regularizer_state(checkpoint.weights))
    return MetaLearned(prompt, regularizer.requires_grad_(False).eval(), digest)
