"""Evaluation end to end on random weights: equal to scoring one at a time, computed once, never lost."""

import json
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import pytest
import torch

from metashot.base.errors import ConfigError, ModelError, OutputError
from metashot.base.identity import NoEffect
from metashot.data.task import Example
from metashot.data.tasks.demo import DemoSource
from metashot.engine.cells.driver import run_cells
from metashot.engine.cells.prompts import read_prompts
from metashot.engine.cells.results import PREDICTIONS_FILE, RESULTS_FILE
from metashot.engine.cells.store import ResultStore
from metashot.engine.metrics.classification import macro_f1
from metashot.engine.metrics.rules import Calibration, Normalization
from metashot.engine.models.loading import LazyLanguageModel
from metashot.engine.models.sources import TinyModel
from metashot.engine.report.reading.outputs import read_outputs
from metashot.engine.scoring import dealing
from metashot.engine.scoring.makers import plain_scorer, prefix_scorer
from metashot.engine.scoring.plain import PlainScorer
from metashot.engine.scoring.prefix import PrefixScorer
from metashot.icl.prompting.boundary import Boundary
from metashot.icl.prompting.config import MetaiclPrompt, TemplatePrompt
from metashot.icl.prompting.methods import Method
from metashot.icl.prompting.prompt import Objective, OverlongShots
from metashot.icl.scoring.cell import Truncation
from metashot.icl.scoring.cell_data import cell_key, shared_identity
from metashot.icl.scoring.evaluation_settings import EvaluateSettings, prompt_rules
from metashot.icl.scoring.ranking import RankedCells

MODEL = LazyLanguageModel(TinyModel("tiny", "gpt2"))
BEGINNING = LazyLanguageModel(TinyModel("tiny", "gpt2", seed=5))
BEGINNING.tokenizer.bos_token = "</s>"


@dataclass
class Recorder:
    """Progress that only counts."""

    stored: int = -1
    computed: list = field(default_factory=list)

    def start(self, total, stored):
        self.stored = stored

    def tokens(self, cell, done, total):
        pass

    def finished(self, cell, *, computed):
        self.computed.append(computed)


@dataclass
class FewExamples:
    """The demo tasks with a few test examples each, and one change for fingerprint tests."""

    n: int = 4
    edit: object = None
    name: str = "demo"

    def load(self, task, *, k, seed, split="test"):
        data = DemoSource().load(task, k=k, seed=seed, split=split)
        data = replace(data, test=data.test[: self.n])
        return self.edit(data) if self.edit else data

    def pool(self, task, *, size=16384, seed=100):
        return DemoSource().pool(task, size=size, seed=seed)


@dataclass(frozen=True)
class Given(EvaluateSettings):
    """What is evaluated, and where it is kept."""

    results_root: Annotated[Path, NoEffect("a place")] = Path()
    output: Annotated[Path, NoEffect("a place")] = Path()


def settings(tmp_path, method=None, **changes):
    given = {
        "setting": "demo", "tasks": ("demo-spam", "demo-story_ending"), "seeds": (100, 13), "k": 2, "split": "test",
        "method": method or Method("direct"), "truncation": Truncation.SHARED, "prompt": MetaiclPrompt(),
        "results_root": tmp_path / "root", "output": tmp_path / "run",
    }  # fmt: skip
    return Given(**(given | changes))


def run(given, source=None, scorer=PrefixScorer):
    recorder = Recorder()
    cells = RankedCells(given, source or FewExamples(), MODEL, scorer)
    return run_cells(cells, given.results_root, given.output, recorder), recorder


def fingerprint_of(data, given, model, scorer=PrefixScorer):
    rules = prompt_rules(given, model)
    return cell_key(data, rules, shared_identity(given, rules, model, scorer)).fingerprint


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


