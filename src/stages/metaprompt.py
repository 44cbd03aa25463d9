"""The stages of the prompt methods for `run.py`: config nodes in, files and tables out."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from metashot.base.files import write_json
from metashot.engine.models.loading import LanguageModel, load_model
from metashot.metaprompt.clusters.store import ClusterStore, prepare_clusters
from metashot.metaprompt.meta.drawing.cuts import describe as describe_cuts
from metashot.metaprompt.meta.drawing.cuts import measure_cuts
from metashot.metaprompt.meta.held_out import describe as describe_held_out
from metashot.metaprompt.meta.setup import task_stream
from metashot.metaprompt.meta.training import load_meta_learned, meta_train
from metashot.metaprompt.soft_prompt import nearest_tokens
from metashot.metaprompt.tuning.evaluation import TunedCells
from metashot.stages.context import RunContext
from metashot.stages.metaprompt_settings import (
    checkpoint_root,
    meta_settings,
    tune_settings,
)
from metashot.stages.training import Trained

_SHOWN_CLUSTERS, _SHOWN_TOKENS, _NEAREST = 12, 8, 4
CLUSTERS_FILE = "clusters.json"


def prepare_stage(run: RunContext) -> None:
    """Text to clusters: sentences, embeddings, k-means, and a table of what came out."""
    store = clusters_of(run)
    table = Table("cluster", "sentences", "nearest to its centroid", title="clusters")
    for row in store.report["cluster"][:_SHOWN_CLUSTERS]:
        table.add_row(str(row["id"]), str(row["size"]), row["nearest"][0][:100])
    run.console.print(table)
    write_json(run.output / CLUSTERS_FILE, store.report)


def trained(run: RunContext) -> Trained:
    """Meta-train prompt and regularizer; the figure is the last held-out query loss (lower is better)."""
    supmer = run.config.supmer
    settings = meta_settings(supmer)
    store, model = clusters_of(run), model_of(run)
    cuts = measure_cuts(task_stream(settings, model, store))
    say(run, describe_cuts(cuts, settings.max_context_tokens))
    outcome = meta_train(settings, model, store, supmer.loop, checkpoint_root(supmer), run.tracker)
    return Trained(
        outcome,
        outcome.metrics.get("query_loss", float("nan")),
        "prompt",
        outcome.checkpoint,
        (describe_held_out(outcome.metrics),) if outcome.metrics else (),
        _prompt_table(model, outcome.checkpoint),
    )


def tuned_cells(run: RunContext) -> TunedCells:
    """The cells of prompt tuning."""
    settings = tune_settings(run.config)
    if settings.prompt_path is not None:
        run.tracker.uses(Path(settings.prompt_path).expanduser())
    return TunedCells(settings, model_of(run), run.output)


def say(run: RunContext, line: str) -> None:
    """One line on the console, whatever brackets it holds."""
    run.console.print(line, soft_wrap=True, highlight=False, markup=False)


def model_of(run: RunContext) -> LanguageModel:
    """The config's model."""
    return load_model(run.config.model)


def clusters_of(run: RunContext) -> ClusterStore:
    """The config's corpus in clusters, made where they are missing."""
    return prepare_clusters(run.config.corpus, notify=lambda line: say(run, line))


def _prompt_table(model: LanguageModel, checkpoint: Path) -> Table:
    prompt = load_meta_learned(checkpoint).prompt[:_SHOWN_TOKENS]
    table = Table("prompt token", "nearest vocabulary tokens (cosine)")
    for index, near in enumerate(nearest_tokens(model, prompt, _NEAREST)):
        table.add_row(str(index), ", ".join(f"{token.piece} {token.cosine:.2f}" for token in near))
    return table
