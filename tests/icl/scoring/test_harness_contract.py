"""A harness task is what the harness makes of it: log-likelihoods and every metric of its own model, of ours, and of our runs.

Each shape of task below is written as a YAML file over a few rows, run by lm-evaluation-harness with its `hf` model
and with `--model metashot`, and by `data=lm_eval demonstrations=harness`, at k = 0, 3 and 5.
"""

import csv
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

from metashot.base.errors import MetashotError
from metashot.base.files import read_lines
from metashot.base.json_text import read_json
from metashot.data.kshot import k_shot_split
from metashot.data.tasks.harness_tasks import HarnessSource
from metashot.engine.cells.prompts import read_prompts
from metashot.engine.models.loading import LazyLanguageModel, load_model
from metashot.engine.models.sources import named_model
from metashot.engine.scoring.makers import prefix_scorer
from metashot.harness import MetashotLM
from metashot.icl.prompting.config import HarnessPrompt
from metashot.icl.prompting.methods import named_method
from metashot.icl.scoring.cell import Truncation
from metashot.icl.scoring.evaluation_settings import EvaluateSettings
from metashot.icl.scoring.harness import METRICS_FILE, HarnessCells
from metashot.stages import command
from metashot.stages.execution import execute

CASES = Path(__file__).parents[4] / "shared" / "cases3" / "harness"
NATS = 1e-4
CODE = """
def golds(doc):
    return sorted({doc["gold"], 0})


def half(doc, results):
    best = max(range(len(results)), key=lambda place: results[place][0])
    return {"half_right": 1.0 if best == doc["gold"] else 0.5, "spread": results[0][0] - results[1][0]}


def largest(values):
    return max(values)


def shouted(dataset):
    return dataset.map(lambda doc: {"q": doc["q"].upper()})


def few():
    return [{"q": f"sample {place}", "choices": ["in", "out"], "gold": place % 2, "lead": "So"} for place in range(6)]
"""


def rows(split: str, count: int) -> list[dict[str, Any]]:
    nouns, verbs = ["lamp", "river", "baker", "ticket", "owl"], ["waits", "opens", "sings", "is late"]
    found = []
    for place in range(count):
        said = f"the {nouns[place % 5]} {verbs[(place // 2) % 4]} {split} {place}"
        found.append(
            {
                "q": said, "choices": ["calm", "very angry", "odd"][: 2 + place % 2], "gold": place % 2,
                "subject": ["towns", "animals"][place % 2], "lead": ["The answer is", "Then"][place % 3 == 0],
                "before": said + " since the", "after": ["bell rang twice", "moon rose"][place % 2],
                "pair": [f"{said} because Ann", f"{said} because Eve"], "number": str(place + 1),
            }
        )  # fmt: skip
    return found


