"""The real lm-evaluation-harness runs `hf` and `metashot` on the same local tasks: every number is the same."""

from __future__ import annotations

import importlib
import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("lm_eval")

import lm_eval
import lm_eval.api.instance
import lm_eval.api.registry
from lm_eval.tasks import TaskManager

import metashot.harness  # noqa: F401  registers the model
from metashot.base.errors import MetashotError
from metashot.engine.models.loading import load_model
from metashot.engine.models.sources import TinyModel, named_model

WORDS = [
    "red",
    "green",
    "blue",
    "cold",
    "warm",
    "old",
    "new",
    "small",
    "large",
    "quick",
    "slow",
    "bright",
    "dark",
    "soft",
    "hard",
]


def sentence(place: int, length: int) -> str:
    return " ".join(WORDS[(place * 7 + step * (place % 5 + 1)) % len(WORDS)] for step in range(length))


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> TaskManager:
    """A multiple-choice, a whole-text and a generation task over local rows."""
    folder = tmp_path_factory.mktemp("harness")
    rows = {
        split: [
            {
                "question": sentence(place + offset, 6),
                "choices": [sentence(place + other, 1 + other) for other in range(4)],
                "endings": [sentence(place + other, 20 + other) for other in range(4)],
                "answer": place % 4,
            }
            for place in range(count)
        ]
        for split, count, offset in (("train", 12, 50), ("test", 8, 0))
    }
    files = {}
    for split, content in rows.items():
        path = folder / f"{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
        files[split] = str(path)
    common: dict[str, Any] = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files},
        "test_split": "test",
    }
    tasks = [
        common
        | {
            "task": "local_choice", "training_split": "train", "output_type": "multiple_choice",
            "doc_to_text": "Question: {{question}}\nAnswer: ", "doc_to_choice": "{{choices}}", "doc_to_target": "{{answer}}",
            "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}, {"metric": "acc_mutual_info"}],
        },
        common
        | {
            "task": "local_endings", "training_split": "train", "output_type": "multiple_choice",
            "doc_to_text": "{{question}}", "doc_to_choice": "{{endings}}", "doc_to_target": "{{answer}}",
            "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        },
        common
        | {
            "task": "local_text", "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{question}}",
            "metric_list": [{"metric": "word_perplexity"}],
        },
        common
        | {
            "task": "local_answer", "training_split": "train", "output_type": "generate_until",
            "doc_to_text": "Question: {{question}}\nAnswer:", "doc_to_target": "{{choices[answer]}}",
            "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6}, "metric_list": [{"metric": "exact_match"}],
        },
    ]  # fmt: skip
    for task in tasks:
        (folder / f"{task['task']}.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    return TaskManager(include_path=str(folder), include_defaults=False)


def run(
    manager: TaskManager,
    model: str,
    tasks: list[str],
    arguments: dict[str, Any],
    shots: int,
    limit: int | None = None,
) -> dict[str, Any]:
    return lm_eval.simple_evaluate(
        model=model, model_args={"dtype": "float32", **arguments}, tasks=tasks, num_fewshot=shots, device="cpu",
        task_manager=manager, log_samples=True, bootstrap_iters=0, limit=limit,
    )  # fmt: skip


def same_numbers(one: dict[str, Any], other: dict[str, Any]) -> None:
    for task, metrics in one["results"].items():
        for name, value in metrics.items():
            if isinstance(value, float):
                assert other["results"][task][name] == pytest.approx(value, rel=1e-4, abs=1e-4), (task, name)
            else:
                assert other["results"][task][name] == value, (task, name)
    for task, samples in one["samples"].items():
        for mine, theirs in zip(samples, other["samples"][task], strict=True):
            assert mine["arguments"] == theirs["arguments"]
            for left, right in zip(mine["resps"], theirs["resps"], strict=True):
                assert_same_answer(left[0], right[0])


def assert_same_answer(left: Any, right: Any) -> None:
    if isinstance(left, tuple):
        assert right[0] == pytest.approx(left[0], abs=1e-4)
        assert right[1] == left[1]
    elif isinstance(left, str):
        assert right == left
    else:
        assert right == pytest.approx(left, abs=1e-4)


@pytest.fixture(scope="module", params=["llama", pytest.param("gpt2", marks=pytest.mark.slow)])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model with random weights, saved as a model folder."""
    path = tmp_path_factory.mktemp(request.param)
    loaded = load_model(TinyModel("tiny", request.param, device="cpu"))
    loaded.model.save_pretrained(path)
    loaded.tokenizer.save_pretrained(path)
    return str(path)


@pytest.mark.parametrize("shots", [0, 3])
def test_choices_have_equal_metrics_and_log_likelihoods(
    manager: TaskManager, folder: str, shots: int
) -> None:
    given = {"pretrained": folder}
    expected = run(manager, "hf", ["local_choice"], given, shots)
    same_numbers(expected, run(manager, "metashot", ["local_choice"], given, shots))
    assert {"acc,none", "acc_norm,none", "acc_mutual_info,none"} <= set(expected["results"]["local_choice"])


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> str:
    """SmolLM2-135M as a model folder."""
    path = tmp_path_factory.mktemp("smollm2")
    loaded = load_model(named_model("smollm2_135m"))
    loaded.model.save_pretrained(path)
    loaded.tokenizer.save_pretrained(path)
    return str(path)


def likelihoods(found: dict[str, Any], task: str) -> list[float]:
    return [answer[0][0] for sample in found["samples"][task] for answer in sample["resps"]]


def worst(one: list[float], other: list[float]) -> float:
    return max(abs(left - right) for left, right in zip(one, other, strict=True))


@pytest.mark.slow
@pytest.mark.real_model
@pytest.mark.parametrize("shots", [0, 3])
def test_real_weights_give_the_same_metrics_and_log_likelihoods(
    manager: TaskManager, smollm2: str, shots: int
) -> None:
    """With `softmax_dtype=float64`; torch's own float32 one adds 3e-6 nats to every token of an ending, always the same way."""
    given, tasks = {"pretrained": smollm2}, ["local_choice", "local_endings"]
    expected = run(manager, "hf", tasks, {**given, "softmax_dtype": "float64"}, shots)
    same_numbers(expected, run(manager, "metashot", tasks, given, shots))


@pytest.mark.slow
@pytest.mark.real_model
def test_real_weights_give_the_same_texts(manager: TaskManager, smollm2: str) -> None:
    given, tasks = {"pretrained": smollm2}, ["local_text", "local_answer"]
    expected = run(manager, "hf", tasks, {**given, "softmax_dtype": "float64"}, 0)
    same_numbers(expected, run(manager, "metashot", tasks, given, 0))


@pytest.mark.slow
@pytest.mark.real_model
def test_long_endings_are_nearer_to_double_precision_than_those_of_hf(
    manager: TaskManager, smollm2: str
) -> None:
    given, tasks = {"pretrained": smollm2}, ["local_endings"]
    hf, ours = (run(manager, model, tasks, given, 0, 3) for model in ("hf", "metashot"))
    assert ours["results"] == hf["results"]
    exact = likelihoods(run(manager, "hf", tasks, {**given, "dtype": "float64"}, 0, 3), "local_endings")
    errors = [worst(likelihoods(found, "local_endings"), exact) for found in (ours, hf)]
    print("largest errors, ours and hf:", errors)
    assert errors[0] <= 2e-4
    assert errors[0] < errors[1]


def test_whole_texts_and_generated_answers_are_equal(manager: TaskManager, folder: str) -> None:
    given, tasks = {"pretrained": folder}, ["local_text", "local_answer"]
    expected = run(manager, "hf", tasks, given, 0)
    found = run(manager, "metashot", tasks, given, 0)
    same_numbers(expected, found)
    assert any(sample["resps"][0][0] for sample in expected["samples"]["local_answer"])


def test_a_context_that_is_too_long_is_cut_as_by_hf(manager: TaskManager, folder: str) -> None:
    given = {"pretrained": folder, "max_length": 24}
    same_numbers(
        run(manager, "hf", ["local_choice"], given, 3), run(manager, "metashot", ["local_choice"], given, 3)
    )


GENERATION = [
    {},
    {"repetition_penalty": 1.8},
    {"no_repeat_ngram_size": 1},
    {"max_length": 60},
    {"do_sample": True, "temperature": 0.7},
    {"temperature": 0.9},
    {"do_sample": True, "temperature": 1.0, "top_p": 0.5, "top_k": 5},
    {"do_sample": False, "temperature": 0.7},
    {"num_beams": 2},
    {"max_new_tokens": 9},
    {"until": "a"},
    {"suppress_tokens": [10, 11, 12]},
]
"""What people give; an argument that is not known to be greedy is `hf`'s own affair."""


@pytest.mark.parametrize("kwargs", GENERATION, ids=str)
def test_answers_are_those_of_hf_under_any_generation_argument(
    manager: TaskManager, folder: str, kwargs: dict[str, Any]
) -> None:
    found = [
        lm_eval.simple_evaluate(
            model=model, model_args={"pretrained": folder, "dtype": "float32"}, tasks=["local_answer"], device="cpu",
            task_manager=manager, gen_kwargs=kwargs, bootstrap_iters=0, log_samples=True, limit=4,
        )["samples"]["local_answer"]
        for model in ("hf", "metashot")
    ]  # fmt: skip
    expected, ours = ([sample["resps"] for sample in samples] for samples in found)
    assert ours == expected
    assert any(answer for sample in expected for row in sample for answer in row)


def language_model(folder: str, **arguments: Any) -> list[Any]:
    """`hf` and ours over one folder."""
    given = {"pretrained": folder, "dtype": "float32", "device": "cpu", **arguments}
    return [lm_eval.api.registry.get_model(name)(**given) for name in ("hf", "metashot")]


def asked(kind: str, *arguments: Any) -> list[Any]:
    return [lm_eval.api.instance.Instance(kind, {}, arguments, 0)]


def test_what_stands_before_the_end_of_a_thought_is_no_answer(folder: str) -> None:
    question = asked("generate_until", "one two", {"until": [], "max_gen_toks": 12})
    whole = language_model(folder)[1].generate_until(question)[0]
    answers = [
        model.generate_until(question)[0] for model in language_model(folder, think_end_token=whole[3])
    ]
    assert answers[0] == answers[1] != whole
    assert whole.endswith(answers[1])


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("loglikelihood", ("one", "")),
        ("loglikelihood", ("one", " two" * 60)),
        ("generate_until", ("one two", {"until": [], "max_gen_toks": 64})),
    ],
    ids=["empty continuation", "longer than the model", "no room for a prompt"],
)
def test_what_hf_refuses_is_refused(folder: str, kind: str, arguments: tuple[Any, ...]) -> None:
    said = []
    for model in language_model(folder, max_length=32):
        with pytest.raises(AssertionError) as refused:
            getattr(model, kind)(asked(kind, *arguments))
        said.append(str(refused.value))
    assert said[1] == said[0] or "len(continuation_enc)" in said[1]


