"""Free-form tasks: answers are those of the model alone after the same text, graded, stored once and reported."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, cast

import pytest
import torch

pytest.importorskip("torchmetrics")

from metashot.base.errors import ConfigError, DataError
from metashot.base.identity import NoEffect, deciding_fields, identity_of
from metashot.data.task import Example, TaskData, TaskType
from metashot.data.tasks.demo import DemoSource
from metashot.engine.cells.driver import run_cells
from metashot.engine.cells.prompts import read_prompts
from metashot.engine.cells.summary import summarize
from metashot.engine.metrics.extraction import LastNumber
from metashot.engine.models.loading import LazyLanguageModel
from metashot.engine.models.sources import TinyModel
from metashot.engine.report.reading.outputs import read_outputs
from metashot.engine.report.systems.results import collect_systems
from metashot.engine.scoring.prefix import PrefixScorer
from metashot.icl.prompting.config import MetaiclPrompt, TemplatePrompt
from metashot.icl.prompting.methods import Method
from metashot.icl.prompting.prompt import Objective
from metashot.icl.scoring import generation
from metashot.icl.scoring.cell import Truncation
from metashot.icl.scoring.evaluation_settings import EvaluateSettings
from metashot.icl.scoring.generation import GeneratedCells, GenerateMethod
from metashot.icl.scoring.ranking import RankedCells
from metashot.stages.evaluation import cost_line

MODEL = LazyLanguageModel(TinyModel("tiny", "llama", device="cpu"))
TASK = "demo-opposite_word"


class Silent:
    """Progress that tells nobody."""

    def start(self, total: int, stored: int) -> None: ...

    def tokens(self, cell: Any, done: int, total: int) -> None: ...

    def finished(self, cell: Any, *, computed: bool) -> None: ...


@dataclass
class FewExamples:
    """Four test examples of the free-form demo task."""

    name: str = "demo"

    def load(self, task: str, *, k: int, seed: int, split: str = "test") -> TaskData:
        data = DemoSource().load(task, k=k, seed=seed, split=split)
        return replace(data, test=data.test[:4])


@dataclass(frozen=True)
class Given(EvaluateSettings):
    """What is evaluated, and where it is kept."""

    results_root: Annotated[Path, NoEffect("a place")] = Path()
    output: Annotated[Path, NoEffect("a place")] = Path()


def settings(folder: Path, method: Method, **changes: Any) -> Given:
    given: dict[str, Any] = {
        "setting": "demo", "tasks": (TASK,), "seeds": (100, 13), "k": 2, "split": "test", "method": method,
        "truncation": Truncation.SHARED, "prompt": MetaiclPrompt(), "results_root": folder / "root", "output": folder / "run",
    }  # fmt: skip
    return Given(**(given | changes))


def run(given: Given) -> Any:
    source: Any = FewExamples()
    if isinstance(given.method, GenerateMethod):
        cells = GeneratedCells(given, source, MODEL, PrefixScorer)
    else:
        cells = RankedCells(given, source, MODEL, PrefixScorer)
    return run_cells(cells, given.results_root, given.output, Silent())


def alone(text: str, tokens: int) -> str:
    loaded = MODEL.load()
    ids = torch.tensor([MODEL.encode(text)])
    out: Any = loaded.model.generate(  # pyright: ignore[reportCallIssue]
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=tokens,
        pad_token_id=0,
    )
    return loaded.tokenizer.decode(out[0, ids.shape[1] :].tolist(), skip_special_tokens=True).strip()


@pytest.mark.parametrize(
    ("prompt", "example", "separator"),
    [
        (MetaiclPrompt(), "{}\n", "\n\n\n"),
        (TemplatePrompt(example="Q: {input}\nA: {output}", separator="\n\n"), "Q: {}\nA:", "\n\n"),
    ],
)
def test_answers_follow_the_demonstrations_word_for_word(tmp_path, prompt, example, separator):
    method = GenerateMethod("generate", max_new_tokens=5, stop=())
    outcome = run(settings(tmp_path, method, prompt=prompt, seeds=(100,)))
    data = FewExamples().load(TASK, k=2, seed=100)
    shown = [
        example.format(one.input) + (" " if example.endswith("A:") else "") + one.output
        for one in data.demonstrations
    ]
    for prediction, one in zip(outcome.cells[0].predictions, data.test, strict=True):
        whole = separator.join([*shown, example.format(one.input)])
        assert prediction.prediction == alone(whole, 5)
        assert prediction.gold == one.output
        assert prediction.score in (0.0, 1.0)


def test_a_second_run_generates_nothing_and_reports_read_the_grades(tmp_path):
    method = GenerateMethod("generate", metric="token_f1", max_new_tokens=4, stop=())
    given = settings(tmp_path, method)
    first = run(given)
    said = f"2 cells computed, 0 reused; {first.cost.tokens_generated} tokens generated"
    assert cost_line(first.cost) == said
    assert 8 <= first.cost.tokens_generated <= 8 * 4  # two cells of four answers
    again = run(replace(given, output=tmp_path / "again"))
    assert (first.cost.computed_cells, again.cost.computed_cells, again.cost.reused_cells) == (2, 0, 2)
    assert [cell.predictions for cell in again.cells] == [cell.predictions for cell in first.cells]
    summary = summarize(first.cells)
    (answers,), problems = collect_systems(
        read_outputs([tmp_path / "run"]), lambda _: (), draws=50, level=0.95, seed=0
    )
    assert 100 * answers.figures.mean.value == pytest.approx(summary.mean.value)
    assert not [text for text in problems if "left out" in text]


def test_what_decides_an_answer_makes_another_cell(tmp_path):
    base = GenerateMethod("generate", max_new_tokens=3, stop=())
    run(settings(tmp_path, base))
    for changed in (
        replace(base, max_new_tokens=4), replace(base, stop=("a",)), replace(base, metric="rouge_l"),
    ):  # fmt: skip
        assert run(settings(tmp_path, changed, output=tmp_path / "other")).cost.computed_cells == 2
    same = replace(base, name="another name", batch_size=1)
    assert run(settings(tmp_path, same, output=tmp_path / "third")).cost.computed_cells == 0


def test_free_form_tasks_need_a_method_that_generates(tmp_path):
    with pytest.raises(ConfigError, match="use method=generate"):
        run(settings(tmp_path, Method("direct")))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metric": "accuracy"}, "does not grade generated answers"),
        ({"objective": Objective.CHANNEL}, "'channel' scores inputs"),
        ({"max_new_tokens": 0}, "0 is not positive"),
        ({"stop": ("",)}, "an empty string"),
    ],
)
def test_contradictions_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        GenerateMethod("generate", **changes)


def test_no_room_for_an_answer_is_said(tmp_path):
    with pytest.raises(ConfigError, match="is not below the model's"):
        run(settings(tmp_path, GenerateMethod("generate", max_new_tokens=10_000)))


# Samples, reasons, extraction


@dataclass
class Sums(FewExamples):
    """Sums with reasons; two test rows have one input."""

    def load(self, task: str, *, k: int, seed: int, split: str = "test") -> TaskData:
        rows = [
            Example(task, f"What is {a} and {b}?", str(a + b), rationale=f"{a} plus {b} is {a + b}.")
            for a, b in ((2, 3), (4, 1), (6, 2), (5, 5), (6, 2), (7, 1))
        ]
        return TaskData(task, seed, TaskType.FREE_FORM, tuple(rows[:k]), tuple(rows[k:]))


SAMPLED = GenerateMethod("generate", max_new_tokens=6, stop=(), temperature=1.0, samples=3)


def texts_of(tmp_path: Path, method: GenerateMethod, source: Any, **changes: Any) -> list[tuple[str, ...]]:
    given = settings(tmp_path, method, seeds=(100,), results_root=tmp_path / f"root{len(changes)}", **changes)
    cells = GeneratedCells(given, source, MODEL, PrefixScorer)
    outcome = run_cells(cells, given.results_root, given.output, Silent())
    assert outcome.cost.tokens_generated >= len(outcome.cells[0].predictions)
    return [prediction.texts for prediction in outcome.cells[0].predictions]


def test_samples_repeat_under_a_seed_in_any_batch_and_in_any_order_of_rows(tmp_path):
    """Rows of one prompt are counted up, so that they are samples of their own."""
    found = texts_of(tmp_path / "a", SAMPLED, Sums())
    assert [len(row) for row in found] == [3] * 4
    assert len({text for row in found for text in row}) == 12
    assert texts_of(tmp_path / "b", replace(SAMPLED, batch_size=2), Sums()) == found
    assert texts_of(tmp_path / "c", replace(SAMPLED, seed=1), Sums()) != found

    @dataclass
    class Turned(Sums):
        def load(self, task: str, *, k: int, seed: int, split: str = "test") -> TaskData:
            data = Sums().load(task, k=k, seed=seed, split=split)
            return replace(data, test=data.test[::-1])

    assert set(texts_of(tmp_path / "d", SAMPLED, Turned())) == set(found)
    more = texts_of(tmp_path / "e", replace(SAMPLED, samples=5), Sums())
    assert [row[:3] for row in more] == found


def test_pieces_and_what_a_kill_leaves_give_the_same_answers(tmp_path, monkeypatch):
    """A run that ends after its second piece goes on with the third."""
    whole = texts_of(tmp_path / "a", SAMPLED, Sums())
    monkeypatch.setattr(generation, "_BATCHES_A_PIECE", 1)
    one = replace(SAMPLED, batch_size=3)  # a piece a row
    seen: list[Any] = []

    def stops(*given: Any) -> Any:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(given[2])
        return generate(*given)

    generate = generation.generate
    monkeypatch.setattr(generation, "generate", stops)
    with pytest.raises(KeyboardInterrupt):
        texts_of(tmp_path / "b", one, Sums())
    monkeypatch.setattr(generation, "generate", lambda *given: seen.append(given[2]) or generate(*given))
    assert texts_of(tmp_path / "b", one, Sums()) == whole
    assert sorted(row for rows in seen for row in rows) == [0, 1, 2, 3]


def test_reasons_stand_in_the_demonstrations_and_in_the_files(tmp_path):
    method = replace(SAMPLED, reasoning="{rationale}\\nSo: {output}")
    texts_of(tmp_path, method, Sums())
    prompt = read_prompts(tmp_path / "run")[TASK, 100]
    shown = "What is 2 and 3?\n2 plus 3 is 5.\nSo: 5\n\n\nWhat is 4 and 1?\n4 plus 1 is 5.\nSo: 5"
    assert prompt.demonstrations == shown
    cell = GeneratedCells(settings(tmp_path, method, seeds=(100,)), cast(Any, Sums()), MODEL, PrefixScorer)
    (work,) = cell.work()
    assert MODEL.decode(cell.cell(work).requests[0].context).startswith(shown)
    with pytest.raises(DataError, match="a demonstration has no reasons"):
        texts_of(tmp_path / "none", method, FewExamples())


@pytest.mark.parametrize(
    ("changes", "texts", "answer", "score"),
    [
        ({}, ["5 "], "5", 1.0),
        ({}, ["<think>4?</think> five", "5"], "five", 1.0),  # one vote each: the first; a reference says so
        ({"extract": LastNumber()}, ["it is 4", "2 + 3 = 5", "5.0"], "5", 1.0),
        ({"extract": LastNumber()}, ["it is 4", "no idea"], "4", 0.0),
        ({"extract": LastNumber()}, ["none", ""], "", 0.0),
        ({"think_end": ""}, ["x</think>5"], "x</think>5", 0.0),
        ({"think_end": "###"}, ["1 ### 4 ### 5"], "5", 1.0),
        ({"pass_at": 2, "extract": LastNumber()}, ["4", "5", "4", "6"], "4", 1 / 2),  # 1 - C(3,2)/C(4,2)
        ({"pass_at": 1, "extract": LastNumber()}, ["5", "5.0", "4", "none"], "5", 1 / 2),
    ],
)
def test_a_question_is_judged_by_hand(changes, texts, answer, score):
    method = replace(
        SAMPLED, metric="numeric" if "extract" in changes else "exact_match", samples=4, **changes
    )
    assert method.judged(texts, ["5", "five"]) == (answer, pytest.approx(score))


def test_probes_are_of_ranked_options():
    with pytest.raises(ConfigError, match="goes with ranked options"):
        replace(SAMPLED, probes=True)


def test_every_key_makes_another_cell_unless_it_says_that_it_has_no_effect():
    """A walk over all fields that generation adds: the ones that this table lacks have no effect."""
    others = {
        "metric": "numeric", "extract": LastNumber(), "max_new_tokens": 7, "stop": ("x",), "temperature": 0.5, "top_p": 0.5,
        "samples": 4, "seed": 1, "pass_at": 2, "reasoning": "{rationale} {output}", "think_end": "",
    }  # fmt: skip
    assert set(others) == set(deciding_fields(SAMPLED)) - set(deciding_fields(Method("direct")))
    for name, value in others.items():
        assert identity_of(replace(SAMPLED, **{name: value})) != identity_of(SAMPLED), name


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"temperature": 0.0}, "3 greedy answers are one answer"),
        ({"pass_at": 4}, "pass@4 needs as many samples"),
        ({"pass_at": 2, "metric": "token_f1"}, "gives parts of a mark"),
        ({"reasoning": "{output}"}, "does not hold both"),
        ({"top_p": 0.0}, "is no probability above 0"),
        ({"temperature": -1.0}, "is negative"),
    ],
)
def test_samples_that_make_no_sense_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        replace(SAMPLED, **changes)
