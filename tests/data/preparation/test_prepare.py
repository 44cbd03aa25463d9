"""Preparing a setting from local files: the right lines, in the right files, once."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from metashot.base.errors import DataError
from metashot.data.preparation import task_files
from metashot.data.preparation.doctor import doctor
from metashot.data.preparation.prepare import PrepareReport, PrepareSettings, prepare
from metashot.data.recipes import load_recipe
from metashot.data.rows.manifest import read_manifest
from metashot.data.settings import Setting
from metashot.data.tasks.modules import check_corrections

SEEDS = (100, 13)


def mnli_rows(n: int) -> list[dict[str, Any]]:
    return [{"premise": f"premise {i}", "hypothesis": f"guess {i}", "label": i % 3} for i in range(n)]


def write_split(raw: Path, repo: str, config: str, split: str, rows: list[dict[str, Any]]) -> None:
    folder = raw / repo / config
    folder.mkdir(parents=True, exist_ok=True)
    half = len(rows) // 2
    for number, part in enumerate((rows[:half], rows[half:])):
        pq.write_table(pa.Table.from_pylist(part), folder / f"{split}-0000{number}-of-00002.parquet")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder laid out like the hub: glue-mnli, trec in its old columns, sciq, multirc and a UnifiedQA task."""
    root = tmp_path / "raw"
    write_split(root, "nyu-mll/glue", "mnli", "train", mnli_rows(60))
    write_split(root, "nyu-mll/glue", "mnli", "validation_matched", mnli_rows(7))
    sms = [{"sms": f"message {i}", "label": i % 2} for i in range(60)]
    write_split(root, "ucirvine/sms_spam", "plain_text", "train", sms)
    multirc = [
        {
            "paragraph": "p",
            "question": f"q{i // 2}",
            "answer": f"a{i}",
            "idx": {"question": i // 2},
            "label": i % 2 if i // 2 != 3 else 0,
        }
        for i in range(40)
    ]
    write_split(root, "aps/super_glue", "multirc", "train", multirc)
    write_split(root, "aps/super_glue", "multirc", "validation", multirc)
    lines = root / "unifiedqa:mctest"
    lines.mkdir()
    text = "".join(f"q{i}? \\n (A) yes{i} (B) no{i} \\n story {i}\tyes{i}\n" for i in range(30))
    (lines / "train.tsv").write_text(text, encoding="utf-8")
    (lines / "dev.tsv").write_text(text, encoding="utf-8")
    return root


def settings(tmp_path: Path, raw: Path, train: list[str], test: list[str], **changes: Any) -> PrepareSettings:
    return PrepareSettings(
        root=tmp_path / "out",
        setting=Setting("mine", train, test, []),
        seeds=SEEDS,
        raw=raw,
        cache=tmp_path / "cache",
        online=False,
        **changes,
    )


def run(request: PrepareSettings) -> PrepareReport:
    return prepare(request, Console(quiet=True))


def inputs(path: Path) -> list[str]:
    return [json.loads(line)["input"] for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_target_gets_train_dev_and_test_files_for_each_seed(tmp_path: Path, raw: Path) -> None:
    report = run(settings(tmp_path, raw, [], ["glue-mnli"]))
    assert [outcome.status for outcome in report.outcomes] == ["ok"]
    folder = tmp_path / "out" / "glue-mnli"
    for seed in SEEDS:
        order = np.random.RandomState(seed).permutation(60)
        for part, numbers in (("train", order[:16]), ("dev", order[16:32]), ("test", range(7))):
            expected = [f"premise: premise {i} [SEP] hypothesis: guess {i}" for i in numbers]
            assert inputs(folder / f"glue-mnli_16_{seed}_{part}.jsonl") == expected


def test_a_pool_is_the_whole_list_shuffled_with_seed_100(tmp_path: Path, raw: Path) -> None:
    run(settings(tmp_path, raw, ["glue-mnli"], []))
    folder = tmp_path / "out" / "glue-mnli"
    assert [path.name for path in folder.iterdir()] == ["glue-mnli_16384_100_train.jsonl"]
    order = np.random.RandomState(100).permutation(60)
    expected = [f"premise: premise {i} [SEP] hypothesis: guess {i}" for i in order]
    assert inputs(folder / "glue-mnli_16384_100_train.jsonl") == expected


def test_an_own_cut_is_made_with_seed_42_before_the_choice(tmp_path: Path, raw: Path) -> None:
    run(settings(tmp_path, raw, [], ["sms_spam"]))
    folder = tmp_path / "out" / "sms_spam"
    cut = np.random.RandomState(42).permutation(60)
    assert inputs(folder / "sms_spam_16_13_test.jsonl") == [f"message {i}" for i in cut[48:]]
    order = np.random.RandomState(13).permutation(48)
    assert inputs(folder / "sms_spam_16_13_train.jsonl") == [f"message {i}" for i in cut[:48][order[:16]]]


def test_unifiedqa_targets_permute_lines_and_have_no_dev_file(tmp_path: Path, raw: Path) -> None:
    run(settings(tmp_path, raw, [], ["unifiedqa:mctest"]))
    folder = tmp_path / "out" / "unifiedqa:mctest"
    order = np.random.RandomState(13).permutation(30)[:16]
    expected = [f"q{i}?     story {i} " for i in order]
    assert inputs(folder / "unifiedqa:mctest_16_13_train.jsonl") == expected
    assert not list(folder.glob("*_dev.jsonl"))


def test_rows_dropped_at_the_last_step_are_not_refilled_but_counted(tmp_path: Path, raw: Path) -> None:
    """Question 3 has no right answer: it takes part in the shuffle and is left out when the file is written."""
    run(settings(tmp_path, raw, ["superglue-multirc"], []))
    record = read_manifest(tmp_path / "out").get("superglue-multirc", "train")
    assert record is not None
    assert record.entries == {"train": 20}
    assert record.files["superglue-multirc_16384_100_train.jsonl"].rows == 19
    assert record.dropped["train_file"]["left_out"] == {"question without a right answer": 1}


def test_large_sources_read_twice_give_the_same_files(
    tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = ["glue-mnli", "sms_spam", "superglue-multirc"]
    run(settings(tmp_path, raw, tasks, tasks, k=4))
    held = read_manifest(tmp_path / "out")
    monkeypatch.setattr(task_files, "HELD_ENTRIES", 3)
    run(settings(tmp_path, raw, tasks, tasks, k=4, force=True))
    assert read_manifest(tmp_path / "out").tasks == held.tasks


def test_two_workers_give_the_same_files_as_one(tmp_path: Path, raw: Path) -> None:
    tasks = ["glue-mnli", "sms_spam"]
    run(settings(tmp_path, raw, tasks, tasks))
    alone = read_manifest(tmp_path / "out").tasks
    run(settings(tmp_path, raw, tasks, tasks, force=True, workers=2))
    assert read_manifest(tmp_path / "out").tasks == alone


def test_unifiedqa_pools_draw_windows_before_the_permutation(
    tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One generator, seeded once with 100, serves the windows in file order and then the choice of rows."""
    words = [f"w{i}" for i in range(300)]
    answers = ["w10", "w150", "w290", "w120"]
    lines = [f"where? \\n {' '.join(words)}\t{answer}\n" for answer in answers]
    (raw / "unifiedqa:drop").mkdir()
    (raw / "unifiedqa:drop/train.tsv").write_text("".join(lines), encoding="utf-8")
    draw = np.random.RandomState(100)
    pieces = ["", *words]
    length = 200 - 2 - 1  # the question "where? " counts two pieces, the joint one
    expected = []
    for answer in answers:
        window: list[str] = []
        while answer not in " ".join(window):
            start = draw.randint(0, len(pieces) - length + 1)
            window = pieces[start : start + length]
        expected.append("where?  \\t " + " ".join(window))
    order = draw.permutation(4)
    for held in (100, 1):
        monkeypatch.setattr(task_files, "HELD_ENTRIES", held)
        run(settings(tmp_path, raw, ["unifiedqa:drop"], [], force=True))
        made = inputs(tmp_path / "out/unifiedqa:drop/unifiedqa:drop_16384_100_train.jsonl")
        assert made == [expected[index] for index in order]


def test_unifiedqa_tasks_have_one_role(tmp_path: Path, raw: Path) -> None:
    report = run(settings(tmp_path, raw, ["unifiedqa:mctest"], ["unifiedqa:drop"]))
    assert [
        "gives it the test role only" in report.outcomes[0].reason,
        "train role only" in report.outcomes[1].reason,
    ] == [True, True]


def test_a_second_preparation_waits_for_the_first(tmp_path: Path, raw: Path) -> None:
    request = settings(tmp_path, raw, [], ["glue-mnli", "sms_spam"])
    reports: list[PrepareReport] = []
    threads = [threading.Thread(target=lambda: reports.append(run(request))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = sorted(outcome.status for report in reports for outcome in report.outcomes)
    assert statuses == ["ok", "ok", "skipped", "skipped"]


def test_what_is_there_is_skipped_and_a_changed_request_is_made_anew(tmp_path: Path, raw: Path) -> None:
    statuses: Callable[[PrepareReport], list[str]] = lambda report: [one.status for one in report.outcomes]  # noqa: E731
    assert statuses(run(settings(tmp_path, raw, [], ["sms_spam", "glue-mnli"]))) == ["ok", "ok"]
    assert statuses(run(settings(tmp_path, raw, [], ["sms_spam", "glue-mnli"]))) == ["skipped", "skipped"]
    (tmp_path / "out/sms_spam/sms_spam_16_13_dev.jsonl").unlink()
    assert statuses(run(settings(tmp_path, raw, [], ["sms_spam", "glue-mnli"]))) == ["ok", "skipped"]
    assert statuses(run(settings(tmp_path, raw, [], ["sms_spam"], k=8))) == ["ok"]


def test_a_task_that_cannot_be_had_does_not_stop_the_others(tmp_path: Path, raw: Path) -> None:
    report = run(settings(tmp_path, raw, [], ["piqa", "glue-mnli"]))
    assert [outcome.status for outcome in report.outcomes] == ["failed", "ok"]
    reason = report.outcomes[0].reason
    assert "no source could be reached" in reason
    assert "ybisk/piqa: not in data.raw" in reason
    assert "baber/piqa" in reason


def test_fewer_rows_than_k_is_said_with_the_largest_k(tmp_path: Path, raw: Path) -> None:
    report = run(settings(tmp_path, raw, [], ["glue-mnli"], k=61))
    assert "has 60 training examples, k=61 asked (set prepare.k=60 or less)" in report.outcomes[0].reason


def test_only_restricts_and_refuses_strangers(tmp_path: Path, raw: Path) -> None:
    request = settings(tmp_path, raw, ["sms_spam"], ["glue-mnli"], only=("glue-mnli",))
    assert [outcome.task for outcome in run(request).outcomes] == ["glue-mnli"]
    with pytest.raises(
        DataError, match=r'prepare.only: "glue-mnlj" is not in mine \(did you mean .glue-mnli.'
    ):
        run(settings(tmp_path, raw, ["sms_spam"], ["glue-mnli"], only=("glue-mnlj",)))


def test_corrections_change_the_data_and_the_fingerprint(tmp_path: Path, raw: Path) -> None:
    rows = [{"question_1": f"a{i}", "question_2": f"b{i}", "label": 1} for i in range(40)]
    write_split(raw, "curaihealth/medical_questions_pairs", "default", "train", rows)
    outputs = {}
    for fixes in (False, True):
        run(settings(tmp_path, raw, [], ["medical_questions_pairs"], fixes=fixes))
        file = tmp_path / "out/medical_questions_pairs/medical_questions_pairs_16_13_train.jsonl"
        outputs[fixes] = json.loads(file.read_text().splitlines()[0])["output"]
        record = read_manifest(tmp_path / "out").get("medical_questions_pairs", "test")
        assert record is not None
        assert record.fixes is fixes
        check_corrections(tmp_path / "out", fixes)
        with pytest.raises(
            DataError, match=r"data.fixes: is .*medical_questions_pairs \(test\) was prepared with"
        ):
            check_corrections(tmp_path / "out", not fixes)
    assert outputs == {False: "Dissimilar", True: "Similar"}
    run(settings(tmp_path / "other", raw, [], ["glue-mnli"]))
    check_corrections(tmp_path / "other" / "out", True)
    published, fixed = (load_recipe("medical_questions_pairs", fixes=fixes) for fixes in (False, True))
    assert published.fingerprint != fixed.fingerprint


def test_classes_that_today_are_numbered_otherwise_are_mapped_by_name(tmp_path: Path, raw: Path) -> None:
    names = ["ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM"]
    features = {"text": {"_type": "Value"}, "coarse_label": {"_type": "ClassLabel", "names": names}}
    table = pa.table({"text": [f"q{i}" for i in range(60)], "coarse_label": [i % 6 for i in range(60)]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    folder = raw / "CogComp/trec/default/train"
    folder.mkdir(parents=True)
    pq.write_table(table, folder / "0000.parquet")
    run(settings(tmp_path, raw, [], ["trec"]))
    for line in (tmp_path / "out/trec/trec_16_100_test.jsonl").read_text().splitlines():
        record = json.loads(line)
        assert record["output"] == names[int(record["input"][1:]) % 6]


def test_finished_files_can_be_taken_from_a_folder(tmp_path: Path, raw: Path) -> None:
    run(settings(tmp_path, raw, ["sms_spam"], ["glue-mnli"]))
    made = tmp_path / "out"
    made.rename(tmp_path / "finished")
    request = settings(
        tmp_path, raw, ["sms_spam"], ["glue-mnli"], source="prepared", prepared=str(tmp_path / "finished")
    )
    assert [one.status for one in run(request).outcomes] == ["ok", "ok"]
    for copy in made.glob("*/*.jsonl"):
        assert copy.read_bytes() == (tmp_path / "finished" / copy.relative_to(made)).read_bytes()
    assert [one.status for one in run(request).outcomes] == ["skipped", "skipped"]


def test_the_doctor_names_missing_truncated_changed_and_unlisted_files(tmp_path: Path, raw: Path) -> None:
    request = settings(tmp_path, raw, ["sms_spam"], ["glue-mnli"])
    run(request)
    quiet = Console(quiet=True)
    assert doctor(request.root, request.setting, seeds=SEEDS, console=quiet).is_healthy
    folder = request.root / "glue-mnli"
    (folder / "glue-mnli_16_100_train.jsonl").unlink()
    text = (folder / "glue-mnli_16_13_test.jsonl").read_text()
    (folder / "glue-mnli_16_13_test.jsonl").write_text(text[:-5])
    (folder / "glue-mnli_16_100_test.jsonl").write_text(text.replace("premise 1", "premise 9"))
    stranger = folder / "glue-mnli_16_21_train.jsonl"
    stranger.write_text(text)
    found = doctor(request.root, request.setting, seeds=(*SEEDS, 21), console=quiet)
    problems = {finding.file.split("/")[1]: finding.problem for finding in found.findings}
    assert problems == {
        "glue-mnli_16_100_train.jsonl": "missing",
        "glue-mnli_16_13_test.jsonl": "truncated",
        "glue-mnli_16_100_test.jsonl": "changed",
        "glue-mnli_16_21_train.jsonl": "unlisted",
        "glue-mnli_16_21_test.jsonl": "missing",
    }


def test_a_broken_manifest_is_named(tmp_path: Path, raw: Path) -> None:
    request = settings(tmp_path, raw, [], ["glue-mnli"])
    run(request)
    (request.root / "manifest.json").write_text('{"version": 1')
    with pytest.raises(DataError, match=r"manifest.json: is broken"):
        run(request)


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "..", "a\\b"])
def test_a_task_whose_files_would_lie_outside_the_root_is_refused(
    tmp_path: Path, raw: Path, name: str
) -> None:
    with pytest.raises(DataError, match="is no name of a task"):
        prepare(settings(tmp_path, raw, [], [name]), Console(quiet=True))
    assert not (tmp_path / "out").exists()
