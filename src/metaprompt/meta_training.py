"""Meta-training of a soft prompt and its gradient regularizer: `stage=train` of the prompt methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.checkpoint import CheckpointStore, read_checkpoint
from engine.errors import CheckpointError, ConfigError
from engine.files import write_json
from engine.loop import (
    LoopSettings,
    MetricSink,
    StepReport,
    TrainingOutcome,
    ensure_finite,
    run_training,
)
from engine.models import LanguageModel
from engine.optimizers import OptimizerSettings, Updater, build_optimizer
from metaprompt.backbone import make_backbone
from metaprompt.cluster_store import ClusterStore
from metaprompt.domains import split_domains
from metaprompt.formats import RenderRules, bind_format, load_format
from metaprompt.inner_loop import PassRules, adapt, query_accuracy, support_pass
from metaprompt.interpolation import update_similarity
from metaprompt.meta_tasks import MetaTask, TaskStream, check_stream
from metaprompt.outer_loop import OuterRules, mixing_weights, outer_step
from metaprompt.pseudo_tokens import cluster_embeddings, load_cluster_vectors
from metaprompt.regularizer import GradientRegularizer, RegularizerConfig
from metaprompt.released_behaviour import ReleasedBehaviour, released_behaviour
from metaprompt.soft_prompt import initial_prompt, load_prompt, save_prompt

PROMPT_FILE = "prompt.safetensors"
REGULARIZER_FILE = "regularizer.json"
_MIXING_STREAM = 3
_REGULARIZER_PREFIX = "regularizer."


@dataclass(frozen=True, slots=True)
class MetaSettings:
    """`conf/supmer/*.yaml`; the field names are its keys.

    Attributes:
        prompt_length: virtual tokens.
        prompt_init: `vocabulary` or `random`.
        prompt_path: a prompt to start from, or None.
        formats: meta-task formats by name (or YAML files), in order.
        tasks_per_step: tasks of one outer step.
        steps_per_draw: outer steps that share one format.
        max_context_tokens: context limit, soft prompt not counted.
        max_batch_tokens: padded tokens of one forward pass.
        inner_lr: alpha.
        second_order: differentiate through the inner gradient.
        coefficient_weight: weight of the coefficient loss.
        concentration: a of Beta(a, a c).
        curriculum_base: m of the curriculum.
        similarity_decay: weight of the past in the running similarity.
        held_out_fraction: share of documents kept for held-out tasks.
        min_domain_sentences: fewest sentences of a training domain.
        test_tasks_per_format: held-out tasks per format in an evaluation.
        pseudo_tokens: `input_embeddings`, or an .npy file of given vectors.
        dropout: run the model with its dropout in training.
        max_skipped_tasks: stop after so many tasks with a non-finite loss or gradient.
        seed: of prompt, psi, tasks, mixing and dropout.
        regularizer: psi's shape.
        prompt_optimizer: outer optimizer of the prompt.
        regularizer_optimizer: outer optimizer of psi.
        as_released: do all as the released code.
        switches: single oddities on or off; null follows `as_released`.
    """

    prompt_length: int
    prompt_init: str
    prompt_path: str | None
    formats: tuple[str, ...]
    tasks_per_step: int
    steps_per_draw: int
    max_context_tokens: int
    max_batch_tokens: int
    inner_lr: float
    second_order: bool
    coefficient_weight: float
    concentration: float
    curriculum_base: float
    similarity_decay: float
    held_out_fraction: float
    min_domain_sentences: int
    test_tasks_per_format: int
    pseudo_tokens: str
    dropout: bool
    max_skipped_tasks: int
    seed: int
    regularizer: RegularizerConfig
    prompt_optimizer: OptimizerSettings
    regularizer_optimizer: OptimizerSettings
    as_released: bool
    switches: Mapping[str, bool | None]

    def __post_init__(self) -> None:
        """Raise ConfigError for a value outside its rule."""
        for key in ("tasks_per_step", "steps_per_draw", "max_context_tokens", "max_batch_tokens"):
            if getattr(self, key) < 1:
                raise ConfigError(f"supmer.{key}", f"{getattr(self, key)}", "give at least 1")
        if not 0 < self.held_out_fraction < 1:
            raise ConfigError(
                "supmer.held_out_fraction", f"{self.held_out_fraction}", "give a share between 0 and 1"
            )
        if not self.formats:
            raise ConfigError("supmer.formats", "is empty", "give at least one of nsp, nss, scsp, scss, scc")

    def behaviour(self) -> ReleasedBehaviour:
        """The oddities that are on."""
        return released_behaviour(self.as_released, self.switches)


def regularizer_config(config: RegularizerConfig, behaviour: ReleasedBehaviour) -> RegularizerConfig:
    """Psi's shape with the released ReLU branch where that oddity is on."""
    if not behaviour.learned_branch_relu:
        return config
    return replace(config, residual=False, last_activation="relu", init="normal")


