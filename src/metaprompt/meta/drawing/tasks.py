"""Meta-tasks: which format and domains each outer step sees, a pure function of (seed, step)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from metashot.base.errors import ConfigError
from metashot.metaprompt.batch import PromptExample
from metashot.metaprompt.meta.drawing.domains import Domains, task_halves
from metashot.metaprompt.meta.drawing.draws import DRAWS, Record, RecordsWanted
from metashot.metaprompt.meta.drawing.formats import FormatRenderer, TaskFormat

_TRAIN_STREAM, _TEST_STREAM = 1, 2


@dataclass(frozen=True, slots=True)
class MetaTask:
    """One task of an outer step.

    Attributes:
        format: name of its format.
        clusters: its own clusters.
        augmentation_clusters: those of its augmentation task.
        label_ids: id of each label piece of its format.
        support: examples of the inner step.
        query: examples of the outer loss.
        augmentation: query examples of the augmentation task, paired with `query` one by one.
    """

    format: str
    clusters: tuple[int, ...]
    augmentation_clusters: tuple[int, ...]
    label_ids: tuple[int, ...]
    support: tuple[PromptExample, ...]
    query: tuple[PromptExample, ...]
    augmentation: tuple[PromptExample, ...]


@dataclass(frozen=True, slots=True)
class TaskStream:
    """All meta-tasks of a run.

    Attributes:
        renderers: formats bound to the tokenizer, in order.
        train: domains of the training tasks.
        test: domains of the held-out tasks.
        seed: of everything drawn here.
        tasks_per_step: tasks of one outer step.
        steps_per_draw: outer steps that share a format and have distinct domains (the released "epoch": 2).
        repeats: sentences and domains may repeat within a task (released behaviour).
    """

    renderers: tuple[FormatRenderer, ...]
    train: Domains
    test: Domains
    seed: int
    tasks_per_step: int
    steps_per_draw: int
    repeats: bool

    def step_tasks(self, step: int) -> list[MetaTask]:
        """The tasks of the 0-based outer step."""
        draw, part = divmod(step, self.steps_per_draw)
        generator = np.random.default_rng([self.seed, _TRAIN_STREAM, draw])
        renderer = self.renderers[int(generator.integers(len(self.renderers)))]
        count = self.tasks_per_step * self.steps_per_draw
        domains = self.domain_sets(self.train, renderer.format, count, generator)
        chosen = domains[part * self.tasks_per_step : (part + 1) * self.tasks_per_step]
        return [
            self._task(
                self.train,
                renderer,
                own,
                np.random.default_rng([self.seed, _TRAIN_STREAM, draw, part, index]),
            )
            for index, own in enumerate(chosen)
        ]

    def test_tasks(self, per_format: int, queries: int = 0) -> list[MetaTask]:
        """Fixed held-out tasks without augmentation, `per_format` of each format.

        Args:
            per_format: tasks of each format.
            queries: fewest queries of all tasks together; each has those of its format at least.
        """
        share = -(-queries // (per_format * len(self.renderers)))
        tasks: list[MetaTask] = []
        for number, renderer in enumerate(self.renderers):
            generator = np.random.default_rng([self.seed, _TEST_STREAM, number])
            for own in self.domain_sets(self.test, renderer.format, per_format, generator):
                support, query = self._draw(self.test, renderer.format, own, generator, queries=share)
                tasks.append(
                    MetaTask(
                        renderer.format.name,
                        own,
                        own,
                        renderer.label_ids,
                        renderer.examples(support, support=True),
                        renderer.examples(query, support=False),
                        (),
                    )
                )
        return tasks

    def domain_sets(
        self, domains: Domains, format_: TaskFormat, count: int, generator: np.random.Generator
    ) -> list[tuple[int, ...]]:
        """Clusters of `count` tasks: distinct single ones, or independent tuples for cluster classification."""
        eligible = np.asarray(domains.eligible)
        width = clusters_per_task(format_)
        if width > 1:
            return [tuple(map(int, generator.choice(eligible, width, replace=False))) for _ in range(count)]
        rounds = -(-count // len(eligible))
        order = np.concatenate([generator.permutation(eligible) for _ in range(rounds)])[:count]
        return [(int(cluster),) for cluster in order]

    def _task(
        self, domains: Domains, renderer: FormatRenderer, own: tuple[int, ...], generator: np.random.Generator
    ) -> MetaTask:
        format_ = renderer.format
        other = self._augmentation_clusters(domains, own, generator)
        support, query = self._draw(domains, format_, own, generator)
        _, augmentation = self._draw(domains, format_, other, generator)
        return MetaTask(
            format_.name,
            own,
            other,
            renderer.label_ids,
            renderer.examples(support, support=True),
            renderer.examples(query, support=False),
            renderer.examples(augmentation, support=False),
        )

    def _augmentation_clusters(
        self, domains: Domains, own: tuple[int, ...], generator: np.random.Generator
    ) -> tuple[int, ...]:
        """Another random domain of the same width; unless `repeats`, not the task's own set."""
        pool = np.asarray(domains.eligible)
        if len(own) == 1 and not self.repeats and len(pool) > 1:
            pool = pool[pool != own[0]]
        return tuple(map(int, generator.choice(pool, len(own), replace=False)))

    def _draw(
        self,
        domains: Domains,
        format_: TaskFormat,
        clusters: tuple[int, ...],
        generator: np.random.Generator,
        *,
        queries: int = 0,
    ) -> tuple[list[Record], list[Record]]:
        halves = task_halves(domains, clusters, generator, shared=self.repeats)
        counts = (format_.support, max(queries, format_.query))
        support, query = (
            DRAWS[format_.draw](
                half, RecordsWanted(clusters, count, format_.options, self.repeats), generator
            )
            for half, count in zip(halves, counts, strict=True)
        )
        return support, query


def clusters_per_task(format_: TaskFormat) -> int:
    """How many clusters one task of this format is made of."""
    return format_.options if format_.draw == "cluster_choice" else 1


def check_stream(stream: TaskStream, splits: Mapping[str, Domains]) -> None:
    """Refuse a run whose corpus cannot give its tasks.

    Raises:
        ConfigError: fewer eligible clusters than one task of some format needs, with the numbers.
    """
    widest: Sequence[int] = [clusters_per_task(renderer.format) for renderer in stream.renderers]
    for name, domains in splits.items():
        if len(domains.eligible) < max(widest):
            raise ConfigError(
                "corpus.clusters.count",
                f"{len(domains.eligible)} eligible {name} clusters, but a task needs {max(widest)}",
                "give more text or clusters, lower supmer.min_domain_sentences, or leave scc out of supmer.formats",
            )
