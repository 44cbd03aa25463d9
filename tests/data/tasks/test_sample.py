"""`data.limit` and `data.subset`: the same rows for every seed and system, label by label, and marked as a sample."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metashot.base.errors import DataError
from metashot.data.task import TaskType
from metashot.data.tasks.demo import DemoSource
from metashot.data.tasks.modules import DemoData
from metashot.data.tasks.sample import SampledSource, stratified

TASK = "demo-review_sentiment"
WHOLE = DemoSource().load(TASK, k=2, seed=100)


def sampled(**keys) -> SampledSource:
    return SampledSource(DemoSource(), DemoData(**keys))


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=60), st.data())
def test_each_label_has_its_share_to_within_one_row(labels: list[str], data) -> None:
    size = data.draw(st.integers(1, len(labels)))
    places = stratified("t", labels, size)
    assert places == sorted(set(places))
    assert len(places) == size
    counts, chosen = Counter(labels), Counter(labels[place] for place in places)
    assert all(abs(chosen[label] - size * n / len(labels)) < 1 for label, n in counts.items())


def test_a_limit_is_a_count_or_a_share_and_smaller_ones_lie_in_larger_ones() -> None:
    n = len(WHOLE.test)
    ten, half = sampled(limit=10).load(TASK, k=2, seed=100), sampled(limit=0.5).load(TASK, k=2, seed=100)
    assert (len(ten.test), len(half.test)) == (10, round(n / 2))
    assert set(ten.test) <= set(half.test) <= set(WHOLE.test)
    assert (ten.sampled_from, WHOLE.sampled_from) == (n, 0)
    assert ten.notes == (f"task {TASK!r}: a sample of 10 of {n} test rows (data.limit)",)
    assert ten.demonstrations == WHOLE.demonstrations
    assert sampled(limit=10).load(TASK, k=4, seed=13).test == ten.test
    assert sampled(limit=n).load(TASK, k=2, seed=100) == WHOLE


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.txt"])
def test_a_subset_is_the_rows_that_a_file_lists(tmp_path: Path, name: str) -> None:
    content = {
        "rows.jsonl": "".join(
            json.dumps({"task": TASK, "index": index, "nll": [1.5]}) + "\n" for index in (7, 3, 7)
        ),
        "rows.csv": f"task,index\n{TASK},7\n{TASK},3\n",
        "rows.txt": "7\n3\n",
    }
    (tmp_path / name).write_text(content[name])
    source = sampled(subset=str(tmp_path / name))
    data = source.load(TASK, k=2, seed=100)
    assert data.test == (WHOLE.test[3], WHOLE.test[7])
    assert "(data.subset)" in data.notes[0]
    if name != "rows.txt":
        with pytest.raises(DataError, match=r"data\.subset: .* lists no row of 'demo-news_topic'"):
            source.load("demo-news_topic", k=2, seed=100)


@pytest.mark.parametrize(
    ("line", "message"), [("9999", "has no test row 9999"), ("x", "names no test row: 'x'")]
)
def test_a_listed_row_that_is_not_there_is_an_error_with_its_line(
    tmp_path: Path, line: str, message: str
) -> None:
    (tmp_path / "rows.txt").write_text(f"1\n{line}\n")
    with pytest.raises(DataError, match=rf"rows\.txt:2: .*{message}"):
        sampled(subset=str(tmp_path / "rows.txt")).load(TASK, k=2, seed=100)


def test_multiple_choice_is_sampled_without_regard_to_answers() -> None:
    data = sampled(limit=5).load("demo-science_choice", k=2, seed=100)
    assert data.task_type is TaskType.MULTI_CHOICE
    assert len(data.test) == 5
