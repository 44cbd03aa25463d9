"""Few-shot tuning: every method, selection, the store, domain generalization."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from metashot.base.errors import ConfigError
from metashot.engine.cells.driver import run_cells
from metashot.engine.cells.prompts import read_prompts
from metashot.engine.cells.results import FinishedCell
from metashot.engine.cells.store import ResultStore
from metashot.engine.models.loading import LanguageModel
from metashot.engine.training.optimizers import OptimizerConfig
from metashot.metaprompt.backbone import make_backbone
from metashot.metaprompt.meta.setup import make_regularizer
from metashot.metaprompt.meta.steps.regularizer import RegularizerConfig
from metashot.metaprompt.soft_prompt import save_prompt
from metashot.metaprompt.tuning.adapters import peft_p_tuning_model
from metashot.metaprompt.tuning.cell import load_task
from metashot.metaprompt.tuning.config import TuneSettings
from metashot.metaprompt.tuning.cuts import cut_notes
from metashot.metaprompt.tuning.evaluation import TunedCells, deviations
from metashot.metaprompt.tuning.loop import LabelledSet, LabelScores, TrainRules, example_order, tune
from metashot.metaprompt.tuning.planning import planned_cuts
from metashot.metaprompt.tuning.starting_point import make_tunable, starting_point
from metashot.metaprompt.tuning.tunable import PromptTunable

POSITIVE, NEGATIVE = "good great fish water", "bad terrible mud flood"


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sentiment sets that a few steps can learn, and one with other labels."""
    root = tmp_path_factory.mktemp("prompt")
    for task in ("SST-2", "mr", "subj"):
        (root / task).mkdir()
        for split, count in (("train", 24), ("test", 8)):
            rows = [
                {"source": f"{(NEGATIVE, POSITIVE)[i % 2]} {i} {task}", "label": i % 2} for i in range(count)
            ]
            (root / task / f"{split}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def settings(data_root: Path, **changes: Any) -> TuneSettings:
    train = TrainRules(
        4, 4, 400, 2, "dev", "verbalizers", False, OptimizerConfig(learning_rate=0.05, weight_decay=0.0)
    )
    defaults = TuneSettings(
        method="soft_prompt", tuning="soft_prompt", setting="test", tasks=("SST-2",), transfer={},
        pattern=0, data_source="folder", data_root=str(data_root), k=4, data_seeds=(100,), train_seeds=(1,), max_tokens=40,
        test_limit=0, prompt_length=3, prompt_init="vocabulary", prompt_path=None, regularizer_path=None,
        rescale=None, lora_rank=2, lora_alpha=4, lora_dropout=0.0, train=train, as_released=False, switches={},
    )  # fmt: skip
    return replace(defaults, **changes)


class Silent:
    """Progress that tells nobody."""

    def start(self, total: int, stored: int) -> None: ...

    def tokens(self, cell: Any, done: int, total: int) -> None: ...

    def finished(self, cell: Any, *, computed: bool) -> None: ...


def evaluate_prompts(
    given: TuneSettings, model: LanguageModel, output: Path, root: Path
) -> tuple[FinishedCell, ...]:
    return run_cells(TunedCells(given, model, output), root, output, Silent()).cells


@pytest.mark.parametrize("tuning", ["soft_prompt", "peft_prompt_tuning", "peft_p_tuning", "lora", "full"])
def test_every_method_runs_and_leaves_the_model_as_it_was(
    language_model: LanguageModel, data_root: Path, tmp_path: Path, tuning: str
):
    before = {name: tensor.clone() for name, tensor in language_model.model.state_dict().items()}
    cells = evaluate_prompts(
        settings(data_root, tuning=tuning, method=tuning), language_model, tmp_path / "run", tmp_path
    )
    after = language_model.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not any(p.requires_grad for p in language_model.model.parameters())
    (cell,) = cells
    assert (cell.result.n, cell.result.k, cell.result.metric) == (8, 4, "accuracy")
    right = sum(p.gold == p.prediction for p in cell.predictions)
    assert cell.result.value == right / 8
    assert cell.predictions[0].options == ("terrible", "great")
    row = json.loads((tmp_path / "run" / "tuning.jsonl").read_text())
    assert row["chosen_step"] in (2, 4)
    assert len(row["curve"]) == 2


def test_a_kill_at_the_store_leaves_curve_and_prompt_once(
    make_model: Any, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What a stored cell never makes again is there before it is stored, and stands once when it is made twice."""
    model, wanted = make_model("gpt2"), settings(data_root)

    def killed(store: ResultStore, cell: FinishedCell) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ResultStore, "put", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate_prompts(wanted, model, tmp_path / "run", tmp_path)
    row = (tmp_path / "run" / "tuning.jsonl").read_text()
    (prompt,) = (tmp_path / "run" / "prompts").iterdir()
    kept = prompt.read_bytes()
    evaluate_prompts(wanted, model, tmp_path / "run", tmp_path)
    assert (tmp_path / "run" / "tuning.jsonl").read_text() == row
    assert prompt.read_bytes() == kept


def test_tuning_learns(make_model: Any, data_root: Path, tmp_path: Path):
    model = make_model("t5")
    fast = OptimizerConfig(learning_rate=1.0, weight_decay=0.0)
    train = replace(settings(data_root).train, steps=40, evaluate_every=10, select_on="last", optimizer=fast)
    evaluate_prompts(settings(data_root, train=train), model, tmp_path / "run", tmp_path)
    curve = json.loads((tmp_path / "run" / "tuning.jsonl").read_text())["curve"]
    assert curve[-1]["train_loss"] < curve[0]["train_loss"] - 2


def test_our_soft_prompt_and_peft_s_agree(make_model: Any, data_root: Path, tmp_path: Path):
    """Same start, same order: the same predictions' scores, up to rounding."""
    values = []
    for tuning in ("soft_prompt", "peft_prompt_tuning"):
        (cell,) = evaluate_prompts(
            settings(data_root, tuning=tuning), make_model("t5"), tmp_path / tuning, tmp_path
        )
        values.append(torch.tensor([p.nll for p in cell.predictions]))
    torch.testing.assert_close(values[0], values[1], rtol=1e-2, atol=1e-2)


def test_p_tuning_trains_a_network_of_its_seed_that_makes_the_prompt(gpt2: LanguageModel):
    prompt = torch.randn(3, gpt2.model.config.n_embd, generator=torch.Generator().manual_seed(0))
    state = torch.get_rng_state()
    one, same, other = (peft_p_tuning_model(gpt2, prompt, seed) for seed in (1, 1, 2))
    torch.testing.assert_close(torch.get_rng_state(), state)
    trained = {name.split(".", 2)[-1] for name, p in one.named_parameters() if p.requires_grad}
    assert trained == {
        "embedding.weight", *(f"mlp_head.{layer}.{kind}" for layer in (0, 2, 4) for kind in ("weight", "bias"))
    }  # fmt: skip
    made = [model.prompt_encoder["default"](torch.arange(3)[None])[0] for model in (one, same, other)]
    torch.testing.assert_close(made[0], one.prompt_encoder["default"].mlp_head(prompt))
    torch.testing.assert_close(made[0], made[1])
    assert not torch.allclose(made[0], made[2])


def test_a_finished_cell_is_not_trained_again(
    gpt2: LanguageModel, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first = evaluate_prompts(settings(data_root), gpt2, tmp_path / "one", tmp_path)
    monkeypatch.setattr("metashot.metaprompt.tuning.cell.tune", None)
    again = evaluate_prompts(settings(data_root, method="other"), gpt2, tmp_path / "two", tmp_path)
    assert again[0].result == replace(first[0].result, method="other")
    with pytest.raises(TypeError):
        evaluate_prompts(settings(data_root, k=3), gpt2, tmp_path / "three", tmp_path)


def test_cut_test_inputs_are_counted_in_results_and_plan(
    gpt2: LanguageModel, data_root: Path, tmp_path: Path
):
    asked = settings(data_root, transfer={"SST-2": ["mr"]}, test_limit=6, data_seeds=(100, 13), max_tokens=8)
    whole = load_task("SST-2", replace(asked, max_tokens=250), gpt2)
    lengths = {
        name: [len(renderer.example(row).input_ids) for row in rows.test[:6]]
        for name, (renderer, rows) in whole.tests.items()
    }
    expected = {
        name: (sum(length > 8 for length in row), sum(max(0, length - 8) for length in row))
        for name, row in lengths.items()
    }
    assert expected["SST-2"][0] > 0
    cells = evaluate_prompts(asked, gpt2, tmp_path / "run", tmp_path)
    assert [(c.result.cut_inputs, c.result.cut_tokens) for c in cells] == 2 * [*expected.values()]
    notes = cut_notes((cell.result for cell in cells), 8)
    cut, tokens = expected["SST-2"]
    assert notes[0] == (
        f"task 'SST-2': {cut} of 6 test inputs do not fit into tuning.max_tokens=8 with their pattern and are cut "
        f"by {tokens} tokens together; raise it"
    )
    assert [note.split(":")[0] for note in notes] == ["task 'SST-2'", "task 'SST-2->mr'"]
    assert planned_cuts(asked, [load_task("SST-2", asked, gpt2)]) == notes
    assert planned_cuts(asked, [whole]) == []


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_the_test_inputs_are_kept_as_the_model_read_them(
    make_model: Any, data_root: Path, tmp_path: Path, kind: str
):
    model = make_model(kind)
    asked = settings(data_root, transfer={"SST-2": ["mr"]}, test_limit=3, data_seeds=(100, 13))
    evaluate_prompts(asked, model, tmp_path / "run", tmp_path)
    kept = read_prompts(tmp_path / "run")
    assert set(kept) == {("SST-2", 100), ("SST-2->mr", 100), ("SST-2", 13), ("SST-2->mr", 13)}
    for (name, _), cell in kept.items():
        renderer, rows = load_task("SST-2", asked, model).tests[name]
        assert cell.demonstrations == ""
        read = [tuple(model.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in cell.inputs]
        assert read == [renderer.example(row).input_ids for row in rows.test[:3]]


def test_transfer_tests_on_other_domains(gpt2: LanguageModel, data_root: Path, tmp_path: Path):
    cells = evaluate_prompts(
        settings(data_root, transfer={"SST-2": ["mr"]}, data_seeds=(100, 13)),
        gpt2, tmp_path / "run", tmp_path
    )  # fmt: skip
    assert [(c.result.task, c.result.seed) for c in cells] == [
        ("SST-2", 100), ("SST-2->mr", 100), ("SST-2", 13), ("SST-2->mr", 13),
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="subj has labels subjective, objective, SST-2 negative, positive"):
        load_task("SST-2", settings(data_root, transfer={"SST-2": ["subj"]}), gpt2)


def test_psi_bends_the_gradient_before_clipping(gpt2: LanguageModel):
    """After a backward pass, `regularize` replaces prompt.grad by psi(prompt.grad, mean state)."""
    backbone = make_backbone(gpt2)
    psi = make_regularizer(16, RegularizerConfig(4, 1, True, "none", "xavier", "row_l2", 4), 0)
    tunable = PromptTunable(backbone, torch.nn.Parameter(torch.randn(3, 16)), psi)
    raw, state = torch.randn(3, 16) * 100, torch.randn(16)
    tunable.prompt.grad = raw.clone()
    coefficient = tunable.regularize(state)
    expected, z = psi(raw, state)
    assert tunable.prompt.grad is not None
    torch.testing.assert_close(tunable.prompt.grad, expected.detach())
    assert coefficient == pytest.approx(float(z.detach()))
    assert tunable.prompt.grad.norm() > 1  # clipping comes after
    assert not tunable.prompt.grad.requires_grad


def test_starting_points(gpt2: LanguageModel, data_root: Path, tmp_path: Path):
    backbone = make_backbone(gpt2)
    with pytest.raises(ConfigError, match="supmer starts from a meta-learned prompt"):
        settings(data_root, tuning="supmer")
    save_prompt(tmp_path / "p.safetensors", torch.ones(2, 16))
    given = settings(data_root, prompt_path=str(tmp_path / "p.safetensors"))
    start = starting_point(given, gpt2, backbone)
    assert make_tunable(given, backbone, start, 0).virtual_tokens == 2
    assert start.regularizer is None
    with pytest.raises(ConfigError, match="holds a prompt alone"):
        starting_point(replace(given, tuning="supmer"), gpt2, backbone)
    released = starting_point(replace(given, as_released=True), gpt2, backbone)
    assert released.regularizer is not None  # item 10: plain prompt tuning also passes a random psi
    assert released.regularizer.rescale.value == "matrix_l2"


def test_selection_follows_the_named_set(gpt2: LanguageModel, data_root: Path):
    assert settings(data_root).train_rules().select_on == "dev"
    assert settings(data_root, switches={"test_selection": True}).train_rules().select_on == "test"
    task = load_task("SST-2", settings(data_root), gpt2)
    rows = task.rows.train
    examples = tuple(task.renderer.example(row) for row in rows)
    labels = tuple(int(row["label"]) for row in rows)
    right = LabelledSet(examples, labels, task.renderer.label_ids)
    wrong = LabelledSet(examples, tuple(1 - label for label in labels), task.renderer.label_ids)
    rules = replace(settings(data_root).train, steps=20, evaluate_every=1, batch_size=8)
    chosen = {}
    for name, dev in (("right", right), ("wrong", wrong)):
        tunable = PromptTunable(make_backbone(gpt2), torch.nn.Parameter(torch.randn(3, 16)))
        cell = tune(tunable, gpt2, train=right, dev=dev, tests={"t": right}, rules=rules, seed=0)
        points = [(p.select_accuracy, -(p.select_loss or 0.0)) for p in cell.curve]
        chosen[name] = cell.chosen_step
        assert cell.chosen_step == 1 + points.index(max(points))


def test_whole_vocabulary_prediction_may_miss_every_label():
    answers = LabelScores(torch.tensor([[0.1, 2.0], [3.0, 0.2]]), torch.tensor([7, 9]), (0, 1), (5, 9))
    assert answers.predicted("verbalizers") == [0, 1]
    assert answers.predicted("vocabulary") == [-1, 1]
    assert answers.accuracy("vocabulary") == 0.5
    assert answers.loss() == pytest.approx(0.15)


def test_examples_pass_in_whole_permutations():
    order = example_order(5, 12, 0)
    assert sorted(order[:5]) == sorted(order[5:10]) == [0, 1, 2, 3, 4]
    assert order == example_order(5, 12, 0)


def test_deviations(gpt2: LanguageModel, data_root: Path, tmp_path: Path):
    cells = evaluate_prompts(
        settings(data_root, data_seeds=(100, 13), train_seeds=(1, 2)), gpt2, tmp_path / "r", tmp_path
    )
    assert len({c.result.seed for c in cells}) == 4
    assert deviations([c.result for c in cells])["SST-2"]["runs"] == 4
