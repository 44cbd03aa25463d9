"""Before and after SUPMER's long stages: `stage=probe`, `stage=plan` and `stage=export`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict

import torch
from rich.table import Table

from metashot.base.errors import ConfigError
from metashot.base.files import write_json
from metashot.engine.cells.planning import Plan
from metashot.engine.models.throughput import duration
from metashot.metaprompt.backbone import make_backbone
from metashot.metaprompt.clusters.embedding import load_encoder
from metashot.metaprompt.clusters.store import find_clusters
from metashot.metaprompt.exchange import export_learned
from metashot.metaprompt.meta.learner import PromptLearner
from metashot.metaprompt.meta.planning import Price, price_meta_training
from metashot.metaprompt.meta.probe import ProbeRow, probe_formats
from metashot.metaprompt.meta.setup import pseudo_embeddings, task_stream
from metashot.metaprompt.tuning.cell import load_task
from metashot.metaprompt.tuning.config import TuningMethod
from metashot.metaprompt.tuning.planning import planned_cuts, price_tuning
from metashot.metaprompt.tuning.starting_point import starting_point
from metashot.stages.context import RunContext
from metashot.stages.metaprompt import clusters_of, model_of, say
from metashot.stages.metaprompt_settings import meta_settings, tune_settings

PROBE_FILE, EXPORT_FOLDER = "probe.json", "export"
_TIMED_SENTENCES = 64


def probe_stage(run: RunContext) -> float:
    """Does the frozen model hold what the meta-tasks ask? Returns the probe's mean lead over guessing, in percent."""
    settings = meta_settings(run.config.supmer)
    store, model = clusters_of(run), model_of(run)
    stream = task_stream(settings, model, store)
    backbone = make_backbone(model, pseudo_embeddings(settings, model, store))
    rows = probe_formats(
        stream,
        backbone,
        torch.empty(0, backbone.width),
        store,
        run.config.probe,
        max_batch_tokens=settings.max_batch_tokens,
        embed=load_encoder(run.config.corpus.encoder),
    )
    write_json(run.output / PROBE_FILE, [asdict(row) | {"verdict": row.verdict} for row in rows])
    run.console.print(_probe_table(rows, model.spec.name))
    say(
        run,
        "verdict: 'nothing to select' means that no prompt of the frozen model can do much on this format",
    )
    return 100 * sum(row.probe - row.guess for row in rows) / len(rows)


def _probe_table(rows: Sequence[ProbeRow], model: str) -> Table:
    table = Table(
        "format", "guess", "zero-shot", "probe (95 %)", "sentence vectors", "verdict",
        title=f"what {model} holds of the meta-tasks, accuracy in percent", title_justify="left",
    )  # fmt: skip
    for row in rows:
        table.add_row(
            row.format,
            f"{100 * row.guess:.1f}",
            f"{100 * row.zero_shot:.1f}",
            f"{100 * row.probe:.1f} ({100 * row.low:.1f} to {100 * row.high:.1f})",
            "-" if row.vectors is None else f"{100 * row.vectors:.1f}",
            row.verdict,
        )
    return table


def planned(run: RunContext) -> Plan:
    """Tokens and time of `prepare`, `train` and `evaluate`. Times one step with the real weights."""
    corpus = run.config.corpus
    sentences, store = find_clusters(corpus, notify=lambda line: say(run, line))
    settings, model = tune_settings(run.config, started=False), model_of(run)
    has_data = settings.data_root or settings.data_source == "hub"
    tasks = [load_task(name, settings, model) for name in settings.tasks] if has_data else []
    prices: list[Price] = []
    if store is None:
        shown = [sentences[index] for index in range(min(_TIMED_SENTENCES, len(sentences)))]
        embed = load_encoder(corpus.encoder)
        embed(shown[:4])
        started = time.perf_counter()
        embed(shown)
        each = (time.perf_counter() - started) / len(shown)
        prices.append(Price("embedding", f"{len(sentences)} sentences", 0, 0, each * len(sentences)))
        say(run, "the corpus is not clustered yet: run stage=prepare to price what follows")
    else:
        supmer = run.config.supmer
        learner = PromptLearner(meta_settings(supmer), model, store, supmer.loop.steps)
        lines, speed = price_meta_training(learner, supmer.loop)
        if settings.tuning == TuningMethod.SUPMER:
            prices += lines
        prices += price_tuning(settings, tasks, speed)
    if not tasks:
        say(run, "tuning.data_root is not set: tuning is not priced")
    return Plan(
        _plan_table(prices),
        tuple(asdict(price) for price in prices),
        sum(price.seconds for price in prices),
        notes=tuple(planned_cuts(settings, tasks)),
    )


def _plan_table(prices: Sequence[Price]) -> Table:
    table = Table("work", "how often", title="what this would cost on this machine", title_justify="left")
    for column in ("tokens with gradients", "tokens read", "time"):
        table.add_column(column, justify="right")
    for price in prices:
        table.add_row(
            price.what,
            price.count,
            f"{price.trained_tokens:,}",
            f"{price.read_tokens:,}",
            duration(price.seconds),
        )
    total = sum(price.seconds for price in prices)
    table.add_row("in all", "", "", "", duration(total))
    return table


def export_stage(run: RunContext) -> None:
    """The prompt of `tuning.prompt_path` (supmer: the best meta-learned one) as a PEFT folder with card and psi."""
    settings = tune_settings(run.config)
    model = model_of(run)
    start = starting_point(settings, model, make_backbone(model))
    if start.prompt is None:
        raise ConfigError(
            "tuning.prompt_path",
            "is not set: there is nothing to export",
            "give a checkpoint or a prompt file",
        )
    folder = run.output / EXPORT_FOLDER
    origin = {"digests": start.digest, "method": settings.method, "weights": model.weights_digest}
    export_learned(folder, model, start.prompt, start.regularizer, origin)
    names = ", ".join(sorted(path.name for path in folder.iterdir()))
    say(run, f"exported to {folder}: {names}")