CHOICE: dict[str, Any] = {
    "output_type": "multiple_choice", "doc_to_text": "{{q}}\nAnswer:", "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{gold}}", "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
}  # fmt: skip
GENERATED: dict[str, Any] = {
    "output_type": "generate_until", "doc_to_text": "{{q}}\nNumber:", "doc_to_target": "{{number}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6, "do_sample": False},
    "metric_list": [{"metric": "exact_match", "ignore_case": True, "regexes_to_ignore": [","]}],
}  # fmt: skip
FILTERS = [
    {"name": "last", "filter": [{"function": "regex", "group_select": -1, "regex_pattern": "(\\w+)"}, {"function": "take_first"}]},
    {"name": "first", "filter": [{"function": "regex", "regex_pattern": "([a-z]+)"}, {"function": "take_first"}]},
]  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "plain": CHOICE,
    "gold_list_shown": CHOICE | {"doc_to_target": "{{[gold, 0]}}", "fewshot_config": {"doc_to_target": "{{choices[gold]}}"}},
    "description_template": CHOICE | {"description": "Notes about {{subject}}.\n\n"},
    "description_field": CHOICE | {"description": "lead"},
    "delimiters": CHOICE | {"target_delimiter": ": ", "fewshot_delimiter": "\n###\n"},
    "prefix": CHOICE | {"gen_prefix": "The best answer is"},
    "prefix_field": CHOICE | {"gen_prefix": "lead"},
    "shown_otherwise": CHOICE | {"fewshot_config": {"doc_to_text": "Said: {{q}}\nLabel:", "target_delimiter": " = ", "fewshot_delimiter": "\n--\n", "gen_prefix": "It is"}},
    "first_ones": CHOICE | {"fewshot_config": {"sampler": "first_n"}},
    "samples": CHOICE | {"fewshot_config": {"samples": "!few"}},
    "twice": CHOICE | {"doc_to_choice": ["yes", "yes", "no"], "doc_to_target": 1},
    "text_target": CHOICE | {"doc_to_target": "{{choices[gold]}}"},
    "own_metrics": CHOICE | {"process_results": "!half", "metric_list": [{"metric": "half_right", "aggregation": "mean", "higher_is_better": True}, {"metric": "spread", "aggregation": "!largest", "higher_is_better": True}]},
    "many_metrics": CHOICE | {"doc_to_choice": ["calm", "angry"], "metric_list": [{"metric": name} for name in ("mcc", "acc", "acc_bytes", "acc_mutual_info", "brier_score", "exact_match")]},
    "only_mcc": CHOICE | {"doc_to_choice": ["calm", "angry"], "metric_list": [{"metric": "mcc"}]},
    "choices_in_text": CHOICE | {"doc_to_text": "gold", "doc_to_choice": "pair", "doc_to_target": "after", "metric_list": [{"metric": "acc"}]},
    "last_word": {"output_type": "loglikelihood", "doc_to_text": "{{before}}", "doc_to_target": " {{after}}", "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}]},
    "whole_text": {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{q}}", "metric_list": [{"metric": "word_perplexity"}, {"metric": "byte_perplexity"}, {"metric": "bits_per_byte"}]},
    "same_split": CHOICE | {"fewshot_split": "test"},
    "test_only": CHOICE | {"training_split": None},
    "never_shown": CHOICE | {"num_fewshot": 0},
    "processed": CHOICE | {"process_docs": "!shouted"},
    "filtered": GENERATED | {"filter_list": FILTERS},
    "generated": GENERATED,
    "penalty": GENERATED | {"generation_kwargs": {"until": ["\n"], "max_gen_toks": 6, "do_sample": False, "repetition_penalty": 1.3}},
}  # fmt: skip
ZERO_SHOT = {"gold_list": CHOICE | {"doc_to_target": "!golds"}}
"""The harness itself cannot show a document with several places as its target."""
GROUPS = {
    "both": "group: both\ntask: [plain, delimiters]\naggregate_metric_list: [{metric: acc, weight_by_size: true}]\n",
    "means": "group: means\ntask: [plain, processed]\naggregate_metric_list: [{metric: acc, weight_by_size: false}, {metric: acc_norm}]\n",
}


class _Tagged(str):
    pass


def _written(value: Any) -> Any:
    """`!name` as the harness's tag of a function in `code.py`."""
    if isinstance(value, dict):
        return {key: _written(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_written(one) for one in value]
    return _Tagged(f"code.{value[1:]}") if isinstance(value, str) and value.startswith("!") else value


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(_Tagged, lambda dumper, value: dumper.represent_scalar("!function", str(value)))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory):
    """Task files, and a cache of datasets that is not the user's."""
    import datasets

    folder = tmp_path_factory.mktemp("contract")
    tasks = folder / "tasks"
    tasks.mkdir()
    (tasks / "code.py").write_text(CODE, encoding="utf-8")
    files = {}
    for split, count in (("train", 12), ("test", 9)):
        files[split] = str(tasks / f"{split}.jsonl")
        Path(files[split]).write_text(
            "".join(json.dumps(row) + "\n" for row in rows(split, count)), encoding="utf-8"
        )
    common = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files},
        "training_split": "train",
        "test_split": "test",
    }
    for name, config in (SHAPES | ZERO_SHOT).items():
        content = {"task": name, "tag": "all_shapes" if name == "prefix" else None, **common, **config}
        (tasks / f"{name}.yaml").write_text(yaml.dump(_written(content), Dumper=_Dumper), encoding="utf-8")
    for name, text in GROUPS.items():
        (tasks / f"{name}.yaml").write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        patch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
        command.register_resolvers()
        yield folder


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    """The same weights as the harness's `hf` (whose rolling is right at batch size 1) and as `--model metashot`."""
    loaded = load_model(named_model("tiny"))
    given: Any = {"pretrained": loaded.model, "tokenizer": loaded.tokenizer, "device": "cpu"}
    return {"hf": HFLM(**given, batch_size=1), "metashot": MetashotLM(**given)}


def evaluated(model: Any, tasks: list[str], k: int, include: Path) -> dict[str, Any]:
    found = lm_eval.simple_evaluate(
        model=model, tasks=tasks, num_fewshot=k, bootstrap_iters=0, log_samples=True,
        task_manager=TaskManager(include_path=str(include), include_defaults=False),
    )  # fmt: skip
    assert found is not None
    return found


