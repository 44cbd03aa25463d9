"""What a meta-learned prompt is good for, where the frozen model holds what a prompt can select.

    python experiments/supmer_demo/run_demo.py

A small language model that can compare phrases by subject or by tone, for what agrees or for what differs
(`backbone.py`), unlabelled text clustered by MiniLM, prompts meta-learned from those clusters, and few-shot tuning of
tasks in domain and under a shift (`downstream.py`), in two settings that exchange the roles of subject and tone.
Writes `results/results.jsonl`, `table.md` and `curves.svg`. A run that was cut goes on where it was, and finished seeds
stay; the same command started twice shares the work.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from backbone import BackboneSize, abilities, train_backbone, word_tokenizer, word_vectors
from downstream import (
    TASKS,
    DownstreamTask,
    asks_for_difference,
    behind_fillers,
    corpus_text,
    in_context,
    test_sets,
    training_set,
)
from filelock import FileLock, Timeout
from report_demo import write_report
from rows import Curve, accuracies, tune_rows
from starts import INNER_RATE, PROMPT_LENGTH, VARIANTS, meta_learn
from torch import Tensor
from world import ATTRIBUTES, Attribute, opposite

from metashot.base.files import append_lines, read_lines
from metashot.data.text.sentences import SentenceRules
from metashot.engine.models.loading import LanguageModel, load_model
from metashot.engine.models.sources import LocalModel
from metashot.engine.training.config import OptimizerConfig
from metashot.metaprompt.backbone import make_backbone
from metashot.metaprompt.clusters.clustering import ClusterConfig
from metashot.metaprompt.clusters.embedding import EncoderConfig
from metashot.metaprompt.clusters.store import ClusterStore, CorpusConfig, prepare_clusters
from metashot.metaprompt.soft_prompt import initial_prompt
from metashot.metaprompt.tuning.adapters import peft_prompt_model
from metashot.metaprompt.tuning.config import SelectOn
from metashot.metaprompt.tuning.loop import TrainRules, tune
from metashot.metaprompt.tuning.tunable import FullTunable, PeftPromptTunable, Tunable

HERE = Path(__file__).parent
RESULTS = "results.jsonl"
FIRST_BACKBONE = 31
"""Seed of the first backbone; 1, 11, 12 and 21 served to choose rates and noise."""
STARTS = 5
"""Starts of a backbone before the demonstration ends."""
DESCENT = OptimizerConfig(learning_rate=INNER_RATE, clip_norm=0.0, algorithm=torch.optim.SGD)
"""How prompts are tuned: by the inner step of meta-training, again and again; the rate falls linearly to 0."""
ADAMW = OptimizerConfig(learning_rate=0.06)
"""The other rule, so that no start is judged by one that does not suit it."""
WHOLE_MODEL = OptimizerConfig(learning_rate=1e-3)
LEAST_ABILITY = 0.95
"""Accuracy of a backbone on its worst kind of told question below which the demonstration has no premise."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What decides the running time.

    Attributes:
        backbones: seeds of backbones, for each setting.
        meta_seeds: meta-trainings from each backbone.
        data_seeds: draws of the downstream examples.
        backbone_steps: training steps of a backbone on all kinds of questions.
        outer_steps: of a meta-training.
        tuning_steps: of a downstream tuning.
        shots: downstream training examples per label.
        test_size: questions of each test set.
    """

    backbones: int = 4
    meta_seeds: int = 3
    data_seeds: int = 4
    backbone_steps: int = 1200
    outer_steps: int = 300
    tuning_steps: int = 40
    shots: int = 4
    test_size: int = 80

    def look_at(self, task: DownstreamTask) -> tuple[int, ...]:
        """Numbers of tuning steps after which the tests are taken."""
        steps = (0,) if task.shifted else (0, 1, 2, 5, 10, 20)
        return (*(step for step in steps if step < self.tuning_steps), self.tuning_steps)


@dataclass(frozen=True, slots=True)
class Job:
    """The rows of one meta-training seed, numbered from 1; `main` is the attribute that clusters and tasks are about.

    The backbone's habit is the other attribute. Seed 0 is for the methods that know no meta-training.
    """

    main: Attribute
    backbone: int
    meta_seed: int


def backbone_folder(job: Job, sizes: Sizes, work: Path) -> Path:
    """The job's backbone with what it can do, trained unless it is there."""
    folder = work / f"backbone-{job.main}-{job.backbone}"
    with FileLock(f"{folder}.lock"):
        if not (folder / "abilities.json").is_file():
            size, started = BackboneSize(steps=sizes.backbone_steps), time.process_time()
            habit = opposite(job.main)
            vectors = word_vectors(size.width)
            say = partial(print, f"{folder.name}:", flush=True)
            starts = (
                train_backbone(size, vectors, habit, seed, say) for seed in backbone_seeds(job.backbone)
            )
            given_up, model = next(
                ((count, found) for count, found in enumerate(starts) if found is not None), (None, None)
            )
            if model is None:
                raise SystemExit(
                    f"{folder.name} learned nothing from {STARTS} starts: give BackboneSize more first_steps"
                )
            able = abilities(model)
            told = min(accuracy for name, accuracy in able.items() if not name.endswith("not told"))
            if told < LEAST_ABILITY:
                raise SystemExit(
                    f"{folder.name} answers only {told:.0%} of some told questions: there is nothing to select yet "
                    "(give more --backbone-steps)"
                )
            model.save_pretrained(folder)
            word_tokenizer().save_pretrained(folder)
            found = {
                "main": job.main,
                "backbone": job.backbone,
                "given_up": given_up,
                "cpu_seconds": time.process_time() - started,
                "abilities": able,
            }
            (folder / "abilities.json").write_text(json.dumps(found) + "\n")
    return folder