def test_what_is_cut_is_said_once_in_the_words_of_hf(folder: str, caplog: pytest.LogCaptureFixture) -> None:
    _, model = language_model(folder, max_length=16)
    long = [asked("loglikelihood", "one two " * count, " three")[0] for count in (20, 30, 40, 1)]
    model.loglikelihood(long)
    (cut,) = [record for record in caplog.records if "Combined length of context" in record.message]
    assert cut.name == "lm_eval.models.huggingface"
    assert "so for 3 requests" in cut.message
    caplog.clear()
    prompts = [asked("generate_until", "one two " * count, {"max_gen_toks": 4})[0] for count in (20, 30, 1)]
    model.generate_until(prompts)
    (cut,) = [record for record in caplog.records if "Left truncation applied" in record.message]
    assert "truncating to last 12 tokens" in cut.message


def test_a_model_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none", "nobody/nothing"):
        with pytest.raises(
            MetashotError, match=r"^pretrained: .* is not loaded: .*\(give a model folder"
        ) as said:
            lm_eval.api.registry.get_model("metashot")(str(place))
        assert "\n" not in str(said.value)


def test_the_entry_point_names_the_model(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))["project"]
    module, _, name = project["entry-points"]["lm_eval.models"]["metashot"].partition(":")
    assert getattr(importlib.import_module(module), name) is lm_eval.api.registry.get_model("metashot")