def run(folder: Path, include: Path, *overrides: str) -> Path:
    """What `run.py data=lm_eval` does."""
    return stages(folder, "data=lm_eval", f"data.include_path={include}", "seeds=[100]", *overrides)


def stages(folder: Path, *overrides: str) -> Path:
    """What `run.py` does."""
    given = ["model=tiny", f"results_root={folder.parent / 'results'}", "logger=none", *overrides]
    with initialize_config_dir(str(Path(__file__).parents[3] / "conf"), version_base="1.3"):
        config = compose("config", given)
    folder.mkdir(parents=True)
    execute(OmegaConf.to_container(config, resolve=True, throw_on_missing=True), folder, given)
    return folder


REPORT = ("report.formats=[csv]", "report.draws=20", "report.permutations=20")


def written(folder: Path, found: dict[str, Any]) -> list[Path]:
    """The files that the harness's command writes of each evaluation."""
    folders = []
    for name, results in found.items():
        tracker = EvaluationTracker(output_path=str(folder / name))
        tracker.general_config_tracker.log_experiment_args(
            model_source=name, model_args="pretrained=tiny", system_instruction="", chat_template="", fewshot_as_multiturn=False,
        )  # fmt: skip
        whole = {key: value for key, value in results.items() if key != "samples"}
        tracker.save_results_aggregated(results=whole, samples=results["samples"])
        for task, samples in results["samples"].items():
            tracker.save_results_samples(task_name=task, samples=samples)
        folders.append(next((folder / name).rglob("results_*.json")).parent)
    return folders


def check_report(folder: Path, found: dict[str, Any]) -> None:
    """The report's table of the tasks' own metrics: of our run and of the harness's files, as the harness states them."""
    with (folder / "tables" / "own_metrics.csv").open(encoding="utf-8") as file:
        rows = [{**row, "Method": row["Method"].partition(" [")[0]} for row in csv.DictReader(file)]
    for method in {row["Method"] for row in rows}:
        mine = [row for row in rows if row["Method"] == method]
        said = {(row["Task"], f"{row['Metric']},{row['Filter']}"): float(row["Value"]) for row in mine}
        for task, results in found["hf"]["results"].items():
            for key, value in metrics(results).items():
                assert said[task, key] == pytest.approx(value, abs=NATS, rel=1e-5), (method, task, key)
    assert len({row["Method"] for row in rows}) == 2


def metrics(results: dict[str, Any]) -> dict[str, float]:
    return {
        key: value
        for key, value in results.items()
        if "," in key and "_stderr" not in key and isinstance(value, int | float)
    }


def check_equal(folder: Path, harness: dict[str, Any], task: str) -> None:
    """Every metric of a task, and the log-likelihood of every option of every document."""
    (result,) = (row for row in read_lines(folder / "results.jsonl") if row["task"] == task)
    ours = {key: value for key, value in result["metrics"].items() if "_stderr" not in key}
    assert ours == pytest.approx(metrics(harness["results"][task]), abs=NATS, rel=1e-5), task
    lines = [row for row in read_lines(folder / "predictions.jsonl") if row["task"] == task]
    samples: dict[int, Any] = {sample["doc_id"]: sample for sample in harness["samples"][task]}
    assert len(lines) == len(samples)
    for row in lines:
        answers = [one[0] for one in samples[row["index"]]["resps"]]
        if isinstance(answers[0], str):
            continue
        theirs = [-float(one[0] if isinstance(one, tuple) else one) for one in answers]
        own = [*row["sum_nll"], *(value for layer in row["null_sum_nll"] for value in layer)]
        assert own == pytest.approx(theirs, abs=NATS), (task, row["index"])
    if all(row["score"] is not None for row in lines):
        assert sum(row["score"] for row in lines) / len(lines) == pytest.approx(result["value"])


