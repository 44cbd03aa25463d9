"""The prompts that the demonstration compares, and how each comes about."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from metashot.engine.models.loading import LanguageModel
from metashot.engine.training.checkpoint import verify
from metashot.engine.training.config import LoopConfig, OptimizerConfig
from metashot.metaprompt import prompt_starts
from metashot.metaprompt.clusters.store import ClusterStore
from metashot.metaprompt.meta.config import LayerInit, MetaConfig, RegularizerConfig, Rescale
from metashot.metaprompt.meta.training import MetaLearned, load_meta_learned, meta_train

FORMATS = tuple(
    str(Path(__file__).parent / "formats" / f"{name}.yaml")
    for name in ("pairs", "pairs_that_differ", "options", "odd_option")
)
"""Each relation in both senses, in the same words: before its examples are seen, no prompt is right for both."""
PROMPT_LENGTH = 4
INNER_RATE, REGULARIZER_RATE = 1.0, 2e-3
STARTS = 2
"""Most starts of a meta-training."""
LEARNED = 0.1
"""Nats on held-out meta-tasks, after an inner step, at which no other start of a meta-training is tried."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to meta-train.

    Attributes:
        inner_lr: of the inner step; 0 is plain multi-task training of the prompt.
        interpolate: mix query sets.
        regularize: learn psi.
        outer_lr: of the prompt's optimizer.
    """

    inner_lr: float
    interpolate: bool
    regularize: bool
    outer_lr: float


VARIANTS = {
    "multi-task": Variant(0.0, interpolate=False, regularize=False, outer_lr=0.02),
    "meta-learned": Variant(INNER_RATE, interpolate=False, regularize=True, outer_lr=0.05),
    "meta-learned, mixing": Variant(INNER_RATE, interpolate=True, regularize=True, outer_lr=0.05),
}
"""Both meta-learned prompts are learned together with their psi; it may be left out when they are tuned.

Each outer rate is the better of 0.02 and 0.05 on backbones that are not those of the demonstration.
"""


def meta_settings(variant: Variant, seed: int) -> MetaConfig:
    """The product's meta-training at the size of this demonstration."""
    return MetaConfig(
        prompt_length=PROMPT_LENGTH,
        prompt_init=prompt_starts.STARTS["vocabulary"],
        prompt_path=None,
        formats=FORMATS,
        examples_per_set=None,
        tasks_per_step=4,
        steps_per_draw=1,
        max_context_tokens=40,
        max_batch_tokens=16384,
        inner_lr=variant.inner_lr,
        second_order=False,
        interpolate=variant.interpolate,
        regularize=variant.regularize,
        coefficient_weight=1.0,
        concentration=1.0,
        curriculum_base=2.0,
        similarity_decay=0.5,
        held_out_fraction=0.1,
        min_domain_sentences=24,
        test_tasks_per_format=2,
        test_queries=400,
        pseudo_tokens="input_embeddings",
        dropout=False,
        max_skipped_tasks=0,
        seed=seed,
        regularizer=RegularizerConfig(
            rank=32,
            hidden_layers=1,
            residual=True,
            last_activation="none",
            init=LayerInit.NEAR_IDENTITY,
            rescale=Rescale.ROW_L2,
            coefficient_width=24,
        ),
        prompt_optimizer=OptimizerConfig(learning_rate=variant.outer_lr, weight_decay=0.0),
        regularizer_optimizer=OptimizerConfig(learning_rate=REGULARIZER_RATE, weight_decay=0.0),
        as_released=False,
        switches={},
    )


def meta_learn(
    variant: Variant, model: LanguageModel, store: ClusterStore, steps: int, seed: int, folder: Path
) -> tuple[MetaLearned, list[float]]:
    """The best of up to two meta-trainings below `folder`, and their losses on held-out meta-tasks in nats.

    Some stay where either answer is as likely as the other. Held-out meta-tasks tell: another start is made then, by
    the same rule for every variant; downstream examples have no say.
    """
    loop = LoopConfig(
        steps=steps, save_every=0, log_every=steps, evaluate_every=steps, best_metric="query_loss", progress=False
    )  # fmt: skip
    found: list[tuple[float, Path]] = []
    while len(found) < STARTS and all(loss > LEARNED for loss, _ in found):
        start = seed + 100 * len(found)
        outcome = meta_train(meta_settings(variant, start), model, store, loop, folder / str(start))
        found.append((verify(outcome.checkpoint)["metric"], outcome.checkpoint))
    return load_meta_learned(min(found)[1]), [loss for loss, _ in found]
