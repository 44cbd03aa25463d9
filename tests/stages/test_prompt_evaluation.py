"""What prompt tuning leaves in its folder and tells its trackers, from config to files, in this process."""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from metashot.engine.cells.prompts import read_prompts
from metashot.stages import command
from metashot.stages.execution import execute

TUNING = (
    "debug=smoke", "method=soft_prompt", "tuning.tasks=[SST-2]", "k=2", "tuning.train.steps=2", "tuning.train.evaluate_every=2",
    "tuning.prompt_length=2",
)  # fmt: skip


@pytest.fixture
def tuned(tmp_path, repository):
    """`tuned(name, *overrides)`: the folder of a tuning, and the rows that its trackers were told."""
    command.register_resolvers()
    data = tmp_path / "data" / "SST-2"
    data.mkdir(parents=True)
    for split, n in (("train", 12), ("test", 6)):
        rows = [{"source": f"a {('dull', 'fine')[i % 2]} film, number {i}", "label": i % 2} for i in range(n)]
        (data / f"{split}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(name, *overrides):
        folder = tmp_path / name
        tracker = (
            f"{{_target_: metashot.engine.tracking.tracker.JsonlTracker, _partial_: true, folder: {folder}}}"
        )
        own = [
            f"results_root={tmp_path / 'root'}",
            f"tuning.data_root={data.parent}",
            f"+logger.trackers.jsonl={tracker}",
        ]
        with initialize_config_dir(str(repository / "conf"), version_base="1.3"):
            config = compose("config", [*TUNING, *own, *overrides])
        folder.mkdir()
        execute(OmegaConf.to_container(config, resolve=True), folder, list(overrides))
        return folder, [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]

    return run


def test_tables_texts_and_the_prompt_that_it_starts_from_are_kept(tuned):
    folder, told = tuned("first")
    tables = {row["table"]: row for row in told if "table" in row}
    (result,) = map(json.loads, (folder / "results.jsonl").read_text().splitlines())
    (row,) = tables["results"]["rows"]
    shown = dict(zip(tables["results"]["columns"], row, strict=True))
    assert shown["value_percent"] == pytest.approx(100 * result["value"])
    assert len(tables["predictions"]["rows"]) == result["n"] == 6
    assert read_prompts(folder)["SST-2", 100].inputs[1] == "a fine film, number 1 It was"
    assert not [row for row in told if "uses" in row]

    (prompt,) = Path(folder / "prompts").glob("*.safetensors")
    _, told = tuned("second", f"tuning.prompt_path={prompt}")
    assert {"uses": str(prompt)} in told