def make_regularizer(width: int, config: RegularizerConfig, seed: int) -> GradientRegularizer:
    """Psi with its start fixed by `seed`, without touching the global generator's state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GradientRegularizer(width, config)


def task_stream(settings: MetaSettings, language_model: LanguageModel, store: ClusterStore) -> TaskStream:
    """The meta-tasks of a run.

    Raises:
        DataError: a verbalizer that is not one token, or a corpus without eligible domains.
        ConfigError: fewer eligible domains than a task needs.
    """
    behaviour = settings.behaviour()
    rules = RenderRules(
        settings.max_context_tokens,
        bare_pieces=behaviour.bare_label_pieces,
        released_truncation=behaviour.released_truncation,
        third_position=behaviour.third_position,
    )
    domains = split_domains(
        store,
        held_out_fraction=settings.held_out_fraction,
        min_sentences=settings.min_domain_sentences,
        seed=settings.seed,
    )
    renderers = tuple(
        bind_format(
            load_format(name), language_model.tokenizer, rules, is_seq2seq=language_model.is_seq2seq
        )
        for name in settings.formats
    )
    stream = TaskStream(
        renderers,
        domains["meta_train"],
        domains["meta_test"],
        settings.seed,
        settings.tasks_per_step,
        settings.steps_per_draw,
        behaviour.repeats,
    )
    check_stream(stream, {name: part for name, part in domains.items()})
    return stream


class MetaLearner:
    """The outer loop's state: prompt, psi, their optimizers and the running similarity (`engine.loop.Learner`)."""

    def __init__(
        self, settings: MetaSettings, language_model: LanguageModel, store: ClusterStore, total_steps: int
    ) -> None:
        self.settings = settings
        self.stream = task_stream(settings, language_model, store)
        self.backbone = make_backbone(language_model, _pseudo_tokens(settings, language_model, store))
        self.centroids = torch.from_numpy(np.array(store.centroids))
        width = self.backbone.width
        start = (
            load_prompt(Path(settings.prompt_path), width)
            if settings.prompt_path
            else initial_prompt(language_model, settings.prompt_length, settings.prompt_init, settings.seed)
        )
        device = language_model.device
        self.prompt = nn.Parameter(start.to(device))
        self.regularizer_config = regularizer_config(settings.regularizer, settings.behaviour())
        self.regularizer = make_regularizer(width, self.regularizer_config, settings.seed).to(device)
        self.updaters = {
            "prompt": _updater([("prompt", self.prompt)], settings.prompt_optimizer, total_steps),
            "regularizer": _updater(
                list(self.regularizer.named_parameters()), settings.regularizer_optimizer, total_steps
            ),
        }
        self.rules = outer_rules(settings)
        self.query_batch = {r.format.name: r.format.query_batch for r in self.stream.renderers}
        self.similarity = 0.0
        self.skipped = 0

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return self.prompt.device

    def train_step(self, step: int) -> StepReport:
        """One outer step: draw tasks, compute gradients, update prompt and psi, move the curriculum."""
        tasks = self.stream.step_tasks(step)
        seed = self.settings.seed
        weights = mixing_weights(
            tasks,
            [self.query_batch[task.format] for task in tasks],
            similarity=self.similarity,
            rules=self.rules,
            generator=np.random.default_rng([seed, _MIXING_STREAM, step]),
        )
        torch.manual_seed(int(np.random.default_rng([seed, 5, step]).integers(2**62)))  # dropout
        model = self.backbone.language_model.model.train(self.settings.dropout)
        result = outer_step(
            self.backbone,
            self.regularizer,
            self.prompt,
            tasks,
            weights,
            self.centroids,
            self.rules,
            first_of_run=step == 0,
        )
        model.eval()
        self._count_skipped(result.skipped, tasks, step)
        metrics = dict(result.metrics)
        if len(result.skipped) < len(tasks):
            metrics |= self._update(result.prompt_gradient, result.regularizer_gradients, step)
            self.similarity = update_similarity(
                self.similarity, result.gradient_similarity, self.settings.similarity_decay
            )
        sound = [float(loss) for i, loss in enumerate(result.losses) if i not in result.skipped]
        metrics |= {"running_similarity": self.similarity, "skipped_tasks": float(self.skipped)}
        examples = sum(len(task.support) + len(task.query) for task in tasks)
        targets = sum(len(e.target_ids) for task in tasks for e in (*task.support, *task.query))
        return StepReport(sum(sound) / max(1, len(sound)), examples, targets, metrics)

    def _update(self, prompt: Tensor, regularizer: tuple[Tensor, ...], step: int) -> dict[str, float]:
        self.prompt.grad = prompt
        for parameter, gradient in zip(self.regularizer.parameters(), regularizer, strict=True):
            parameter.grad = gradient
        return {
            f"{name}_{key}": value
            for name, updater in self.updaters.items()
            for key, value in updater.apply(step).items()
        }

    def _count_skipped(self, skipped: tuple[int, ...], tasks: list[MetaTask], step: int) -> None:
        self.skipped += len(skipped)
        if self.skipped > self.settings.max_skipped_tasks:
            batch = [{"format": tasks[i].format, "clusters": list(tasks[i].clusters)} for i in skipped]
            ensure_finite(float("nan"), {"step": step, "skipped_so_far": self.skipped, "tasks": batch})

    def evaluate(self, step: int) -> dict[str, float]:
        """Query loss and accuracy on held-out tasks, before and after one regularized inner step."""
        del step
        tasks = self.stream.test_tasks(self.settings.test_tasks_per_format)
        self.backbone.language_model.model.eval()
        queries, labels = [task.query for task in tasks], [task.label_ids for task in tasks]
        prompts = self.prompt.detach().expand(len(tasks), *self.prompt.shape).clone().requires_grad_()
        support = support_pass(self.backbone, prompts, [t.support for t in tasks], self.rules.passes)
        with torch.no_grad():
            regularized, coefficient = self.regularizer(support.gradients, support.states)
            adapted = adapt(self.prompt.detach(), regularized, self.settings.inner_lr)
        before, accuracy_before = query_accuracy(
            self.backbone, prompts, queries, labels, self.rules.passes
        )
        loss, accuracy = query_accuracy(self.backbone, adapted, queries, labels, self.rules.passes)
        metrics = {
            "query_loss": float(loss.mean()),
            "query_accuracy": float(accuracy.mean()),
            "query_loss_unadapted": float(before.mean()),
            "query_accuracy_unadapted": float(accuracy_before.mean()),
            "coefficient": float(coefficient.mean()),
        }
        for name in dict.fromkeys(task.format for task in tasks):
            own = [index for index, task in enumerate(tasks) if task.format == name]
            metrics[f"{name}_query_loss"] = float(loss[own].mean())
            metrics[f"{name}_query_accuracy"] = float(accuracy[own].mean())
        return metrics

    def weights(self) -> dict[str, Tensor]:
        """Prompt and psi."""
        named = {f"{_REGULARIZER_PREFIX}{name}": t for name, t in self.regularizer.state_dict().items()}
        return {"prompt": self.prompt.data, **named}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Put back prompt and psi."""
        self.prompt.data.copy_(weights["prompt"])
        self.regularizer.load_state_dict(_without_prefix(weights))

    def state(self) -> Any:
        """Optimizers, running similarity and the count of skipped tasks."""
        optimizers = {name: updater.optimizer.state_dict() for name, updater in self.updaters.items()}
        return {"optimizers": optimizers, "similarity": self.similarity, "skipped": self.skipped}

    def load_state(self, state: Any) -> None:
        """Put back what `state` gave."""
        for name, updater in self.updaters.items():
            updater.optimizer.load_state_dict(state["optimizers"][name])
        self.similarity, self.skipped = float(state["similarity"]), int(state["skipped"])

    def export(self, folder: Path) -> None:
        """The prompt alone and psi's shape, so that prompt tuning needs nothing else."""
        save_prompt(folder / PROMPT_FILE, self.prompt)
        write_json(folder / REGULARIZER_FILE, asdict(self.regularizer_config))


