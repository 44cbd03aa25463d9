"""How much of the meta-tasks' contexts the token limit cuts away."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from metashot.metaprompt.meta.drawing.domains import task_halves
from metashot.metaprompt.meta.drawing.draws import DRAWS, Record, RecordsWanted
from metashot.metaprompt.meta.drawing.formats import FormatRenderer
from metashot.metaprompt.meta.drawing.tasks import TaskStream

_STREAM = 8


@dataclass(frozen=True, slots=True)
class Cut:
    """Contexts of one format, before and after the limit.

    Attributes:
        format: its name.
        share: share of the contexts that lose tokens.
        kept: mean share of the tokens that stay.
        longest: tokens of the longest context before the cut.
    """

    format: str
    share: float
    kept: float
    longest: int


def sample_records(
    stream: TaskStream, renderer: FormatRenderer, count: int, *, held_out: bool, seed: int
) -> list[Record]:
    """`count` records of a format, or a few more, from random domains of one split."""
    domains = stream.test if held_out else stream.train
    generator = np.random.default_rng([stream.seed, _STREAM, seed, int(held_out)])
    per_task = max(16, renderer.format.options)
    records: list[Record] = []
    for own in stream.domain_sets(domains, renderer.format, -(-count // per_task), generator):
        half, _ = task_halves(domains, own, generator, shared=True)
        plan = RecordsWanted(own, per_task, renderer.format.options, stream.repeats)
        records += DRAWS[renderer.format.draw](half, plan, generator)
    return records


def measure_cuts(stream: TaskStream, count: int = 128) -> list[Cut]:
    """What the limit does to `count` training contexts of each format."""
    cuts: list[Cut] = []
    for renderer in stream.renderers:
        whole = replace(renderer, rules=replace(renderer.rules, max_tokens=sys.maxsize))
        records = sample_records(stream, renderer, count, held_out=False, seed=0)
        before = np.array([len(whole.context(record)) for record in records])
        after = np.array([len(renderer.context(record)) for record in records])
        cuts.append(
            Cut(
                renderer.format.name,
                float((after < before).mean()),
                float((after / before).mean()),
                int(before.max()),
            )
        )
    return cuts


def describe(cuts: Sequence[Cut], limit: int) -> str:
    """One line: which formats lose how much, and the key that changes it."""
    hit = [cut for cut in cuts if cut.share > 0]
    if not hit:
        return f"no context is cut (longest {max(cut.longest for cut in cuts)} of {limit} tokens)"
    told = ", ".join(f"{cut.format} {cut.share:.0%} (to {cut.kept:.0%} of their tokens)" for cut in hit)
    return (
        f"contexts cut by supmer.max_context_tokens={limit}: {told}; the longest has"
        f" {max(cut.longest for cut in hit)} tokens"
    )
