"""Free-form tasks: answers are those of the model alone after the same text, graded, stored once and reported."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch

pytest.importorskip("torchmetrics")

from metashot.base.errors import ConfigError
from metashot.base.identity import NoEffect
from metashot.data.task import TaskData
from metashot.data.tasks.demo import DemoSource
from metashot.engine.cells.driver import run_cells
from metashot.engine.cells.summary import summarize
from metashot.engine.models.loading import LazyLanguageModel
from metashot.engine.models.sources import TinyModel
from metashot.engine.report.reading.outputs import read_outputs
from metashot.engine.report.systems.answers import collect_answers
from metashot.engine.scoring.prefix import PrefixScorer
from metashot.icl.prompting.config import MetaiclPrompt, TemplatePrompt
from metashot.icl.prompting.methods import Method
from metashot.icl.prompting.prompt import Objective
from metashot.icl.scoring.cell import Truncation
from metashot.icl.scoring.evaluation_settings import EvaluateSettings
from metashot.icl.scoring.generation import GeneratedCells, GenerateMethod
from metashot.icl.scoring.ranking import RankedCells

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
    again = run(replace(given, output=tmp_path / "again"))
    assert (first.cost.computed_cells, again.cost.computed_cells, again.cost.reused_cells) == (2, 0, 2)
    assert [cell.predictions for cell in again.cells] == [cell.predictions for cell in first.cells]
    summary = summarize(first.cells)
    (answers,), problems = collect_answers(
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
