"""The claim of MetaICL on a CPU: meta-training on some families of tasks pays on families never seen.

    python experiments/metaicl_demo/run_demo.py

One small raw language model (`base_model.py`); for each of 5 seeds MetaICL, Channel MetaICL and the two multi-task
zero-shot models trained from it on `data=synthetic`, and all of them, with the raw model in context, evaluated on
families of tasks that were not trained. Writes `results/results.jsonl`, `table.md` and `accuracy.svg`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from base_model import make_base_model
from report_demo import write_report

from metashot.data.tasks.synthetic import SyntheticSource
from metashot.engine.models.loading import LanguageModel, load_model
from metashot.engine.models.sources import LocalModel
from metashot.engine.scoring.plain import PlainScorer
from metashot.engine.training.config import LoopConfig, OptimizerConfig, adamw
from metashot.icl.learning.held_out import HeldOutConfig, held_out_metrics, load_held_out
from metashot.icl.learning.meta_training import train
from metashot.icl.learning.training_settings import EpisodeConfig, MetaTrainSettings
from metashot.icl.prompting.config import BoundPrompt
from metashot.icl.prompting.frame import MetaiclFrame
from metashot.icl.prompting.methods import Method
from metashot.icl.prompting.prompt import Layout, LengthLimits, Objective
from metashot.icl.scoring.cell import PromptRules, Truncation

HERE = Path(__file__).parent
LIMITS = LengthLimits(64, 200)
SHOTS = (0, 1, 2, 4)
TRAIN_FAMILIES, TARGET_FAMILIES = ("word", "number"), ("name", "place")
DIRECT, CHANNEL = Objective.DIRECT, Objective.CHANNEL
METHODS = {
    "Raw, in context": Method("direct", DIRECT),
    "Raw, channel in context": Method("channel", CHANNEL),
    "MetaICL": Method("metaicl", DIRECT, trained=True),
    "Channel MetaICL": Method("channel_metaicl", CHANNEL, trained=True),
    "Multi-task 0-shot": Method("multitask_zero", DIRECT, demonstrations=False, trained=True),
    "Channel Multi-task 0-shot": Method(
        "channel_multitask_zero", CHANNEL, demonstrations=False, trained=True
    ),
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """What decides the running time.

    Attributes:
        base_steps: steps of the raw model.
        steps: meta-training steps, with demonstrations and without.
        batch: sequences of a meta-training step.
        train_tasks: training tasks.
        target_tasks: target tasks.
        test_size: test examples of a target task.
    """

    base_steps: int = 900
    steps: int = 600
    batch: int = 256
    train_tasks: int = 8000
    target_tasks: int = 100
    test_size: int = 10


def settings_for(method: Method, seed: int, sizes: Sizes) -> MetaTrainSettings:
    """Meta-training of CPU size."""
    return MetaTrainSettings(
        method=method,
        k=max(SHOTS),
        seed=seed,
        episodes=EpisodeConfig(
            pool_size=12,
            batch_size=sizes.batch,
            micro_batch_size=sizes.batch,
            bucket_batches=2,
            limits=LIMITS,
        ),
        optimizer=OptimizerConfig(learning_rate=5e-4, warmup_steps=20, algorithm=adamw(betas=(0.9, 0.98))),
        loop=LoopConfig(
            steps=sizes.steps,
            save_every=0,
            log_every=100,
            progress=False,
        ),
    )


def evaluate(model: LanguageModel, method: Method, source: SyntheticSource, k: int, seed: int) -> float:
    """Mean accuracy over the target tasks, 0..1."""
    held_out = HeldOutConfig(k=k, seeds=(seed,), test_examples=source.test_size)
    cells = load_held_out(source, source.testing_tasks(), held_out, method)
    prompt = BoundPrompt(MetaiclFrame(method.objective, Layout.NEWLINE))
    rules = PromptRules(method, prompt, Truncation.SHARED, LIMITS, model.context_length)
    return held_out_metrics(model, cells, rules, lambda network: PlainScorer(network, 64))["accuracy"]


def run_job(job: tuple[str, int], sizes: Sizes, base: Path) -> list[dict[str, object]]:
    """The rows of one method and seed, which decides tasks, data order and demonstrations; `base` holds the raw model."""
    torch.set_num_threads(1)
    name, seed = job
    method = METHODS[name]
    source = SyntheticSource(
        sizes.train_tasks, sizes.target_tasks, seed, "easy", sizes.test_size, TRAIN_FAMILIES, TARGET_FAMILIES
    )
    started = time.monotonic()
    model = load_model(LocalModel("base", str(base), device="cpu"))
    if method.trained:
        tasks = source.training_tasks(), source.testing_tasks()
        with tempfile.TemporaryDirectory() as folder:
            outcome = train(settings_for(method, seed, sizes), model, source, *tasks, Path(folder))
            model = load_model(LocalModel(method.name, str(outcome.checkpoint), device="cpu"))
    seconds = round(time.monotonic() - started, 1)
    rows: list[dict[str, object]] = []
    for k in SHOTS if method.demonstrations else (0,):
        value = evaluate(model, method, source, k, seed)
        rows.append({"method": name, "seed": seed, "k": k, "accuracy": value, "train_seconds": seconds})
        print(f"seed {seed} {name} k={k}: {100 * value:.1f}", flush=True)
    return rows


def main() -> None:
    """Run the jobs, two at a time, and write table and plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 13, 21, 42, 87])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, default=HERE / "results")
    for name, value in asdict(Sizes()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    options = parser.parse_args()
    sizes = Sizes(**{name: getattr(options, name) for name in asdict(Sizes())})
    started = time.monotonic()
    base = options.output / "base"
    make_base_model(base, 0, sizes.base_steps)
    jobs = [(name, seed) for seed in options.seeds for name in options.methods]
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        parts = pool.map(run_job, jobs, [sizes] * len(jobs), [base] * len(jobs))
        rows = [row for part in parts for row in part]
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_report(rows, options.output, {**asdict(sizes), "wall_seconds": round(time.monotonic() - started)})


if __name__ == "__main__":
    main()
