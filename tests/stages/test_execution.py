"""How a run ends is said alike by its record and by its trackers."""

import signal
from types import SimpleNamespace

import pytest

from metashot.engine.sweeps.pruning import Pruned
from metashot.engine.training.signals import Interrupted
from metashot.stages.execution import concluded


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (None, "finished", "ok"),
        (ValueError("broken"), "failed", "failed"),
        (Interrupted(signal.SIGTERM), "interrupted", "interrupted"),
        (KeyboardInterrupt(), "interrupted", "interrupted"),
        (Pruned("hopeless"), "pruned", "pruned"),
    ],
)
def test_record_and_trackers_tell_the_same_ending(error, status, told):
    written, finished = [], []
    run = SimpleNamespace(
        record=SimpleNamespace(write=written.append), tracker=SimpleNamespace(finish=finished.append)
    )
    raised = None
    try:
        with concluded(run):
            if error is not None:
                raise error
    except BaseException as one:
        raised = one
    assert raised is error
    assert (written, finished) == ([status], [told])