def outer_rules(settings: MetaSettings) -> OuterRules:
    """The constants of an outer step."""
    behaviour = settings.behaviour()
    return OuterRules(
        inner_lr=settings.inner_lr,
        second_order=settings.second_order,
        coefficient_weight=settings.coefficient_weight,
        concentration=settings.concentration,
        curriculum_base=settings.curriculum_base,
        last_task_only=behaviour.last_task_only,
        constant_similarity=behaviour.constant_similarity,
        passes=PassRules(
            settings.max_batch_tokens,
            settings.max_context_tokens if behaviour.state_over_padding else None,
            state_over_padding=behaviour.state_over_padding,
            mix_padding=behaviour.mix_padding,
        ),
    )


def meta_train(
    settings: MetaSettings,
    language_model: LanguageModel,
    store: ClusterStore,
    loop: LoopSettings,
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
    learner = MetaLearner(settings, language_model, store, loop.steps)
    identity = {
        **{f"supmer.{key}": value for key, value in asdict(settings).items()},
        "model": language_model.weights_digest,
        "tokenizer": language_model.tokenizer_digest,
        "corpus": store.digest,
        "trainer.steps": loop.steps,
    }
    method = {
        "family": "prompt",
        "model": language_model.spec.name,
        "weights_digest": language_model.weights_digest,
        "regularizer": asdict(learner.regularizer_config),
    }
    higher = loop.best_metric not in ("query_loss", "query_loss_unadapted")
    return run_training(
        learner,
        loop,
        CheckpointStore(checkpoints, identity, method, keep_last, keep_best, higher_is_better=higher),
        sink,
    )


@dataclass(frozen=True, slots=True)
class MetaLearned:
    """What meta-training hands on: the prompt [P, d], psi, and the digest of its checkpoint's weights."""

    prompt: Tensor
    regularizer: GradientRegularizer
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
    regularizer = GradientRegularizer(prompt.shape[1], RegularizerConfig(**method["regularizer"]))
    regularizer.load_state_dict(_without_prefix(checkpoint.weights))
    digest = checkpoint.manifest["files"]["model.safetensors"]["sha256"]
    return MetaLearned(prompt, regularizer.requires_grad_(False).eval(), digest)


def _without_prefix(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    start = len(_REGULARIZER_PREFIX)
    return {name[start:]: t for name, t in weights.items() if name.startswith(_REGULARIZER_PREFIX)}


def _updater(
    named: list[tuple[str, nn.Parameter]], settings: OptimizerSettings, total_steps: int
) -> Updater:
    return Updater([p for _, p in named], build_optimizer(named, settings), settings, total_steps)


def _pseudo_tokens(
    settings: MetaSettings, language_model: LanguageModel, store: ClusterStore
) -> Tensor | None:
    if "scc" not in settings.formats:
        return None
    if settings.pseudo_tokens == "input_embeddings":
        vectors = cluster_embeddings(store, language_model, settings.seed)
    else:
        width = language_model.model.get_input_embeddings().weight.shape[1]
        vectors = load_cluster_vectors(Path(settings.pseudo_tokens), store.count, int(width))
    return vectors.to(language_model.device)