@pytest.mark.slow
@pytest.mark.parametrize("k", [0, 3, 5])
def test_every_shape_is_the_harness_with_its_own_demonstrations(place: Path, models: dict[str, Any], k: int):
    names = [*SHAPES, *(() if k else ZERO_SHOT), *GROUPS]
    tasks = [name for name in names if name not in GROUPS]
    found = {name: evaluated(model, tasks, k, place / "tasks") for name, model in models.items()}
    folder = run(
        place / f"run{k}", place / "tasks", f"data.tasks=[{','.join(names)}]", f"k={k}", "demonstrations=harness",
        "method=direct",
    )  # fmt: skip
    for task in tasks:
        check_equal(folder, found["hf"], task)
        check_equal(folder, found["metashot"], task)
    own = written(place / f"files{k}", found)
    check_report(
        stages(place / f"report{k}", "stage=report", f"runs=[{folder},{','.join(map(str, own))}]", *REPORT),
        found,
    )
    groups = read_json(folder / METRICS_FILE)["seeds"]["100"]["groups"]
    for name in GROUPS:
        theirs = evaluated(models["hf"], [name], k, place / "tasks")["groups"][name]
        assert metrics(groups[name]) == pytest.approx(metrics(theirs), abs=NATS)


def test_ours_are_the_drawn_documents_in_the_words_of_the_task(place: Path):
    """A demonstration is what the task makes of the document; the seed draws them, and they are found again when stored."""
    given = ("data.tasks=[prefix_field,shown_otherwise]", "k=2", "method=direct")
    folder = run(place / "ours", place / "tasks", *given)
    drawn = [rows("train", 12)[index] for index in k_shot_split(12, k=2, seed=100).train]
    shown = read_prompts(folder)
    texts = [f"{one['q']}\nAnswer: {one['lead']} {one['choices'][one['gold']]}\n\n" for one in drawn]
    assert shown["prefix_field", 100].demonstrations == "".join(texts)
    # The query follows with `Said: ` only among demonstrations, whose delimiter is another one.
    texts = [f"Said: {one['q']}\nLabel: = It is {one['choices'][one['gold']]}\n--\n" for one in drawn]
    (first,) = _contexts(place, "shown_otherwise", 1)
    assert first == "".join(texts) + f"{rows('test', 9)[0]['q']}\nAnswer:"
    again = run(place / "again", place / "tasks", *given)
    prints = [
        {row["task"]: row["fingerprint"] for row in read_lines(one / "results.jsonl")}
        for one in (folder, again)
    ]
    assert prints[0] == prints[1]
    assert read_json(again / "run.json")["cost"]["computed_cells"] == 0


def _contexts(place: Path, task: str, count: int) -> list[str]:
    """The contexts of the first documents, as the plan shows them."""
    source = HarnessSource([task], place / "tasks")
    spec = named_model("tiny")
    method = named_method("direct")
    settings = EvaluateSettings("s", (task,), (100,), 2, "test", method, Truncation.SHARED, HarnessPrompt())
    cells = HarnessCells(settings, source, LazyLanguageModel(spec), prefix_scorer, source)
    (work,) = cells.work()
    return [cells.texts(work, row)[0][0] for row in range(count)]


REFUSED = [
    (("data.tasks=[prefix]", "method=channel"), "prefix: puts words in front of every answer (gen_prefix)"),
    (
        ("data.tasks=[own_metrics]", "method=pmi"),
        "own_metrics: scores answers by a rule of its own (process_results)",
    ),
    (("data.tasks=[plain]", "method=direct", "selection.labels=flipped"), "selection: changes what is shown"),
    (
        ("data.tasks=[plain]", "method=direct", "selection.strategy=random", "demonstrations=harness"),
        "selection.strategy: 'random' chooses demonstrations, and so does demonstrations=harness",
    ),
    (
        ("data=demo", "method=direct", "demonstrations=harness"),
        "demonstrations: is for tasks of lm-evaluation-harness",
    ),
    (("data=demo", "method=direct", "same_demonstrations=true"), "same_demonstrations: is for tasks of"),
]


@pytest.mark.parametrize(("overrides", "said"), REFUSED)
def test_what_cannot_be_carried_over_is_refused_by_name(
    place: Path, tmp_path: Path, overrides: tuple[str, ...], said: str
):
    include = (f"data.include_path={place / 'tasks'}", "data=lm_eval") if "data=demo" not in overrides else ()
    with pytest.raises(MetashotError) as caught:
        stages(tmp_path / "run", *include, "k=2", "seeds=[100]", *overrides)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_documents_that_share_what_is_shown_cost_fewer_tokens(place: Path, tmp_path: Path):
    given = ("data.tasks=[plain]", "k=3", "method=direct", "demonstrations=harness")
    each = run(tmp_path / "each", place / "tasks", *given)
    same = run(tmp_path / "same", place / "tasks", *given, "same_demonstrations=true")
    costs = [read_json(one / "run.json")["cost"]["tokens_computed"] for one in (each, same)]
    assert costs[1] < costs[0] / 2
