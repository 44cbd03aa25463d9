"""What one step, one evaluation and one checkpoint of MetaICL's meta-training are."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metashot.data.task import Example
from metashot.data.tasks.source import TaskSource
from metashot.engine.models.free_memory import free_memory
from metashot.engine.models.loading import LanguageModel
from metashot.engine.models.sizes import longrope_length
from metashot.engine.scoring.request import MakeScorer
from metashot.engine.training.learner import StepReport, ensure_finite
from metashot.engine.training.optimizers import state_bytes_per_weight
from metashot.engine.training.ranks import leads, max_over_ranks, rank, world_size
from metashot.engine.training.trainable import TrainableModel
from metashot.icl.learning.batches.collate import collate
from metashot.icl.learning.batches.episode_stream import batch_identity, episode_stream, training_prompt
from metashot.icl.learning.batches.objective import LossWeights, TargetLoss
from metashot.icl.learning.batches.slices import longest_sequence, pick_slices
from metashot.icl.learning.held_out import collapsed_tasks, held_out_metrics, load_held_out
from metashot.icl.learning.training_settings import Batching, MetaTrainSettings
from metashot.icl.learning.writing.sequences import TrainingSequence
from metashot.icl.scoring.cell import PromptRules, Truncation

_log = logging.getLogger(__name__)
_GRADIENT_BYTES = 4
_KEPT_SLICES = "trainer.micro_batch_size stays %d, as it was before"
_SMALLER_SLICES = (
    "trainer.micro_batch_size was %d before, which is too many here: dropout draws anew from here"
)


class MetaLearner:
    """The `engine.learner.Learner` of MetaICL."""

    def __init__(
        self,
        settings: MetaTrainSettings,
        language_model: LanguageModel,
        pools: Mapping[str, Sequence[Example]],
        source: TaskSource,
        target_tasks: Sequence[str],
        make_scorer: MakeScorer,
    ) -> None:
        self._settings = settings
        self._language_model = language_model
        self._task_names = list(pools)
        self._make_scorer = make_scorer
        self._rules = PromptRules(
            settings.method,
            training_prompt(settings, language_model.tokenizer),
            Truncation.SHARED,
            settings.episodes.limits,
            language_model.context_length,
        )
        self._stream = episode_stream(
            settings, language_model.tokenizer, language_model.context_length, pools
        )
        held_out = settings.held_out
        evaluates = settings.loop.evaluate_every > 0
        wanted = held_out.tasks or target_tasks
        self._cells = load_held_out(source, wanted, held_out, settings.method) if evaluates else []
        loss_weights = LossWeights(settings.episodes.token_weight, settings.episodes.option_weight)
        self._trainable = TrainableModel(
            language_model,
            partial(TargetLoss, loss_weights=loss_weights),
            settings.trainable,
            settings.optimizer,
            settings.loop.steps,
        )
        self._cut_told = False
        if leads():
            trained, total = self._trainable.trained_weights
            _log.info(
                "trained: %s of %s weights (%.1f %%)", f"{trained:,}", f"{total:,}", 100 * trained / total
            )
            self._tell_longrope()
        self._micro_batch_size = self._sliced()

    def _tell_longrope(self) -> None:
        """Say that rows past the original length are computed with other rotations than shorter ones (Phi 3 and later)."""
        original = longrope_length(self._language_model.model.config)
        longest = longest_sequence(self._settings, self._language_model.context_length)
        if original is not None and longest > original:
            _log.warning(
                "rows may have %d tokens: those of more than %d are computed with longrope's long factors, all others with "
                "its short ones (lower prompt.max_length to stay below)",
                longest,
                original,
            )

    def _sliced(self) -> int:
        """The number of `trainer.micro_batch_size`, or what the process with the least memory can take."""
        asked = self._settings.episodes.micro_batch_size
        if asked != "auto":
            return asked
        parameters = [one for one in self._trainable.loss.parameters() if one.requires_grad]
        pending = sum(one.numel() for one in parameters) * (
            _GRADIENT_BYTES + state_bytes_per_weight(self._settings.optimizer)
        )
        picked = pick_slices(
            self._settings,
            self._language_model.model.config,
            self._stream.first_sequences(),
            context_length=self._language_model.context_length,
            free=free_memory(str(self.device)) - pending,
            on_gpu=self.device.type == "cuda",
            processes=world_size(),
        )
        if leads():
            _log.info(picked.line())
        return -max_over_ranks(-picked.size, self.device)

    @property
    def device(self) -> torch.device:
        """This process' device."""
        return self._trainable.device

    def train_step(self, step: int, detour: int = 0) -> StepReport:
        """One optimizer step: forward and backward of this rank's micro-batches, then the update.

        A detour takes its data from behind the last step, where no other step looks.
        """
        episodes = self._settings.episodes
        drawn = step + detour * self._settings.loop.steps
        everything = self._stream.step(drawn)
        # A sequence without a scored target (an empty input in channel training) has no mean to take part with.
        counted = max(1, sum(sequence.target_tokens > 0 for sequence in everything))
        micro_batches = self._stream.micro_batches(drawn, world_size(), rank(), self._micro_batch_size)
        padded = episodes.batching is Batching.PADDED
        pad_to = longest_sequence(self._settings, self._language_model.context_length) if padded else 0
        loss = torch.zeros((), device=self.device)
        by_task = torch.zeros(len(self._task_names), device=self.device)
        for place, sequences in enumerate(micro_batches):
            # DDP and FSDP average gradients over ranks, the loss is a mean over all of them: hence the factor.
            batch = collate(sequences, episodes.batching, counted / world_size(), pad_to).to(self.device)
            loss += self._trainable.loss_backward(batch, last=place == len(micro_batches) - 1)
            by_task[list(batch.tasks)] += self._trainable.loss.by_task
        value = float(loss)
        mine = [sequence for part in micro_batches for sequence in part]
        if max_over_ranks(not np.isfinite(value), self.device):
            lost = [
                name
                for name, loss in zip(self._task_names, by_task.tolist(), strict=True)
                if not np.isfinite(loss)
            ]
            ensure_finite(
                value if not np.isfinite(value) else float("nan"),
                batch_identity(drawn, mine, self._task_names),
                lost[0] if lost else None,
            )
        report = self._trainable.updater.apply(step)
        return StepReport(
            value,
            len(mine),
            sum(sequence.target_tokens for sequence in mine),
            report,
            sum(sequence.tokens for sequence in mine),
            self._means(mine, (by_task * counted / world_size()).tolist()),
        )

    def _means(
        self, sequences: Sequence[TrainingSequence], losses: list[float]
    ) -> dict[str, tuple[float, float]]:
        """`loss/<task>` and the share of demonstrations of which a token limit took something."""
        counts = Counter(sequence.task for sequence in sequences if sequence.target_tokens)
        shown = sum(sequence.demonstrations for sequence in sequences)
        cut = sum(sequence.demonstrations_cut for sequence in sequences)
        if shown and cut > shown / 2 and leads() and not self._cut_told:
            self._cut_told = True
            _log.warning(
                "of %d demonstrations in a step, %d lose tokens to prompt.max_length=%d or max_length_per_example=%d",
                shown,
                cut,
                self._rules.limits.sequence,
                self._rules.limits.per_example,
            )
        by_task = {
            f"loss/{name}": (losses[task], float(counts[task])) for task, name in enumerate(self._task_names)
        }
        return {**by_task, "demonstrations_cut": (float(cut), float(shown))}

    def set_learning_rate(self, rate: float) -> None:
        """Step at this rate from here on, whatever the schedule."""
        updater = self._trainable.updater
        updater.settings = replace(updater.settings, learning_rate=rate, schedule="constant", warmup_steps=0)

    def evaluate(self, step: int) -> dict[str, float]:
        """Means over the held-out cells; warns where a task gets one answer for all inputs."""
        shared = not self._trainable.sharded
        with self._trainable.scoring():
            metrics = held_out_metrics(
                self._language_model, self._cells, self._rules, self._make_scorer, shared=shared
            )
        if leads() and (collapsed := collapsed_tasks(metrics)):
            _log.warning(
                "step %d: held-out tasks get one answer whatever the input: %s", step, "; ".join(collapsed)
            )
        return metrics

    def weights(self) -> dict[str, Tensor]:
        """The model's weights."""
        return self._trainable.weights()

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Put weights back."""
        self._trainable.load_weights(weights)

    def state(self) -> Any:
        """Optimizer and loss-scale state, and how steps are sliced, on which what dropout draws depends."""
        return {**self._trainable.state(), "micro_batch_size": self._micro_batch_size}

    def load_state(self, state: Any) -> None:
        """Put the state back; slices stay as they were unless less fits here."""
        self._trainable.load_state(state)
        kept = int(state.get("micro_batch_size", self._micro_batch_size))
        if leads() and kept != self._micro_batch_size:
            _log.info(_KEPT_SLICES if kept < self._micro_batch_size else _SMALLER_SLICES, kept)
        self._micro_batch_size = min(kept, self._micro_batch_size)

    def export(self, folder: Path) -> None:
        """Config and tokenizer, so that the checkpoint loads as `model=local`."""
        self._trainable.export(folder)
