"""A harness user's way in one process: its tasks through every in-context method, beside its own run, to a report."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

pytest.importorskip("lm_eval")

import lm_eval
from lm_eval.loggers import EvaluationTracker
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from metashot.base.errors import ConfigError
from metashot.base.files import read_lines
from metashot.engine.models.loading import load_model
from metashot.engine.models.sources import named_model
from metashot.stages import command
from metashot.stages.execution import execute

SHOTS = 3
METHODS: dict[str, tuple[str, ...]] = {
    "direct_0": ("method=direct", "k=0"),
    "direct": ("method=direct",),
    "channel": ("method=channel",),
    "pmi": ("method=pmi",),
    "calibrated": ("method=calibrated",),
    "batch_calibrated": ("method=batch_calibrated",),
    "domain_pmi": ("method=domain_pmi",),
    "zero": ("method=zero",),
    "pmi_zero": ("method=pmi_zero",),
    "channel_zero": ("method=channel_zero",),
    "batch": ("method=direct", "method.name=batch", "method.calibration=batch_transductive"),
    "prior": ("method=direct", "method.name=prior", "method.calibration=prior_transductive"),
}
COLOURS, TOOLS = ["red", "dark green", "blue"], ["a hammer", "a saw", "nails and a file"]


def write_tasks(folder: Path) -> Path:
    """A multiple-choice task of which rows have choices of their own, and one whose answers are written."""
    choices = [
        {
            "question": f"{n} {'what colour' if n % 2 else 'which tool'}?",
            "choices": (TOOLS, COLOURS)[n % 2],
            "answer": n % 3,
        }
        for n in range(32)
    ]
    answers = [{"question": f"what comes after {n}?", "answer": str(n + 1)} for n in range(14)]
    common = {"dataset_path": "json", "training_split": "train", "test_split": "test"}
    kinds: dict[str, dict[str, Any]] = {
        "local_choice": {
            "output_type": "multiple_choice", "doc_to_text": "Question: {{question}}\nAnswer:",
            "doc_to_choice": "{{choices}}", "doc_to_target": "{{answer}}", "metric_list": [{"metric": "acc"}],
        },
        "local_answer": {
            "output_type": "generate_until", "doc_to_text": "{{question}}\n", "doc_to_target": "{{answer}}",
            "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4, "do_sample": False},
            "metric_list": [{"metric": "exact_match"}],
        },
    }  # fmt: skip
    for name, config in kinds.items():
        rows = choices if name == "local_choice" else answers
        files = {}
        for split, part in (("train", rows[8:]), ("test", rows[:8])):
            files[split] = str(folder / f"{name}_{split}.jsonl")
            Path(files[split]).write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
        content = {"task": name, **common, "dataset_kwargs": {"data_files": files}, **config}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory):
    """Task files, and a cache of datasets that is not the user's."""
    import datasets

    folder = tmp_path_factory.mktemp("chain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        patch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
        command.register_resolvers()
        (folder / "tasks").mkdir()
        write_tasks(folder / "tasks")
        yield folder


def stages(folder: Path, *overrides: str) -> Path:
    """What `run.py` does with a composed config."""
    with initialize_config_dir(str(Path(__file__).parents[2] / "conf"), version_base="1.3"):
        config = compose("config", [f"results_root={folder.parent / 'results'}", "logger=none", *overrides])
    folder.mkdir(parents=True)
    execute(OmegaConf.to_container(config, resolve=True, throw_on_missing=True), folder, list(overrides))
    return folder


@pytest.fixture(scope="module")
def runs(place: Path) -> dict[str, Path]:
    """The output folder of each method on the multiple-choice task."""
    data = ("data=lm_eval", "data.tasks=[local_choice]", f"data.include_path={place / 'tasks'}", "model=tiny")
    return {
        name: stages(place / name, *data, f"k={SHOTS}", "seeds=[100,13]", *overrides)
        for name, overrides in METHODS.items()
    }


@pytest.fixture(scope="module")
def harness(place: Path) -> dict[str, Any]:
    """The harness's own evaluation of the same weights, with its files in `place/harness`."""
    loaded = load_model(named_model("tiny"))
    model: Any = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, device="cpu", batch_size=4)
    tracker = EvaluationTracker(output_path=str(place / "harness"))
    found = lm_eval.simple_evaluate(
        model=model, tasks=["local_choice"], num_fewshot=0, bootstrap_iters=0,
        task_manager=TaskManager(include_path=str(place / "tasks"), include_defaults=False),
        evaluation_tracker=tracker,
    )  # fmt: skip
    samples = found.pop("samples")
    tracker.save_results_aggregated(results=found, samples=samples)
    tracker.save_results_samples(task_name="local_choice", samples=samples["local_choice"])
    return {**found, "samples": samples}