METHODS = [
    Method("zero", demonstrations=False),
    Method("channel_zero", Objective.CHANNEL, demonstrations=False),
    Method("pmi_zero", demonstrations=False, calibration=Calibration.PMI, null_inputs=("",)),
    Method("direct"),
    Method("channel", Objective.CHANNEL),
    Method("pmi", calibration=Calibration.PMI, null_inputs=("N/A",)),
    Method("domain_pmi", calibration=Calibration.DOMAIN, null_inputs=("Answer:",)),
    Method("calibrated", calibration=Calibration.CONTEXTUAL, null_inputs=("N/A", "", "[MASK]")),
    Method("batch_calibrated", calibration=Calibration.BATCH, calibration_inputs=3),
    Method("bytes", normalization=Normalization.BYTES, layout="space"),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@pytest.mark.parametrize("truncation", list(Truncation))
def test_every_method_equals_scoring_one_request_at_a_time(tmp_path, method, truncation):
    given = settings(
        tmp_path,
        method,
        truncation=truncation,
        prompt=MetaiclPrompt(max_length_per_example=128, max_length=240),
    )
    fast, _ = run(given)
    slow, _ = run(
        replace(given, results_root=tmp_path / "slow", output=tmp_path / "slow-run"), scorer=PlainScorer
    )
    for mine, reference in zip(fast.cells, slow.cells, strict=True):
        assert replace(mine.result, fingerprint="") == replace(reference.result, fingerprint="")
        assert mine.result.fingerprint != reference.result.fingerprint
        for a, b in zip(mine.predictions, reference.predictions, strict=True):
            assert a.nll == pytest.approx(b.nll, abs=1e-4)
            assert a.prediction == b.prediction


@pytest.mark.parametrize("method", [METHODS[3], METHODS[4], METHODS[7]], ids=lambda method: method.name)
def test_begin_of_sequence_and_templates_are_shared_like_any_prefix(tmp_path, method):
    prompt = TemplatePrompt(example="In: {input}\nOut: {output}", instruction="Answer.", bos=True)
    given = settings(tmp_path, method, prompt=prompt, seeds=(100,))
    slow = replace(given, results_root=tmp_path / "slow", output=tmp_path / "slow-run")
    pair = []
    for one, scorer in ((given, PrefixScorer), (slow, PlainScorer)):
        cells = RankedCells(one, FewExamples(), BEGINNING, scorer)
        outcome = run_cells(cells, one.results_root, one.output, Recorder())
        pair.append([p for cell in outcome.cells for p in cell.predictions])
    for mine, reference in zip(*pair, strict=True):
        assert mine.nll == pytest.approx(reference.nll, abs=1e-4)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_rows_in_pieces_score_as_rows_at_once(tmp_path, monkeypatch, method):
    """Pieces of a test example or two, whose answers pass through files."""
    given = settings(tmp_path, method)
    whole, _ = run(given, FewExamples(n=5))
    monkeypatch.setattr(dealing, "LEAST_TOKENS", 1)
    monkeypatch.setattr(dealing, "TIMES_SHARED", 0)
    kept = []
    put = ResultStore.put_rows
    monkeypatch.setattr(ResultStore, "put_rows", lambda *given: (kept.append(given[2]), put(*given)))
    pieces, _ = run(
        replace(given, results_root=tmp_path / "pieces", output=tmp_path / "pieces-run"), FewExamples(n=5)
    )
    assert len(kept) >= 2 * len({cell.result.fingerprint for cell in pieces.cells})
    for mine, reference in zip(pieces.cells, whole.cells, strict=True):
        assert mine.result == reference.result
        for a, b in zip(mine.predictions, reference.predictions, strict=True):
            assert a.nll == pytest.approx(b.nll, abs=1e-4)
            assert replace(a, nll=b.nll, sum_nll=b.sum_nll, null_sum_nll=b.null_sum_nll) == b


@pytest.mark.parametrize("k", [2, 4, 8])
def test_dropped_demonstrations_are_counted_said_and_not_shown(tmp_path, k):
    """Room for some of them: results, the note and `prompts.jsonl` speak of these; nothing is said where all fit."""
    prompt = TemplatePrompt(example="In: {input}\nOut: {output}", max_length=420, max_length_per_example=128)
    given = settings(tmp_path, k=k, prompt=prompt, tasks=("demo-spam",))
    outcome, _ = run(given)
    shown = {seed: prompt for (_, seed), prompt in read_prompts(tmp_path / "run").items()}
    for cell in outcome.cells:
        result = cell.result
        assert result.shown_mean == result.shown_least
        text = shown[result.seed].demonstrations
        data = FewExamples().load("demo-spam", k=k, seed=result.seed)
        assert [one.input in text for one in data.demonstrations] == [
            place >= k - result.shown_least for place in range(k)
        ]
    least = min(cell.result.shown_least for cell in outcome.cells)
    said = [note for note in outcome.notes if f"of k={k} demonstrations (at least {least})" in note]
    assert (least < k) == bool(said) == (k > 2)
    refusing = replace(given, prompt=replace(prompt, overlong_shots=OverlongShots.REFUSE))
    if said:
        with pytest.raises(
            ConfigError, match=r"prompt.overlong_shots: is refuse, and task 'demo-spam' has room for"
        ):
            run(refusing)
    else:
        assert run(refusing)[0].cells[0].result.value == outcome.cells[0].result.value


def test_the_files_of_a_run(tmp_path):
    outcome, _ = run(settings(tmp_path))
    results, predictions = rows(tmp_path / "run" / RESULTS_FILE), rows(tmp_path / "run" / PREDICTIONS_FILE)
    assert [(row["task"], row["seed"], row["n"]) for row in results] == [
        ("demo-spam", 100, 4), ("demo-spam", 13, 4), ("demo-story_ending", 100, 4), ("demo-story_ending", 13, 4),
    ]  # fmt: skip
    assert {row["metric"] for row in results} == {"macro_f1", "accuracy"}
    assert len(predictions) == 16
    first = predictions[:4]
    assert results[0]["value"] == macro_f1([r["gold"] for r in first], [r["prediction"] for r in first])
    for row in predictions:
        mean = [total / n for total, n in zip(row["sum_nll"], row["n_tokens"], strict=True)]
        assert row["nll"] == pytest.approx(mean)
        assert row["prediction"] == row["options"][mean.index(min(mean))]
    assert outcome.cost.tokens_naive > outcome.cost.tokens_computed > 0


def test_a_second_run_computes_nothing_and_gives_the_same_files(tmp_path, monkeypatch):
    run(settings(tmp_path))
    monkeypatch.setattr(PrefixScorer, "score", lambda *given: pytest.fail("a stored cell was computed again"))
    again = settings(tmp_path, output=tmp_path / "again")
    outcome, recorder = run(again)
    assert (recorder.stored, recorder.computed, outcome.cost.computed_cells) == (4, [False] * 4, 0)
    for name in (RESULTS_FILE, PREDICTIONS_FILE):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


def test_the_same_folder_again_adds_nothing(tmp_path):
    run(settings(tmp_path))
    before = (tmp_path / "run" / PREDICTIONS_FILE).read_bytes()
    run(settings(tmp_path))
    assert (tmp_path / "run" / PREDICTIONS_FILE).read_bytes() == before


def test_a_run_that_stops_half_way_goes_on(tmp_path, monkeypatch):
    scored, score = [], PrefixScorer.score

    def dies_at_the_third(self, requests, on_progress=None):
        if len(scored) == 2:
            raise KeyboardInterrupt
        scored.append(requests)
        return score(self, requests, on_progress)

    monkeypatch.setattr(PrefixScorer, "score", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run(settings(tmp_path))
    monkeypatch.undo()
    _, recorder = run(settings(tmp_path))
    assert recorder.computed == [False, False, True, True]
    assert len(rows(tmp_path / "run" / PREDICTIONS_FILE)) == 16


def test_torn_lines_of_a_killed_run_are_dropped_and_written_again(tmp_path):
    run(settings(tmp_path))
    whole = (tmp_path / "run" / PREDICTIONS_FILE).read_bytes()
    results = (tmp_path / "run" / RESULTS_FILE).read_text().splitlines(keepends=True)
    (tmp_path / "run" / RESULTS_FILE).write_text("".join(results[:3]))
    (tmp_path / "run" / PREDICTIONS_FILE).write_bytes(whole[:-40])
    run(settings(tmp_path))
    assert (tmp_path / "run" / PREDICTIONS_FILE).read_bytes() == whole


def test_a_reused_folder_reports_the_last_run_and_nothing_else(tmp_path):
    """Other demonstrations, and one task fewer: summary and report speak of the same cells."""
    run(settings(tmp_path))
    last, _ = run(settings(tmp_path, k=1, tasks=("demo-spam",)))
    outputs = read_outputs([tmp_path / "run"])
    assert outputs.results["value"].to_list() == [cell.result.value for cell in last.cells]
    assert outputs.results["k"].to_list() == [1, 1]
    assert ["4 results of earlier commands" in problem for problem in outputs.problems] == [False, True]


def test_a_read_only_store_that_holds_every_cell_serves(tmp_path):
    first, _ = run(settings(tmp_path))
    store = tmp_path / "root" / "cells"
    folders = [store, *(path for path in store.rglob("*") if path.is_dir())]
    for path in store.rglob("*.lock"):
        path.unlink()
    for folder in folders:
        folder.chmod(0o500)
    try:
        again, _ = run(settings(tmp_path, output=tmp_path / "again"))
    finally:
        for folder in folders:
            folder.chmod(0o700)
    assert again.cells == first.cells
    assert not list(store.rglob("*.lock"))


def test_a_damaged_stored_cell_is_computed_again(tmp_path):
    outcome, _ = run(settings(tmp_path))
    fingerprint = outcome.cells[0].result.fingerprint
    path = tmp_path / "root" / "cells" / fingerprint[:2] / f"{fingerprint}.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    again, recorder = run(settings(tmp_path, output=tmp_path / "again"))
    assert recorder.computed == [True, False, False, False]
    assert again.cells == outcome.cells


def test_without_demonstrations_all_seeds_share_one_computation(tmp_path):
    _, recorder = run(settings(tmp_path, Method("zero", demonstrations=False)))
    assert recorder.computed == [True, False, True, False]
    assert [row["seed"] for row in rows(tmp_path / "run" / RESULTS_FILE)] == [100, 13, 100, 13]


def test_the_fingerprint_knows_everything_that_decides_a_value(tmp_path):
    def key(given, model=MODEL, source=None, scorer=PrefixScorer):
        data = (source or FewExamples()).load("demo-spam", k=given.method.shots(given.k), seed=given.seeds[0])
        return fingerprint_of(data, given, model, scorer)

    def other_gold(data):
        first = data.test[0]
        wrong = next(option for option in first.options if option != first.output)
        return replace(data, test=(Example(first.task, first.input, wrong, first.options), *data.test[1:]))

    base = settings(tmp_path)
    variants = {
        "base": key(base),
        "scorer": key(base, scorer=partial(plain_scorer)),
        "an argument of the scorer": key(base, scorer=partial(prefix_scorer, force=True)),
        "k": key(replace(base, k=3)),
        "seed": key(replace(base, seeds=(13,))),
        "truncation": key(replace(base, truncation=Truncation.PER_OPTION)),
        "limits": key(replace(base, prompt=MetaiclPrompt(max_length_per_example=200))),
        "boundary": key(replace(base, prompt=MetaiclPrompt(boundary=Boundary.JOINT))),
        "begin of sequence": key(replace(base, prompt=MetaiclPrompt(bos=True)), BEGINNING),
        "no begin of sequence": key(replace(base, prompt=MetaiclPrompt(bos=False)), BEGINNING),
        "template": key(replace(base, prompt=TemplatePrompt())),
        "instruction": key(replace(base, prompt=TemplatePrompt(instruction="Judge."))),
        "objective": key(settings(tmp_path, Method("direct", Objective.CHANNEL))),
        "normalization": key(settings(tmp_path, Method("direct", normalization=Normalization.SUM))),
        "layout": key(settings(tmp_path, Method("direct", layout="space"))),
        "calibration": key(settings(tmp_path, METHODS[5])),
        "null input": key(settings(tmp_path, replace(METHODS[5], null_inputs=("",)))),
        "weights": key(base, LazyLanguageModel(TinyModel("tiny", "gpt2", seed=1))),
        "architecture": key(base, LazyLanguageModel(TinyModel("tiny", "llama"))),
        "dtype": key(base, LazyLanguageModel(TinyModel("tiny", "gpt2", dtype="bfloat16"))),
        "test data": key(base, source=FewExamples(edit=other_gold)),
        "test size": key(base, source=FewExamples(n=5)),
    }
    assert len(set(variants.values())) == len(variants)


def test_the_fingerprint_ignores_names_and_places(tmp_path):
    data = FewExamples().load("demo-spam", k=2, seed=100)
    renamed = LazyLanguageModel(TinyModel("other name", "gpt2"))
    elsewhere = settings(tmp_path / "x", Method("my name"), setting="other")
    quieter = partial(prefix_scorer, memory_mb=64, batch_size=2)
    assert fingerprint_of(data, elsewhere, renamed, quieter) == fingerprint_of(
        data, settings(tmp_path), MODEL, partial(prefix_scorer)
    )


def test_nan_logits_stop_the_run_and_store_nothing(tmp_path):
    class Broken:
        def score(self, requests, on_progress=None):
            model = MODEL.load().model
            with torch.no_grad():
                poisoned = type(model)(model.config).eval()
                next(poisoned.parameters()).fill_(float("nan"))
            return PrefixScorer(poisoned).score(requests)

    with pytest.raises(ModelError, match=r"[Nn]a[Nn]|finite"):
        run(settings(tmp_path), scorer=lambda model: Broken())
    assert not list((tmp_path / "root").rglob("*.jsonl"))


def test_an_unwritable_results_root_is_said_before_anything_is_computed(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write: .*results_root"):
        run(settings(tmp_path, results_root=tmp_path / "file"), scorer=lambda model: pytest.fail("computed"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": -1}, "must be 0 or more"),
        ({"tasks": ()}, "data.tasks: is empty"),
        ({"seeds": (1, 1)}, "1 stands twice"),
    ],
)
def test_contradictory_settings(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        settings(tmp_path, **changes)


def test_a_free_form_task_has_no_options_to_rank(tmp_path):
    with pytest.raises(ConfigError, match="free-form"):
        run(settings(tmp_path, tasks=("demo-opposite_word",)))
