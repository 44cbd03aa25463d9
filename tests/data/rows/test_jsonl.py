"""Files in MetaICL's layout: what loads, and how each fault is said."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metashot.base.errors import DataError
from metashot.data.rows.jsonl import read_examples, to_line
from metashot.data.task import Example, TaskType
from metashot.data.tasks.source import JsonlSource


def write_task(root, name="toy", *, k=4, seeds=(100,), train=None, test=None):
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"task": name, "input": f"i{n}", "output": "ab"[n % 2], "options": ["a", "b"]}
        for n in range(max(k, 4))
    ]
    for seed in seeds:
        for split, content in (("train", train or rows[:k]), ("test", test or rows)):
            lines = [row if isinstance(row, str) else json.dumps(row) for row in content]
            (folder / f"{name}_{k}_{seed}_{split}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_loads_one_cell(tmp_path):
    write_task(tmp_path)
    data = JsonlSource(tmp_path).load("toy", k=4, seed=100)
    assert data.demonstrations[1] == Example("toy", "i1", "b", ("a", "b"))
    assert (data.task_type, len(data.test)) == (TaskType.CLASSIFICATION, 4)


def test_a_file_made_for_a_larger_k_serves_its_first_lines(tmp_path):
    # The k-shot protocol takes the first k of one shuffled list, so the files of one seed are nested.
    write_task(tmp_path, k=8)
    data = JsonlSource(tmp_path).load("toy", k=3, seed=100)
    assert [example.input for example in data.demonstrations] == ["i0", "i1", "i2"]


def test_zero_shot_needs_no_training_file(tmp_path):
    folder = write_task(tmp_path)
    (folder / "toy_4_100_train.jsonl").unlink()
    assert JsonlSource(tmp_path).load("toy", k=0, seed=100).demonstrations == ()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"input": "x", "output": "a"}', r"test\.jsonl:2: record without options"),
        ('{"input": "x", "output": "c", "options": ["a", "b"]}', r":2: output 'c' is not among its options"),
        ('{"input": "x", "output": "a", "options": ["a", "a"]}', r":2: option 'a' stands twice"),
        ('{"input": "x", "output": "a", ', r":2: malformed JSON: .*column"),
        ('["x"]', r":2: a record must be an object, got list"),
        ('{"input": 3, "output": "a", "options": ["a", "b"]}', r":2: input and output must be strings"),
        ('{"input": "x", "output": "a", "options": [], "rationale": 3}', r":2: rationale must be a string"),
        (
            '{"input": "x", "output": "a", "options": ["a", "b", "c"]}',
            r":2: labels .* differ from the task's labels",
        ),
    ],
)
def test_a_bad_record_is_named_with_file_and_line(tmp_path, line, message):
    good = {"input": "x", "output": "a", "options": ["a", "b"]}
    write_task(tmp_path, test=[good, line, good, good])
    with pytest.raises(DataError, match=message):
        JsonlSource(tmp_path).load("toy", k=4, seed=100)


def test_bytes_that_are_not_utf8_are_named(tmp_path):
    folder = write_task(tmp_path)
    (folder / "toy_4_100_test.jsonl").write_bytes(b'{"input": "\xff"}\n')
    with pytest.raises(DataError, match=r":1: byte 0xff is not UTF-8"):
        JsonlSource(tmp_path).load("toy", k=4, seed=100)


def test_other_faults_say_the_way_out(tmp_path):
    folder = write_task(tmp_path)
    source = JsonlSource(tmp_path)
    with pytest.raises(DataError, match=r"no folder .*nowhere"):
        JsonlSource(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no task 'toi' .*did you mean .toy.\?"):
        source.load("toi", k=4, seed=100)
    with pytest.raises(DataError, match=r"holds 4 examples, k=5 asked \(set k=4"):
        source.load("toy", k=5, seed=100)
    with pytest.raises(DataError, match=r"toy_4_13_train\.jsonl: no such file"):
        source.load("toy", k=4, seed=13)
    (folder / "toy_4_100_test.jsonl").write_text("\n")
    with pytest.raises(DataError, match="holds no record"):
        source.load("toy", k=4, seed=100)


def test_options_of_their_own_mean_multiple_choice(tmp_path):
    rows = [{"input": "x", "output": f"a{n}", "options": [f"a{n}", f"b{n}"]} for n in range(4)]
    write_task(tmp_path, train=rows, test=rows)
    assert JsonlSource(tmp_path).load("toy", k=4, seed=100).task_type is TaskType.MULTI_CHOICE


def test_a_declared_type_wins(tmp_path):
    write_task(tmp_path)
    source = JsonlSource(tmp_path, {"toy": "multi-choice"})
    assert source.load("toy", k=4, seed=100).task_type is TaskType.MULTI_CHOICE


text = st.text(min_size=1, max_size=20)


@given(st.lists(text, min_size=1, max_size=4, unique=True), text, st.just("") | text)
def test_lines_round_trip(tmp_path_factory, options, source, rationale):
    example = Example("t", source, options[0], tuple(options), rationale=rationale)
    path = tmp_path_factory.mktemp("lines") / "x.jsonl"
    path.write_text(to_line(example) + "\n")
    assert to_line(example).isascii()
    assert read_examples(path) == [example]


def test_the_shared_files_load_as_they_are(shared):
    source = JsonlSource(shared / "data" / "metaicl")
    for task, kind in (
        ("poem_sentiment", "classification"),
        ("codah", "multi-choice"),
        ("superglue-cb", "classification"),
    ):
        data = source.load(task, k=16, seed=13)
        assert (data.task_type, len(data.demonstrations)) == (kind, 16)
