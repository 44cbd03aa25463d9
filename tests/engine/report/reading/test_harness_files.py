"""The harness's samples count as they scored, and are held to the results file that stands beside them."""

import json
import re

import pytest

from metashot.base.errors import OutputError
from metashot.engine.report.formats.harness_output import harness_results
from metashot.engine.report.reading.folders import read_folder
from metashot.engine.report.reading.harness_files import OWN_FILE, read_harness_folder
from metashot.engine.report.reading.outputs import read_outputs
from metashot.engine.report.systems.results import collect_systems

STAMP = "2026-01-01T00-00-00.000000"
CHOICE = {"output_type": "multiple_choice", "target_delimiter": " "}


def choice_sample(place, right, **more):
    """Two choices; the first is right and likelier where `right`."""
    sums = ["-1.0", "-2.0"] if right else ["-2.0", "-1.0"]
    return {
        "doc_id": place, "target": "0", "filter": "none",
        "arguments": {f"gen_args_{i}": {"arg_0": f"q{place}", "arg_1": f" o{i}"} for i in range(2)},
        "filtered_resps": [[one, "False"] for one in sums], "acc": float(right),
    } | more  # fmt: skip


def write(folder, task, samples, config=CHOICE, results=None, stamp=STAMP, name="results", **keys):
    """A results file of one task with its samples; the results state what the samples say unless told otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    docs = len({sample["doc_id"] for sample in samples})
    stated = results or {"acc,none": sum(s["acc"] for s in samples) / docs}
    content = {
        "results": {task: stated}, "configs": {task: config}, "n-shot": {task: 0},
        "n-samples": {task: {"original": docs, "effective": docs}},
        "config": {"model": "hf", "model_args": {"pretrained": "org/small"}, "fewshot_seed": 1234},
    } | keys  # fmt: skip
    (folder / f"{name}_{stamp}.json").write_text(json.dumps(content))
    path = folder / f"samples_{task}_{stamp}.jsonl"
    path.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    return path


def values(folder):
    return {(c.result.method, c.result.task): c.result.value for c in read_harness_folder(folder).cells}


SAMPLES = [choice_sample(place, place < 6) for place in range(8)]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda lines: lines[4:], "holds 4 samples of task t, the results file states 8"),
        (lambda lines: lines[:4], "holds 4 samples of task t, the results file states 8"),
        (lambda lines: [*lines[:-1], lines[-1][: len(lines[-1]) // 2]], "holds 7 samples of task t"),
        (lambda lines: [*lines[:6], *lines[:2]], "2 samples of task t stand there twice"),
        (
            lambda lines: [*lines[:-1], lines[-1].replace('"acc": 0.0', '"acc": 1.0')],
            "the samples of task t give acc 87.5, the results file states 75.0",
        ),
    ],
)
def test_samples_that_their_results_file_contradicts_are_left_out_and_it_is_said_why(tmp_path, damage, said):
    path = write(tmp_path, "t", SAMPLES)
    assert values(tmp_path) == {("lm_eval", "t"): 0.75}
    path.write_text("".join(damage(path.read_text().splitlines(keepends=True))))
    found = read_harness_folder(tmp_path)
    assert found.cells == ()
    assert any(said in problem for problem in found.problems), found.problems
    with pytest.raises(OutputError, match=re.escape(said)):
        read_outputs([tmp_path])


def test_changed_log_likelihoods_change_no_figure_and_are_said(tmp_path):
    path = write(tmp_path, "t", SAMPLES)
    path.write_text(path.read_text().replace("-2.0", "-0.5"))
    found = read_harness_folder(tmp_path)
    assert [cell.result.value for cell in found.cells] == [0.75]
    assert all(prediction.options == () for prediction in found.cells[0].predictions)
    assert "the log-likelihoods rank otherwise" in found.problems[0]


@pytest.mark.parametrize(
    ("target", "texts", "sums", "acc"),
    [
        ("[0, 2]", ("a", "b", "c"), (-2.0, -3.0, -1.0), 1.0),  # two right answers
        ("1", ("yes", "yes", "no"), (-1.0, -2.0, -3.0), 0.0),  # options of one text: by place
        ("2", ("1", "2", "3"), (-2.0, -1.0, -3.0), 1.0),  # a text that is a number
        ("b", ("a", "b"), (-2.0, -1.0), 1.0),
        ("0", ("a", "b"), (-1.0, -1.0), 1.0),  # a tie: the first
    ],
)
def test_the_samples_own_accuracy_counts_however_its_target_is_written(tmp_path, target, texts, sums, acc):
    sample = choice_sample(0, True) | {
        "target": target, "acc": acc, "filtered_resps": [[str(value), "False"] for value in sums],
        "arguments": {f"gen_args_{i}": {"arg_0": "q", "arg_1": f" {text}"} for i, text in enumerate(texts)},
    }  # fmt: skip
    write(tmp_path, "t", [sample])
    (outputs,) = read_folder(tmp_path)
    assert outputs.problems == ()
    assert outputs.results["value"].to_list() == [acc]
    (row,) = collect_systems(read_outputs([tmp_path]), lambda _: (), draws=5, level=0.95, seed=0)[0]
    assert row.figures.mean.value == acc


def test_every_run_in_a_folder_is_read_and_of_two_of_one_task_the_newest(tmp_path):
    write(tmp_path, "a", SAMPLES, stamp="2026-01-01T00-00-00.0")
    write(tmp_path, "b", SAMPLES[:4], stamp="2026-01-02T00-00-00.0", name="out")
    write(tmp_path, "a", SAMPLES[2:], stamp="2026-01-03T00-00-00.0")
    assert values(tmp_path) == {("lm_eval", "a"): pytest.approx(4 / 6), ("lm_eval", "b"): 1.0}
    assert ["task a was run again" in problem for problem in read_harness_folder(tmp_path).problems] == [True]


def test_named_filters_and_normalized_accuracy_are_systems_of_their_own(tmp_path):
    answers = [
        {"doc_id": place, "target": "4", "filter": filter_, "arguments": {}, "filtered_resps": ["4"], "exact_match": hit}
        for place in range(4)
        for filter_, hit in (("strict-match", 0.0), ("flexible-extract", float(place < 3)))
    ]  # fmt: skip
    stated = {"exact_match,strict-match": 0.0, "exact_match,flexible-extract": 0.75}
    write(tmp_path / "g", "g", answers, {"output_type": "generate_until"}, stated)
    assert values(tmp_path / "g") == {
        ("lm_eval (strict-match)", "g"): 0.0,
        ("lm_eval (flexible-extract)", "g"): 0.75,
    }
    # -2 over "o1" (2 characters) against -3 over "a long one" (10): the sum takes the first, per character the second.
    one = choice_sample(0, True, acc=0.0, acc_norm=1.0) | {
        "target": "1",
        "filtered_resps": [["-2", ""], ["-3", ""]],
    }
    one["arguments"]["gen_args_1"]["arg_1"] = " a long one"
    write(tmp_path / "n", "n", [one], results={"acc,none": 0.0, "acc_norm,none": 1.0})
    assert values(tmp_path / "n") == {("lm_eval", "n"): 0.0, ("lm_eval (acc_norm)", "n"): 1.0}
    (outputs,) = read_folder(tmp_path / "n")
    assert (outputs.problems, outputs.predictions["prediction"].to_list()) == ((), ["o0", "a long one"])


def test_a_harness_run_of_ours_is_read_and_our_reports_file_is_not(tmp_path):
    write(tmp_path, "t", SAMPLES, model_source="metashot")
    assert values(tmp_path) == {("lm_eval", "t"): 0.75}
    (tmp_path / f"results_{STAMP}.json").rename(tmp_path / OWN_FILE)
    assert values(tmp_path) == {}


def test_harness_files_in_a_runs_folder_do_not_hide_its_rows(tmp_path, made, written):
    written(tmp_path, [made("mood", 13, 1.0)])
    write(tmp_path, "t", SAMPLES)
    outputs = read_outputs([tmp_path])
    assert sorted(outputs.results.select("method", "task").iter_rows()) == [
        ("direct", "mood"),
        ("lm_eval", "t"),
    ]


@pytest.mark.parametrize(("rule", "name"), [("characters", "acc_norm"), ("sum", "acc")])
def test_accuracy_by_score_per_character_is_written_under_its_own_name(tmp_path, made, written, rule, name):
    written(tmp_path, [made("quiz", 13, 1.0)], {"k": 16, "method": {"normalization": rule}})
    (row,) = collect_systems(read_outputs([tmp_path]), lambda _: (), draws=5, level=0.95, seed=0)[0]
    content = harness_results(row, 5, 0.95, 0)
    assert content["results"]["quiz"][f"{name},none"] == row.figures.mean.value
    assert content["higher_is_better"] == {"quiz": {name: True}}