def test_an_embedded_model_goes_by_its_name(manager: TaskManager) -> None:
    found = run(manager, "metashot", ["local_choice"], {"pretrained": "tiny"}, 0)
    assert found["results"]["local_choice"]["sample_len"] == 8


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")


def test_without_the_harness_the_import_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("metashot.harness", "metashot.harness.language_model"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "lm_eval.models.huggingface", None)
    with pytest.raises(ImportError, match=r"needs the package lm-eval, .*pip install 'metashot\[harness\]'"):
        importlib.import_module("metashot.harness")


def test_requests_one_by_one_are_answered_as_in_one_call_and_demonstrations_run_once() -> None:
    """Tokens that run through the model are counted."""
    shown = " ".join(sentence(place, 8) for place in range(6))
    requests = [
        lm_eval.api.instance.Instance(
            "loglikelihood", {}, (f"{shown} {WORDS[place]}", f" {WORDS[-place]}"), place
        )
        for place in range(5)
    ]
    make = lm_eval.api.registry.get_model("metashot")
    keeping, plain = make("tiny"), make("tiny", keep_mb="0")
    together = plain.loglikelihood(requests, disable_tqdm=True)
    counts: list[int] = []
    plain.model.get_input_embeddings().register_forward_pre_hook(lambda _, ids: counts.append(ids[0].numel()))
    keeping.model.get_input_embeddings().register_forward_pre_hook(
        lambda _, ids: counts.append(-ids[0].numel())
    )
    for lm in (plain, keeping):
        for one, (value, greedy) in zip(requests, together, strict=True):
            (found,) = lm.loglikelihood([one], disable_tqdm=True)
            assert found[0] == pytest.approx(value, abs=1e-5)
            assert found[1] == greedy
    theirs, mine = sum(n for n in counts if n > 0), -sum(n for n in counts if n < 0)
    assert 0 < 2 * mine < theirs
