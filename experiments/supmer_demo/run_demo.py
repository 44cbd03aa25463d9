"""What a meta-learned prompt is good for, where the frozen model holds what a prompt can select.

    python experiments/supmer_demo/run_demo.py

A small language model that can compare phrases by subject or by tone (`backbone.py`), unlabelled text clustered by
MiniLM, prompts meta-learned from those clusters, and few-shot tuning of tasks in domain and under a shift
(`downstream.py`), in two settings that exchange the roles of subject and tone. Writes `results/results.jsonl`,
`table.md` and `curves.svg`. A run that was cut goes on where it was; finished seeds stay.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from backbone import BackboneSize, abilities, train_backbone, word_tokenizer, word_vectors
from downstream import TASKS, DownstreamTask, corpus_text, in_context, test_sets, training_set
from report_demo import write_report
from rows import Curve, accuracies, tune_rows
from starts import PROMPT_LENGTH, VARIANTS, meta_learn
from world import ATTRIBUTES, Attribute

from metashot.data.corpus import CorpusSpec
from metashot.data.sentences import SentenceRules
from metashot.engine.files import append_lines, read_lines
from metashot.engine.models.loading import LanguageModel, ModelSpec, load_model
from metashot.engine.training.optimizers import OptimizerSettings
from metashot.metaprompt.backbone import make_backbone
from metashot.metaprompt.clusters.clustering import ClusterSpec
from metashot.metaprompt.clusters.embedding import EncoderSpec
from metashot.metaprompt.clusters.store import ClusterStore, PrepareSettings, prepare_clusters
from metashot.metaprompt.soft_prompt import initial_prompt
from metashot.metaprompt.tuning.loop import LabelledSet, TrainRules, tune
from metashot.metaprompt.tuning.tunable import FullTunable, PeftPromptTunable, Tunable

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Sizes:
    """What decides the running time.

    Attributes:
        backbones: seeds of backbones.
        meta_seeds: meta-trainings from each backbone.
        data_seeds: draws of the downstream examples.
        backbone_steps: training steps of a backbone.
        outer_steps: of a meta-training.
        tuning_steps: of a downstream tuning.
        shots: downstream training examples per label.
        test_size: questions of each test set.
        learning_rates: of prompt tuning; every row is tuned with each.
        full_learning_rate: of full fine-tuning.
    """

    backbones: int = 3
    meta_seeds: int = 3
    data_seeds: int = 4
    backbone_steps: int = 1000
    outer_steps: int = 100
    tuning_steps: int = 40
    shots: int = 4
    test_size: int = 300
    learning_rates: tuple[float, ...] = (0.02,)
    full_learning_rate: float = 1e-3

    def look_at(self) -> tuple[int, ...]:
        """Numbers of tuning steps after which the tests are taken."""
        return (*(step for step in (0, 5, 10, 20) if step < self.tuning_steps), self.tuning_steps)


@dataclass(frozen=True, slots=True)
class Job:
    """The rows of one meta-training seed: `main` is the attribute that the clusters are about."""

    main: Attribute
    backbone: int
    meta_seed: int


def make_backbone_folder(folder: Path, seed: int, sizes: Sizes) -> None:
    """Train the backbone of `seed` and write it, with what it can do, unless it is there."""
    torch.set_num_threads(1)
    if (folder / "abilities.json").is_file():
        return
    size = BackboneSize(steps=sizes.backbone_steps)
    started = time.process_time()
    model = train_backbone(size, word_vectors(size.width), seed, lambda line: print(line, flush=True))
    model.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    found = {"backbone": seed, "cpu_seconds": time.process_time() - started, "abilities": abilities(model)}
    (folder / "abilities.json").write_text(json.dumps(found) + "\n")


def clusters(main: Attribute, folder: Path) -> ClusterStore:
    """Unlabelled text about the main attribute's first six groups, clustered by MiniLM."""
    path = folder / f"{main}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(corpus_text(main, documents=180, phrases_per_document=4, seed=0))
    return prepare_clusters(
        PrepareSettings(
            CorpusSpec(f"demo-{main}", "text", str(path), None, "train", "text", "paragraph", 0),
            SentenceRules("en", 5, 3, 200, 2),
            EncoderSpec("all-MiniLM-L6-v2", 64, 1024, "cpu"),
            ClusterSpec(6, 16, 100, 4, 0, 500, 2),
        ),
        notify=lambda _: None,
    )