@pytest.mark.slow
def test_direct_without_demonstrations_is_the_harness(runs, harness):
    results = list(read_lines(runs["direct_0"] / "results.jsonl"))
    assert {row["metric"] for row in results} == {"accuracy"}
    assert {row["value"] for row in results} == {harness["results"]["local_choice"]["acc,none"]}
    samples = sorted(harness["samples"]["local_choice"], key=lambda sample: sample["doc_id"])
    rows = [row for row in read_lines(runs["direct_0"] / "predictions.jsonl") if row["seed"] == 100]
    assert len(rows) == len(samples) == 8
    for sample, row in zip(samples, rows, strict=True):
        theirs = [-float(answer[0][0]) for answer in sample["resps"]]
        assert row["sum_nll"] == pytest.approx(theirs, abs=1e-4)


def test_every_in_context_method_ranks_every_document(runs):
    scores = {}
    for name, folder in runs.items():
        rows = list(read_lines(folder / "predictions.jsonl"))
        assert len(rows) == 16, name
        assert all(row["prediction"] in row["options"] and len(row["options"]) == 3 for row in rows)
        scores[name] = tuple(value for row in rows for value in row["nll"])
    # No two methods are one under two names, except that without demonstrations `direct` is `zero`.
    assert len({*scores.values()}) == len(scores) - (scores["zero"] == scores["direct_0"])


def test_a_generation_task_is_answered_and_graded(place):
    folder = stages(
        place / "generate", "data=lm_eval", "data.tasks=[local_answer]", f"data.include_path={place / 'tasks'}",
        "model=tiny", "method=generate", "k=2", "seeds=[100]",
    )  # fmt: skip
    (result,) = read_lines(folder / "results.jsonl")
    rows = list(read_lines(folder / "predictions.jsonl"))
    assert (result["metric"], result["n"], len(rows)) == ("exact_match", 8, 8)
    assert all("\n" not in row["prediction"] for row in rows)


def test_a_key_that_the_task_decides_is_refused_and_a_format_of_ours_takes_it(place):
    given = (
        "data=lm_eval", "data.tasks=[local_answer]", f"data.include_path={place / 'tasks'}", "model=tiny", "method=generate",
        "k=2", "seeds=[100]", "method.max_new_tokens=4",
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"method\.max_new_tokens: is the task's own affair"):
        stages(place / "refused", *given)
    folder = stages(place / "ours", *given, "prompt=template")
    assert all(row["texts"] for row in read_lines(folder / "predictions.jsonl"))


def test_report_and_compare_take_both_sides(place, runs, harness, capsys):
    own = next((place / "harness").rglob("results_*.json")).parent
    folders = [*map(str, runs.values()), str(own)]
    report = stages(
        place / "report",
        "stage=report",
        f"runs=[{','.join(folders)}]",
        "report.draws=50",
        "report.permutations=50",
    )
    text = (report / "report.md").read_text(encoding="utf-8")
    assert "Channel" in text
    assert "lm_eval" in text or "lm-eval" in text
    capsys.readouterr()
    stages(place / "compare", "stage=compare", f"runs=[{runs['direct_0']},{own}]", "compare.permutations=100")
    said = capsys.readouterr().out
    assert "local_choice" in said
    assert "a run of lm-evaluation-harness has no config to compare" in said
    # The same answers: no example that only one of them has right.
    assert "Flipped" not in (place / "compare" / "compare.md").read_text(encoding="utf-8")
