"""`experiments/supmer_demo`: prompts tuned side by side are those tuned alone, and intervals respect shared seeds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

DEMO = Path(__file__).resolve().parents[2] / "experiments" / "supmer_demo"


@pytest.fixture(scope="module", autouse=True)
def demo_modules() -> Any:
    """The demonstration's own modules, which are no package."""
    before = set(sys.modules)
    sys.path.insert(0, str(DEMO))
    yield
    sys.path.remove(str(DEMO))
    for name in set(sys.modules) - before:
        if str(DEMO) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture(scope="module")
def small() -> Any:
    """A backbone of random weights over the world's words, behind the product's own interface."""
    from backbone import BackboneSize, new_model, word_tokenizer

    from metashot.engine.models.loading import LanguageModel
    from metashot.engine.models.sources import TinyModel
    from metashot.metaprompt.backbone import make_backbone

    size = BackboneSize(width=16, layers=1, heads=2)
    tokenizer = word_tokenizer()
    model = new_model(
        size, 0.5 * torch.randn(len(tokenizer), 16, generator=torch.Generator().manual_seed(1)), 1
    )
    language_model = LanguageModel(model.eval().requires_grad_(False), tokenizer, TinyModel("random"), "", "")
    return language_model, make_backbone(language_model)


@pytest.mark.parametrize("rule", ["descent", "AdamW"])
def test_a_row_ends_where_tuning_it_alone_ends(small: Any, rule: str) -> None:
    from downstream import TASKS, test_sets, training_set
    from rows import tune_rows

    from metashot.engine.training.optimizers import OptimizerConfig
    from metashot.metaprompt.meta.setup import make_regularizer
    from metashot.metaprompt.meta.steps.regularizer import RegularizerConfig
    from metashot.metaprompt.tuning.loop import TrainRules, tune
    from metashot.metaprompt.tuning.tunable import PromptTunable

    optimizer = {
        "descent": OptimizerConfig(
            learning_rate=0.5, schedule="constant", clip_norm=0.0, algorithm=torch.optim.SGD
        ),
        "AdamW": OptimizerConfig(learning_rate=0.1, weight_decay=0.0),
    }[rule]
    language_model, backbone = small
    task = TASKS[0]
    train, tests = training_set(task, "tone", 4, 1), test_sets(task, "tone", 40, differ=False)
    starts = torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(2))
    psi = make_regularizer(16, RegularizerConfig(4, 1, True, "none", "near_identity", "row_l2", 24), 3)
    psi.eval().requires_grad_(False)
    together, curve = tune_rows(
        backbone,
        starts,
        [None, psi],
        train,
        tests,
        steps=6,
        batch_size=8,
        optimizer=optimizer,
        seed=5,
        look_at=(0, 6),
    )
    rules = TrainRules(
        6, 8, 65536, 6, "last", "verbalizers", dropout=False,
        optimizer=optimizer,
    )  # fmt: skip
    for row, regularizer in enumerate((None, psi)):
        tunable = PromptTunable(backbone, torch.nn.Parameter(starts[row].clone()), regularizer)
        alone = tune(tunable, language_model, train=train, dev=train, tests=tests, rules=rules, seed=5)
        torch.testing.assert_close(together[row], tunable.prompt.detach(), atol=1e-5, rtol=1e-4)
        assert alone.tests["test"].accuracy("verbalizers") == pytest.approx(curve[6]["test"][row])


@pytest.mark.parametrize("seed", [1, 2], ids=["agree", "differ"])
def test_shift_goes_against_the_label_only_where_it_says_so(seed: int) -> None:
    from downstream import TASKS, asks_for_difference, test_sets, training_set
    from world import GROUPS, WORDS

    group_of = {
        word: group for groups in GROUPS.values() for group, words in groups.items() for word in words.split()
    }
    tones = set(GROUPS["tone"])

    def same_tone(question: Any) -> bool:
        words = [WORDS[token] for token in question.input_ids]
        bar = words.index("|")
        sides = [
            {group_of[w] for w in side if group_of.get(w) in tones} for side in (words[:bar], words[bar:])
        ]
        return sides[0] == sides[1]

    task = next(task for task in TASKS if task.shifted and not task.about_other)
    differ = asks_for_difference(seed)
    sets = {"train": training_set(task, "subject", 4, seed), **test_sets(task, "subject", 60, differ=differ)}
    agreement = {
        name: np.mean(
            [
                same_tone(e) == ((label == 0) ^ differ)
                for e, label in zip(data.examples, data.labels, strict=True)
            ]
        )
        for name, data in sets.items()
    }
    assert (agreement["train"], agreement["source"], agreement["oppose"]) == (1, 1, 0)
    assert 0.3 < agreement["free"] < 0.7