def run_job(job: Job, sizes: Sizes, work: Path) -> list[dict[str, object]]:
    """All rows of one job."""
    torch.set_num_threads(1)
    started = time.process_time()
    model = load_model(ModelSpec("demo", "local", str(work / f"backbone-{job.backbone}"), device="cpu"))
    store = clusters(job.main, work / "corpus")
    learned = {
        name: meta_learn(
            variant, model, store, sizes.outer_steps, job.meta_seed,
            work / "meta" / f"{job.main}-{job.backbone}-{job.meta_seed}" / name.replace(", ", "-"),
        )
        for name, variant in VARIANTS.items()
    }  # fmt: skip
    psi = learned["meta-learned, mixing, psi"].regularizer
    rows: list[dict[str, object]] = []
    backbone = make_backbone(model)
    for data_seed in range(sizes.data_seeds):
        start = initial_prompt(model, PROMPT_LENGTH, "vocabulary", 1000 + 100 * job.meta_seed + data_seed)
        prompts = {
            "vocabulary": (start, None),
            "vocabulary, psi": (start, psi),
            "multi-task": (learned["multi-task"].prompt, None),
            "multi-task, psi": (learned["multi-task"].prompt, psi),
            **{name: (one.prompt, one.regularizer) for name, one in learned.items() if name != "multi-task"},
        }
        for task in TASKS:
            train = training_set(task, job.main, sizes.shots, data_seed)
            tests = test_sets(task, job.main, sizes.test_size)
            about = {**asdict(job), "data_seed": data_seed, "task": task.name}
            for rate in sizes.learning_rates:
                _, curve = tune_rows(
                    backbone, torch.stack([p for p, _ in prompts.values()]), [r for _, r in prompts.values()],
                    train, tests, steps=sizes.tuning_steps, batch_size=8, learning_rate=rate,
                    seed=data_seed, look_at=sizes.look_at(),
                )  # fmt: skip
                rows += [
                    {**about, "method": name, "learning_rate": rate, "curve": _of_row(curve, place)}
                    for place, name in enumerate(prompts)
                ]
            if job.meta_seed == 0:
                rows += _without_meta_seed(model, task, train, tests, start, sizes, data_seed, about)
    seconds = time.process_time() - started
    return [*rows, {**asdict(job), "cpu_seconds": seconds}]


def _of_row(curve: Curve, place: int) -> dict[str, dict[str, float]]:
    return {str(step): {name: values[place] for name, values in at.items()} for step, at in curve.items()}


def _without_meta_seed(
    model: LanguageModel,
    task: DownstreamTask,
    train: LabelledSet,
    tests: dict[str, LabelledSet],
    start: torch.Tensor,
    sizes: Sizes,
    data_seed: int,
    about: dict[str, object],
) -> list[dict[str, object]]:
    """Methods that know no meta-training: the whole model, PEFT's prompt, and the examples in context."""
    backbone = make_backbone(model)
    shown = {name: in_context(train, test) for name, test in tests.items()}
    nothing = torch.empty(1, 0, backbone.width)
    curve = {"0": {name: accuracies(backbone, nothing, test)[0] for name, test in shown.items()}}
    rows: list[dict[str, object]] = [{**about, "method": "in context", "learning_rate": None, "curve": curve}]
    trained: tuple[tuple[str, float, Callable[[], Tunable]], ...] = (
        ("PEFT prompt tuning", sizes.learning_rates[0], lambda: PeftPromptTunable(backbone, start.clone())),
        ("full fine-tuning", sizes.full_learning_rate, lambda: FullTunable(backbone)),
    )
    for name, rate, make in trained:
        rules = TrainRules(
            sizes.tuning_steps, 8, 65536, sizes.tuning_steps, "last", "verbalizers", dropout=False,
            optimizer=OptimizerSettings(learning_rate=rate),
        )  # fmt: skip
        tunable = make()
        try:
            done = tune(tunable, model, train, train, tests, rules, data_seed)
        finally:
            tunable.close()
        at_end = {test: answers.accuracy("verbalizers") for test, answers in done.tests.items()}
        curve = {str(sizes.tuning_steps): at_end}
        rows.append({**about, "method": name, "learning_rate": rate, "curve": curve})
    return rows


def main() -> None:
    """Run what is missing and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in asdict(Sizes()).items():
        many = {"nargs": "+"} if isinstance(default, tuple) else {}
        kind = float if isinstance(default, (float, tuple)) else int
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=default, **many)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, default=HERE / "results")
    parser.add_argument(
        "--work", type=Path, default=Path("outputs/supmer_demo"), help="backbones and checkpoints"
    )
    arguments = vars(parser.parse_args())
    workers, output, work = arguments.pop("workers"), arguments.pop("output"), arguments.pop("work").resolve()
    sizes = Sizes(**{**arguments, "learning_rates": tuple(arguments["learning_rates"])})
    output.mkdir(parents=True, exist_ok=True)
    started, results = time.monotonic(), output / "results.jsonl"
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        folders = [work / f"backbone-{seed}" for seed in range(sizes.backbones)]
        list(pool.map(make_backbone_folder, folders, range(sizes.backbones), [sizes] * sizes.backbones))
        for attribute in ATTRIBUTES:
            clusters(attribute, work / "corpus")
        done = {
            (row["main"], row["backbone"], row["meta_seed"])
            for row in (read_lines(results) if results.is_file() else [])
            if "cpu_seconds" in row
        }
        jobs = [
            Job(attribute, backbone, meta_seed)
            for meta_seed in range(sizes.meta_seeds)
            for backbone in range(sizes.backbones)
            for attribute in ATTRIBUTES
            if (attribute, backbone, meta_seed) not in done
        ]
        futures = [pool.submit(run_job, job, sizes, work) for job in jobs]
        for job, future in zip(jobs, futures, strict=True):
            append_lines(results, future.result())
            print(f"{job}: {time.monotonic() - started:.0f} s", flush=True)
    print(write_report(output, work))


if __name__ == "__main__":
    main()
