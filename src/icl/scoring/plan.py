"""What an evaluation would run and cost, before any weights are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from metashot.base.terminal import counted, printable
from metashot.base.value_kinds import Count, InnerShare
from metashot.data.task import TaskData
from metashot.engine.cells.family import Work
from metashot.engine.cells.planning import Plan
from metashot.engine.cells.results import Result
from metashot.engine.metrics.classification import metric_of
from metashot.engine.metrics.power import smallest_difference
from metashot.engine.models.loading import LazyLanguageModel
from metashot.engine.models.throughput import duration, matmul_flops_per_second
from metashot.engine.scoring.plan import ModelSize, ScoringPlan, plan_requests
from metashot.icl.prompting.boundary import Boundary, span_encoder
from metashot.icl.prompting.frame import MetaiclFrame
from metashot.icl.scoring.cell import Cell, PromptRules, differing_at_borders
from metashot.icl.scoring.evaluation_settings import EvaluateSettings
from metashot.icl.scoring.in_context import InContextCells, dealt
from metashot.icl.scoring.preview import preview

_COMPARED = 100
"""Test examples of a task that are tokenized in both ways."""
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_ENGINE_OVERHEAD = 1.5
"""Measured engine time over the pure arithmetic of its tokens (experiments/bench_scoring)."""


@dataclass(frozen=True, slots=True)
class PlanConfig:
    """What `stage=plan` shows."""

    show: Count = 0
    """Number of test examples whose prompts are printed, per task."""
    disagreement: InnerShare = 0.3
    """Share of test examples on which exactly one of two compared methods is right, for the smallest difference that
    the test rows would show."""


@dataclass(frozen=True, slots=True)
class CellPlan:
    """Exact counts of one cell.

    Attributes:
        task: task name.
        seed: demonstration seed.
        examples: test examples.
        k: demonstrations asked for and read.
        longest: tokens of the longest request after truncation.
        kept_fraction: share of the demonstration tokens that survive the cut.
        tokens_alone: tokens of scoring every option by itself.
        pieces: the engine's counts of each piece.
        unshared: tokens that are computed instead, where nothing is shared.
    """

    task: str
    seed: int
    examples: int
    k: int
    longest: int
    kept_fraction: float
    tokens_alone: int
    pieces: tuple[ScoringPlan, ...]
    unshared: int | None = None

    @property
    def tokens_computed(self) -> int:
        """Tokens that the engine runs through the model."""
        if self.unshared is not None:
            return self.unshared
        return sum(piece.tokens_computed for piece in self.pieces)

    def row(self) -> dict[str, Any]:
        """The counts as plain values."""
        names = (
            "task",
            "seed",
            "examples",
            "k",
            "longest",
            "kept_fraction",
            "tokens_alone",
            "tokens_computed",
        )
        return {name: getattr(self, name) for name in names}


def plan_cell(data: TaskData, cell: Cell, unshared: int | None = None) -> CellPlan:
    """Count one cell, in the pieces that one process computes."""
    kept = cell.kept_tokens / cell.demonstration_tokens if cell.demonstration_tokens else 1.0
    counts = [plan_requests([cell.requests[place] for place in cell.places(piece)]) for piece in dealt(cell)]
    longest = max(one.longest for one in counts)
    return CellPlan(
        data.task,
        data.seed,
        len(data.test),
        data.shots,
        longest,
        kept,
        unshared or cell.tokens_alone,
        tuple(counts),
        unshared,
    )


def plan_evaluation(family: InContextCells, show: PlanConfig, console: Console) -> Plan:
    """The plan of an evaluation; the prompts that `show` asks for are printed. Loads tokenizer and config, no weights."""
    settings, model, rules = family.settings, family.model, family.prompt_rules
    family.without_weights = True
    plans: list[CellPlan] = []
    results: list[Result] = []
    differing = compared = 0
    for work in family.work():
        data, cell = settings.method.prompted(family.data(work)), family.cell(work)
        plans.append(plan_cell(data, cell, family.unshared_tokens(work)))
        results.append(family.result(work, metric_of(data.task_type, data.metric), 0.0))
        if data.seed == settings.seeds[0]:
            if family.texts(work, 0) is not None:
                _show_texts(family, work, show.show, console)
                continue
            _show_prompts(data, cell, model, rules, show.show, console)
            if model.tokenizer.is_fast:
                few = data.first(_COMPARED)
                differing += differing_at_borders(few, model.encode, rules, span_encoder(model.tokenizer))
                compared += len(few.test)
    config, dtype = model.spec.read_sizes(), model.spec.dtype
    flops = sum(_flops(cell, config) for cell in plans)
    seconds = flops / matmul_flops_per_second(dtype) * _ENGINE_OVERHEAD
    lines = [boundary_line(differing, compared, settings.prompt.boundary)] if compared else []
    lines.append(estimate_line(plans, config, dtype, seconds))
    lines.append(power_line({cell.task: cell.examples for cell in plans}, show.disagreement))
    return Plan(
        _table(plans, settings, rules, model.name),
        tuple(cell.row() for cell in plans),
        seconds,
        tuple(lines),
        tuple(family.notes(results)),
    )


def _flops(plan: CellPlan, config: Any) -> float:
    """Of the pieces, in proportion where other tokens are computed than they share."""
    flops = float(sum(piece.flops(config) for piece in plan.pieces))
    shared = sum(piece.tokens_computed for piece in plan.pieces)
    return flops if plan.unshared is None else flops * plan.unshared / max(shared, 1)


def estimate_line(plans: list[CellPlan], config: Any, dtype: str, seconds: float) -> str:
    """Tokens with and without sharing, and estimates of time and memory on this machine."""
    shared = sum(cell.tokens_computed for cell in plans)
    alone = sum(cell.tokens_alone for cell in plans)
    weights = ModelSize.of(config).stored_weights * _BYTES[dtype]
    return (
        f"{counted(len(plans), 'cell')}: {shared:,} tokens to compute with sharing, {alone:,} without "
        f"({alone / max(shared, 1):.1f} times as many); about {duration(seconds)} on this machine; "
        f"{weights / 2**20:,.0f} MB of weights and up to 325 MB of working memory"
    )


def power_line(sizes: Mapping[str, int], disagreement: float) -> str:
    """One line on what a comparison on these test examples (task -> number) would find."""
    found = smallest_difference(list(sizes.values()), disagreement)
    beginning = f"compared with another method on these {sum(sizes.values()):,} test examples, "
    if found is None:
        return (
            f"{beginning}no difference would be found: they are too few (plan.disagreement={disagreement:g})"
        )
    return (
        f"{beginning}a difference of {100 * found:.1f} points is found four times in five (McNemar's test at 5 %, if exactly "
        f"one of the two is right on {100 * disagreement:.0f} % of them: plan.disagreement)"
    )


def _format(settings: EvaluateSettings, rules: PromptRules) -> str:
    """The prompt format in a few words."""
    frame = rules.prompt.frame
    layout = f" ({frame.layout} layout)" if isinstance(frame, MetaiclFrame) else ""
    begin = "with" if rules.prompt.bos else "no"
    return f"prompt={settings.prompt.name}{layout}, {begin} begin-of-sequence"


def boundary_line(differing: int, compared: int, boundary: Boundary) -> str:
    """One line on what `prompt.boundary` decides."""
    other = Boundary.SEPARATE if boundary is Boundary.JOINT else Boundary.JOINT
    return (
        f"prompt.boundary={boundary.value}: {differing} of {compared} test examples would have other ids under {other.value} "
        f"(first {_COMPARED} of each task)"
    )


def _table(plans: list[CellPlan], settings: EvaluateSettings, rules: PromptRules, model_name: str) -> Table:
    title = f"{settings.method.name}, {model_name}, {settings.setting}: {_format(settings, rules)}, truncation={settings.truncation}"
    table = Table(title=title, title_justify="left")
    for column in (
        "task",
        "seed",
        "examples",
        "k",
        "longest prompt",
        "demonstrations kept",
        "tokens, shared",
        "alone",
    ):
        table.add_column(column, justify="left" if column == "task" else "right", no_wrap=column == "task")
    for cell in plans:
        table.add_row(
            cell.task, str(cell.seed), str(cell.examples), str(cell.k), f"{cell.longest}", f"{cell.kept_fraction:.0%}",
            f"{cell.tokens_computed:,}", f"{cell.tokens_alone:,}",
        )  # fmt: skip
    return table


def _show_texts(family: InContextCells, work: Work, count: int, console: Console) -> None:
    for example in range(min(count, work.rows)):
        for context, target in family.texts(work, example) or ():
            head = f"--- task {work.cells[0].task}, seed {work.cells[0].seed}, test example {example}"
            for line in (head, f"[context]{context}", f"[target]{target}"):
                console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def _show_prompts(
    data: TaskData,
    cell: Cell,
    model: LazyLanguageModel,
    rules: PromptRules,
    count: int,
    console: Console,
) -> None:
    for example in range(min(count, len(data.test))):
        for option, text in enumerate(data.test[example].options):
            head = f"task {data.task}, seed {data.seed}, test example {example}, option {text!r}"
            console.print(printable(f"--- {head}"), markup=False, highlight=False, soft_wrap=True)
            for segment in preview(data, cell, model.encode, model.decode, rules, example, option):
                line = f"[{segment.label}, {segment.tokens} tokens]{segment.text}"
                console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