def backbone_seeds(backbone: int) -> Iterator[int]:
    """The seeds to start a backbone from, one after the other until one learns both attributes."""
    return (backbone + 100 * attempt for attempt in range(STARTS))


def clusters(main: Attribute, folder: Path) -> ClusterStore:
    """Unlabelled text about the main attribute's first six groups, clustered by MiniLM."""
    path = folder / f"{main}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(corpus_text(main, documents=180, phrases_per_document=4, seed=0))
    return prepare_clusters(
        CorpusConfig(
            f"demo-{main}",
            "text",
            str(path),
            None,
            "train",
            "text",
            "paragraph",
            0,
            sentences=SentenceRules("en", 5, 3, 200, 2),
            encoder=EncoderConfig("all-MiniLM-L6-v2", 64, 1024, "cpu"),
            clusters=ClusterConfig(6, 16, 100, 4, 0, 500, 2),
        ),
        notify=lambda _: None,
    )


def run_job(job: Job, sizes: Sizes, work: Path) -> list[dict[str, object]]:
    """All rows of one job."""
    folder = backbone_folder(job, sizes, work)
    started = time.process_time()
    model = load_model(LocalModel("demo", str(folder), device="cpu"))
    rows = _meta_rows(job, model, sizes, work) if job.meta_seed else _control_rows(job, model, sizes)
    return [*rows, {**asdict(job), "cpu_seconds": time.process_time() - started}]


def _meta_rows(job: Job, model: LanguageModel, sizes: Sizes, work: Path) -> list[dict[str, object]]:
    """Prompts of every start, tuned side by side."""
    store = clusters(job.main, work / "corpus")
    trained = {
        name: meta_learn(
            variant, model, store, sizes.outer_steps, job.meta_seed,
            work / "meta" / f"{job.main}-{job.backbone}-{job.meta_seed}" / name.replace(", ", "-"),
        )
        for name, variant in VARIANTS.items()
    }  # fmt: skip
    learned = {name: found for name, (found, _) in trained.items()}
    own_psi = {name: found.regularizer for name, found in learned.items()}
    psi = own_psi["meta-learned, mixing"]
    rows: list[dict[str, object]] = [
        {**asdict(job), "start": name, "held_out_losses": losses} for name, (_, losses) in trained.items()
    ]
    backbone = make_backbone(model)
    for data_seed in range(1, sizes.data_seeds + 1):
        start = initial_prompt(model, PROMPT_LENGTH, "vocabulary", 1000 + 100 * job.meta_seed + data_seed)
        prompts = {"vocabulary": start, **{name: found.prompt for name, found in learned.items()}}
        by_descent = {
            **{name: (prompt, None) for name, prompt in prompts.items()},
            **{f"{name}, psi": (prompt, own_psi.get(name) or psi) for name, prompt in prompts.items()},
        }
        by_adamw = {f"{name}, AdamW": (prompt, None) for name, prompt in prompts.items()}
        for task in TASKS:
            train = training_set(task, job.main, sizes.shots, data_seed)
            tests = test_sets(task, job.main, sizes.test_size, differ=asks_for_difference(data_seed))
            about = {**asdict(job), "data_seed": data_seed, "task": task.name}
            for tuned, optimizer in ((by_descent, DESCENT), (by_adamw, ADAMW)):
                _, curve = tune_rows(
                    backbone, torch.stack([p for p, _ in tuned.values()]), [r for _, r in tuned.values()],
                    train, tests, steps=sizes.tuning_steps, batch_size=8, optimizer=optimizer,
                    seed=data_seed, look_at=sizes.look_at(task),
                )  # fmt: skip
                for place, name in enumerate(tuned):
                    rows.append({**about, "method": name, "curve": _of_row(curve, place)})
    return rows