@pytest.mark.parametrize("habit", ["subject", "tone"])
def test_a_told_question_is_answered_about_the_attribute_and_in_the_sense_that_its_prefix_tells(
    habit: Any,
) -> None:
    from world import ANSWERS, ATTRIBUTES, PREFIX_LENGTH, TOLD, WORDS, training_questions

    generator, seen = np.random.default_rng(0), set[tuple[str, str]]()
    for _ in range(20):
        batch = training_questions(32, habit, generator, simple=False)
        for place, words in enumerate(batch.words):
            prefix = {WORDS[token] for token in words[:PREFIX_LENGTH]}
            asked = [name for name in ATTRIBUTES if prefix & set(TOLD[name])]
            if not asked:
                continue
            sense = "differ" if "differ" in prefix else "agree"
            (form,) = (form for form in ANSWERS if set(TOLD[form]) <= prefix)
            truth = bool(batch.truths[ATTRIBUTES.index(asked[0]), place]) != (sense == "differ")
            index = int(truth) if form == "choice" else 1 - int(truth)
            assert WORDS[batch.answers[place]] == ANSWERS[form][index]
            seen.add((form, sense))
    assert len(seen) == 6


def test_intervals_resample_backbones_then_meta_seeds_and_data_seeds_once_for_all() -> None:
    """Accuracies that depend on the data seed alone: six runs more do not narrow their interval."""
    from report_demo import bootstrap_weights, figure_of

    weights = bootstrap_weights(3, 2, 4)
    np.testing.assert_allclose(weights.sum(axis=(1, 2, 3)), 1)
    by_data = weights.sum(axis=(1, 2))
    np.testing.assert_allclose(
        weights.sum(axis=2)[:, 0] * by_data.sum(axis=1, keepdims=True),
        weights.sum(axis=(2, 3))[:, :1] * by_data,
    )
    data = np.array([0.2, 0.4, 0.6, 0.8])
    narrow, wide = figure_of(np.broadcast_to(data, (3, 2, 4))), figure_of(data[None, None])
    assert narrow.value == pytest.approx(50)
    assert narrow.high - narrow.low == pytest.approx(wide.high - wide.low, abs=6)


def test_a_difference_is_of_the_same_runs() -> None:
    """Two methods that differ by 10 points in every run, however the runs differ: the interval is the point 10."""
    from report_demo import _differences

    rows = [
        {
            "main": main, "backbone": b, "meta_seed": m, "data_seed": d, "task": "in domain", "method": method,
            "curve": {"0": {"test": 0.0}, "5": {"test": 0.1 * b + 0.05 * d + plus}},
        }
        for main in ("subject", "tone") for b in (1, 2) for m in (1, 2) for d in (1, 2)
        for method, plus in (("vocabulary", 0.0), ("meta-learned", 0.1))
    ]  # fmt: skip
    assert "| meta-learned - vocabulary | 10.0 (10.0 to 10.0) |" in _differences(rows, "in domain")


@pytest.mark.slow
def test_the_demonstration_runs_end_to_end_and_goes_on(tmp_path: Path) -> None:
    """At a toy size, where no backbone learns, it stops and says so."""
    import subprocess

    done = subprocess.run(
        [sys.executable, DEMO / "run_demo.py", "--backbones", "1", "--backbone-steps", "2", "--workers", "1",
         "--output", tmp_path / "results", "--work", tmp_path / "work"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert "there is nothing to select yet" in done.stderr
