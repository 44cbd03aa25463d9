"""Does a frozen model hold what the meta-tasks ask? A linear probe on its answer state, before hours are spent.

A prompt steers what a model already computes. Where a linear classifier cannot read a format's answer off the state
that predicts it, there is little for a prompt to select. Beside it stands what sentence vectors alone can answer: is
the question answerable at all?
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metashot.base.extras import import_extra
from metashot.engine.models.sentence_encoder import Embed
from metashot.metaprompt.backbone import Backbone
from metashot.metaprompt.batch import bucket_by_length, collate
from metashot.metaprompt.clusters.store import ClusterStore
from metashot.metaprompt.meta.config import ProbeConfig
from metashot.metaprompt.meta.drawing.cuts import sample_records
from metashot.metaprompt.meta.drawing.draws import Record
from metashot.metaprompt.meta.drawing.formats import FormatRenderer
from metashot.metaprompt.meta.drawing.tasks import TaskStream
from metashot.metaprompt.meta.steps.inner_loop import pad_id

_Z = 1.96
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ProbeRow:
    """One format; all accuracies 0..1 on the test records.

    Attributes:
        format: its name.
        guess: of the most frequent answer.
        zero_shot: of the frozen model's own answers among the label words.
        probe: of a linear classifier on its answer state.
        low: lower end of the probe's 95 % interval.
        high: upper end.
        vectors: of a rule on sentence vectors, or None without an encoder.
        records: training and test records.
    """

    format: str
    guess: float
    zero_shot: float
    probe: float
    low: float
    high: float
    vectors: float | None
    records: tuple[int, int]

    @property
    def verdict(self) -> str:
        """What the numbers mean for meta-training on this format."""
        if self.low <= self.guess:
            return "nothing to select"
        if self.vectors is not None and self.probe < (self.guess + self.vectors) / 2:
            return "weak"
        return "held"


def probe_formats(
    stream: TaskStream,
    backbone: Backbone,
    prompt: Tensor,
    store: ClusterStore,
    settings: ProbeConfig,
    *,
    max_batch_tokens: int,
    embed: Embed | None = None,
) -> list[ProbeRow]:
    """Probe every format of a run.

    Args:
        stream: formats and domains.
        backbone: the frozen model.
        prompt: prompt in front of every context, [P, d]; P may be 0.
        store: clusters, for the rule on sentence vectors.
        settings: sizes.
        max_batch_tokens: padded tokens of one forward pass.
        embed: sentence encoder, or None to leave the rule out.
    """
    rows: list[ProbeRow] = []
    for renderer in stream.renderers:
        halves = [
            sample_records(stream, renderer, count, held_out=held_out, seed=settings.seed)[:count]
            for count, held_out in ((settings.train, False), (settings.test, True))
        ]
        train, test = (answer_states(backbone, prompt, renderer, half, max_batch_tokens) for half in halves)
        gold = [np.array([record.label for record in half]) for half in halves]
        right = float((fitted(train.states, gold[0]).predict(test.states) == gold[1]).mean())
        error = _Z * math.sqrt(max(right * (1 - right), 1e-9) / len(gold[1]))
        rows.append(
            ProbeRow(
                renderer.format.name,
                float(np.bincount(gold[1]).max() / len(gold[1])),
                float((test.chosen == gold[1]).mean()),
                right,
                max(0.0, right - error),
                min(1.0, right + error),
                None if embed is None else vector_rule(renderer, halves, gold, store, embed),
                (len(gold[0]), len(gold[1])),
            )
        )
    return rows


@dataclass(frozen=True, slots=True)
class AnswerStates:
    """States that predict the answer, [n, d], and the label that the model itself would choose, [n]."""

    states: Floats
    chosen: NDArray[np.int64]


def answer_states(
    backbone: Backbone,
    prompt: Tensor,
    renderer: FormatRenderer,
    records: Sequence[Record],
    max_batch_tokens: int,
) -> AnswerStates:
    """Run records through the frozen model, in their order."""
    model = backbone.language_model
    examples = renderer.examples(records, support=False)
    states = np.empty((len(examples), backbone.width))
    chosen = np.empty(len(examples), dtype=np.int64)
    position, labels = len(examples[0].target_ids) - 1, list(renderer.label_ids)
    lengths = [len(prompt) + len(example.input_ids) for example in examples]
    with torch.no_grad():
        for rows in bucket_by_length(lengths, max_batch_tokens):
            batch = collate(
                [examples[row] for row in rows],
                pad_id=pad_id(model.tokenizer.pad_token_id),
                device=model.device,
            )
            encoding = backbone.encode(prompt.to(model.device).expand(len(rows), *prompt.shape), batch)
            states[rows] = backbone.answer_state(encoding, batch).double().cpu().numpy()
            logits = backbone.decode(encoding, batch)[:, position, labels]
            chosen[rows] = logits.argmax(dim=1).cpu().numpy()
    return AnswerStates(states, chosen)


def fitted(features: Floats, labels: NDArray[np.int64]) -> Any:
    """Logistic regression on standardized features; its strength is chosen by three-fold cross-validation."""
    import_extra("sklearn", "stage=probe")
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    strengths = {"logisticregression__C": [1e-4, 1e-3, 1e-2, 1e-1, 1.0]}
    return GridSearchCV(pipeline, strengths, cv=3).fit(features, labels)


def vector_rule(
    renderer: FormatRenderer,
    halves: Sequence[Sequence[Record]],
    gold: Sequence[NDArray[np.int64]],
    store: ClusterStore,
    embed: Embed,
) -> float:
    """Accuracy of answering by cosines of sentence vectors: thresholds for pairs, the nearest option for choices."""
    features = [_cosines(renderer, half, store, embed) for half in halves]
    if renderer.format.options:
        return float((features[1].argmax(axis=1) == gold[1]).mean())
    return float((fitted(features[0], gold[0]).predict(features[1]) == gold[1]).mean())


def _cosines(
    renderer: FormatRenderer, records: Sequence[Record], store: ClusterStore, embed: Embed
) -> Floats:
    """Pairs: cosine and its square, [n, 2]; choices: the anchor's cosine with each option, [n, options]."""
    anchor = "anchor" if renderer.format.options else "first"
    first = embed([record.slots[anchor] for record in records])
    if not renderer.format.options:
        cosine = (first * embed([record.slots["second"] for record in records])).sum(axis=1)
        return np.stack([cosine, cosine**2], axis=1).astype(np.float64)
    columns: list[NDArray[np.float32]] = []
    for place in range(renderer.format.options):
        shown = [record.options[place] for record in records]
        if isinstance(shown[0], int):
            centroids = np.asarray(store.centroids)[[int(cluster) for cluster in shown]]
            vectors = centroids / np.linalg.norm(centroids, axis=1, keepdims=True)
        else:
            vectors = embed([str(text) for text in shown])
        columns.append((first * vectors).sum(axis=1))
    return np.stack(columns, axis=1).astype(np.float64)
