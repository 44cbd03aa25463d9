"""A record knows of a training that ended in its folder before, also after runs that were refused there."""

from __future__ import annotations

from pathlib import Path

from metashot.engine.cells.record import RunRecord


def test_a_finished_training_is_remembered_by_every_later_record_of_its_folder(tmp_path: Path) -> None:
    first = RunRecord(tmp_path, {}, [])
    assert first.trained_steps == 0
    first.write("finished", training={"step": 12, "stopped_by": "finished"})
    refused = RunRecord(tmp_path, {}, [])
    assert refused.trained_steps == 12
    refused.write("failed")
    assert RunRecord(tmp_path, {}, []).trained_steps == 12
    (tmp_path / "run.json").write_text("{damaged")
    assert RunRecord(tmp_path, {}, []).trained_steps == 0
