"""The unlabelled inputs of a calibration: from the training split, never shown, never tested."""

from dataclasses import dataclass, field

import pytest

from metashot.base.errors import ConfigError, DataError
from metashot.data.task import Example, TaskData, TaskType
from metashot.data.tasks.demo import DemoSource
from metashot.engine.metrics.rules import Calibration
from metashot.icl.prompting.calibration_inputs import with_calibration_inputs
from metashot.icl.prompting.methods import Method
from metashot.icl.scoring.classifier import InContextClassifier

BATCH = Method("batch_calibrated", calibration=Calibration.BATCH, calibration_inputs=3)


def rows(*texts: str) -> list[Example]:
    return [Example("mood", text, "good", ("bad", "good")) for text in texts]


@dataclass
class Rows:
    """A source with fixed rows; `None` where it has no such file."""

    train: list[Example] | None
    dev: list[Example] | None
    test: list[Example] = field(default_factory=lambda: rows("t1", "t2"))
    name: str = "rows"

    def tasks(self) -> list[str]:
        return ["mood"]

    def load(self, task: str, *, k: int, seed: int, split: str = "test") -> TaskData:
        wanted = self.dev if split == "dev" else self.test
        if wanted is None:
            raise DataError(task, "no such file", "prepare it")
        shown = tuple((self.train or [])[:k])
        return TaskData(task, seed, TaskType.CLASSIFICATION, shown, tuple(wanted))

    def pool(self, task: str, *, size: int = 16384, seed: int = 100) -> list[Example]:
        if self.train is None:
            raise DataError(task, "no such file", "prepare it")
        return self.train[:size]


@pytest.mark.parametrize(
    ("train", "dev", "k", "expected"),
    [
        (rows("a", "b", "c", "d", "e", "f"), None, 2, ("c", "d", "e")),  # the first three not shown
        (
            rows("a", "b", "c", "c", "a"),
            rows("d", "c", "e"),
            2,
            ("c", "d", "e"),
        ),  # each once; then development rows
        (rows("a", "b", "t1"), rows("t2", "d"), 2, ("d",)),  # test inputs are left out
        (None, rows("d", "e"), 0, ("d", "e")),
    ],
)
def test_inputs_come_from_training_rows_then_development_rows(train, dev, k, expected):
    source = Rows(train, dev)
    data = source.load("mood", k=k, seed=100)
    assert with_calibration_inputs(data, BATCH, source, k).unlabelled == expected


def test_other_methods_get_none_and_read_nothing():
    data = TaskData("mood", 100, TaskType.CLASSIFICATION, (), tuple(rows("t1")))
    assert with_calibration_inputs(data, Method("direct"), Rows(None, None), 0) is data


def test_no_input_left_is_one_line_with_the_way_out():
    source = Rows(rows("a", "b"), None)
    data = source.load("mood", k=2, seed=13)
    with pytest.raises(
        DataError,
        match=r"mood: calibration 'batch' needs training inputs .* of seed 13 there is none .*_transductive",
    ):
        with_calibration_inputs(data, BATCH, source, 2)


def test_demo_cells_have_as_many_as_asked_and_none_is_shown_or_tested():
    source = DemoSource()
    for task in ("demo-emotion", "demo-story_ending"):
        data = with_calibration_inputs(source.load(task, k=4, seed=13), BATCH, source, 4)
        assert len(set(data.unlabelled)) == 3
        assert not set(data.unlabelled) & {e.input for e in (*data.demonstrations, *data.test)}


def test_strings_of_ones_own_and_a_classifier_without_further_examples_are_refused():
    with pytest.raises(ConfigError, match="takes unlabelled training inputs, got 1 strings"):
        Method("mine", calibration=Calibration.BATCH, null_inputs=("N/A",))
    classifier = InContextClassifier.from_pretrained("tiny", method=BATCH)
    with pytest.raises(DataError, match=r"that no demonstration shows.*batch_transductive"):
        classifier.fit(["a", "b"], ["good", "bad"]).predict(["c"])


@pytest.mark.parametrize("method", ["batch_calibrated", "domain_context", "generative_calibrated"])
def test_a_classifier_takes_them_of_the_examples_that_it_does_not_show(method):
    classifier = InContextClassifier.from_pretrained("tiny", method=method, k=2)
    classifier.fit(["a b", "c", "d e", "f"], ["good", "bad", "good", "bad"])
    assert classifier.predict_proba(["g", "h"]).shape == (2, 2)


def test_probes_are_content_free_inputs_and_words_beside_a_method_without_calibration():
    source, method = DemoSource(), Method("direct", probes=True)
    data = with_calibration_inputs(source.load("demo-emotion", k=4, seed=13), method, source, 4)
    assert method.content_free == ("N/A", "", "[MASK]")
    assert len(data.unlabelled) == method.calibration_inputs
    with pytest.raises(ConfigError, match="no calibration, got 'direct' and 'batch'"):
        Method("mine", calibration=Calibration.BATCH, probes=True)