def _of_row(curve: Curve, place: int) -> dict[str, dict[str, float]]:
    return {str(step): {name: values[place] for name, values in at.items()} for step, at in curve.items()}


def _control_rows(job: Job, model: LanguageModel, sizes: Sizes) -> list[dict[str, object]]:
    """The whole model, PEFT's prompt, and the examples in context.

    Without a prompt four fillers stand in front, as in the backbone's training.
    """
    backbone = make_backbone(model)
    nothing = torch.empty(1, 0, backbone.width)
    trained: tuple[tuple[str, OptimizerConfig, Callable[[Tensor], Tunable]], ...] = (
        (
            "PEFT prompt tuning",
            DESCENT,
            lambda start: PeftPromptTunable(backbone, peft_prompt_model(model, start)),
        ),
        ("full fine-tuning", WHOLE_MODEL, lambda _: FullTunable(backbone)),
    )
    rows: list[dict[str, object]] = []
    for data_seed in range(1, sizes.data_seeds + 1):
        start = initial_prompt(model, PROMPT_LENGTH, "vocabulary", 1100 + data_seed)
        for task in TASKS:
            train = training_set(task, job.main, sizes.shots, data_seed)
            tests = test_sets(task, job.main, sizes.test_size, differ=asks_for_difference(data_seed))
            about = {**asdict(job), "data_seed": data_seed, "task": task.name}
            shown = {name: behind_fillers(in_context(train, test)) for name, test in tests.items()}
            curve = {"0": {name: accuracies(backbone, nothing, test)[0] for name, test in shown.items()}}
            rows.append({**about, "method": "in context", "curve": curve})
            for name, optimizer, make in trained:
                rules = TrainRules(
                    sizes.tuning_steps, 8, 65536, sizes.tuning_steps, SelectOn.LAST, "verbalizers", dropout=False,
                    optimizer=optimizer,
                )  # fmt: skip
                tunable = make(start.clone())
                wrap = behind_fillers if isinstance(tunable, FullTunable) else lambda data: data
                given = wrap(train)
                try:
                    done = tune(
                        tunable, model, train=given, dev=given, tests={key: wrap(test) for key, test in tests.items()},
                        rules=rules, seed=data_seed,
                    )  # fmt: skip
                finally:
                    tunable.close()
                at_end = {test: answers.accuracy("verbalizers") for test, answers in done.tests.items()}
                rows.append({**about, "method": name, "curve": {str(sizes.tuning_steps): at_end}})
    return rows


def work_through(sizes: Sizes, work: Path, output: Path) -> None:
    """Do every job that is neither done nor in the hands of another process."""
    torch.set_num_threads(1)
    (work / "locks").mkdir(parents=True, exist_ok=True)
    seeds = [range(sizes.meta_seeds + 1), range(FIRST_BACKBONE, FIRST_BACKBONE + sizes.backbones)]
    for job in [Job(main, b, m) for b in seeds[1] for m in seeds[0] for main in ATTRIBUTES]:
        try:
            with FileLock(work / "locks" / f"{job.main}-{job.backbone}-{job.meta_seed}", timeout=0):
                if job in finished(output):
                    continue
                rows = run_job(job, sizes, work)
                with FileLock(work / "locks" / "results"):
                    append_lines(output / RESULTS, rows)
                print(f"{job}: {rows[-1]['cpu_seconds']:.0f} CPU s", flush=True)
        except Timeout:
            continue


def finished(output: Path) -> set[Job]:
    """The jobs whose rows are all there."""
    path = output / RESULTS
    rows = read_lines(path) if path.is_file() else iter(())
    return {Job(row["main"], row["backbone"], row["meta_seed"]) for row in rows if "cpu_seconds" in row}


def main() -> None:
    """Run what is missing and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in asdict(Sizes()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, default=HERE / "results")
    parser.add_argument(
        "--work", type=Path, default=Path("outputs/supmer_demo"), help="backbones and checkpoints"
    )
    arguments = vars(parser.parse_args())
    workers, output, work = (
        arguments.pop("workers"),
        arguments.pop("output"),
        arguments.pop("work").resolve(),
    )
    sizes = Sizes(**arguments)
    output.mkdir(parents=True, exist_ok=True)
    started, context = time.monotonic(), get_context("spawn")
    processes = [
        context.Process(target=work_through, args=(sizes, work, output), daemon=True) for _ in range(workers)
    ]
    # Ending by the exit handlers takes the workers along.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit("a worker failed; start the same command again to go on")
    print(write_report(output, work))
    print(f"{time.monotonic() - started:.0f} s by the clock")


if __name__ == "__main__":
    main()
