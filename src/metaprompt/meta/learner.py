"""The outer loop's state for `engine.loop`: prompt, psi, their optimizers and the running similarity."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from metashot.base.files import write_json
from metashot.engine.models.loading import LanguageModel
from metashot.engine.training.learner import StepReport, ensure_finite
from metashot.engine.training.optimizers import OptimizerConfig, Updater, build_optimizer
from metashot.metaprompt.backbone import make_backbone
from metashot.metaprompt.clusters.store import ClusterStore
from metashot.metaprompt.meta.config import MetaConfig
from metashot.metaprompt.meta.drawing.tasks import MetaTask
from metashot.metaprompt.meta.held_out import held_out_metrics
from metashot.metaprompt.meta.setup import (
    make_regularizer,
    outer_rules,
    pseudo_embeddings,
    regularizer_config,
    task_stream,
)
from metashot.metaprompt.meta.steps.interpolation import update_similarity
from metashot.metaprompt.meta.steps.outer_loop import mixing_weights, outer_step
from metashot.metaprompt.soft_prompt import check_positions, initial_prompt, load_prompt, save_prompt

PROMPT_FILE = "prompt.safetensors"
REGULARIZER_FILE = "regularizer.json"
_MIXING_STREAM, _DROPOUT_STREAM = 3, 5
_REGULARIZER_PREFIX = "regularizer."


class PromptLearner:
    """The outer loop's state: prompt, psi, their optimizers and the running similarity (`engine.learner.Learner`)."""

    def __init__(
        self, settings: MetaConfig, language_model: LanguageModel, store: ClusterStore, total_steps: int
    ) -> None:
        self.settings = settings
        self._total_steps = total_steps
        self.stream = task_stream(settings, language_model, store)
        self.backbone = make_backbone(language_model, pseudo_embeddings(settings, language_model, store))
        self.centroids = torch.from_numpy(np.array(store.centroids))
        width = self.backbone.width
        start = (
            load_prompt(Path(settings.prompt_path), width)
            if settings.prompt_path
            else initial_prompt(language_model, settings.prompt_length, settings.prompt_init, settings.seed)
        )
        check_positions(
            language_model,
            len(start),
            settings.max_context_tokens,
            ("supmer.prompt_length", "supmer.max_context_tokens"),
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

    def train_step(self, step: int, detour: int = 0) -> StepReport:
        """One outer step: draw tasks, compute gradients, update prompt and psi, move the curriculum.

        A detour takes its tasks from behind the last step, where no other step looks.
        """
        drawn = step + detour * self._total_steps
        tasks = self.stream.step_tasks(drawn)
        seed = self.settings.seed
        weights = mixing_weights(
            tasks,
            [self.query_batch[task.format] for task in tasks],
            similarity=self.similarity,
            rules=self.rules,
            generator=np.random.default_rng([seed, _MIXING_STREAM, drawn]),
        )
        torch.manual_seed(
            int(np.random.default_rng([seed, _DROPOUT_STREAM, drawn]).integers(2**62))
        )  # dropout
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
        tasks = self.stream.test_tasks(self.settings.test_tasks_per_format, self.settings.test_queries)
        self.backbone.language_model.model.eval()
        psi = self.regularizer if self.rules.regularize else None
        return held_out_metrics(
            self.backbone, psi, self.prompt, tasks, self.settings.inner_lr, self.rules.passes
        )

    def weights(self) -> dict[str, Tensor]:
        """Prompt and psi."""
        named = {f"{_REGULARIZER_PREFIX}{name}": t for name, t in self.regularizer.state_dict().items()}
        return {"prompt": self.prompt.data, **named}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Put back prompt and psi."""
        self.prompt.data.copy_(weights["prompt"])
        self.regularizer.load_state_dict(regularizer_state(weights))

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


def regularizer_state(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Psi's part of a checkpoint's weights, under its own names."""
    start = len(_REGULARIZER_PREFIX)
    return {name[start:]: t for name, t in weights.items() if name.startswith(_REGULARIZER_PREFIX)}


def _updater(named: list[tuple[str, nn.Parameter]], settings: OptimizerConfig, total_steps: int) -> Updater:
    return Updater([p for _, p in named], build_optimizer(named, settings), settings, total_steps)
