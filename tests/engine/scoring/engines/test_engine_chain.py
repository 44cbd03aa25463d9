"""A run whose options are scored by a server: the numbers of this process, stored, resumed, and a server that dies."""

import json
import os
import subprocess
import sys

import pytest

from metashot.base.files import read_lines
from metashot.engine.models.tiny import tiny_model

from .toy_server import Behaviour, served

pytestmark = pytest.mark.slow

COMMON = ("model=tiny", "seeds=[13]", "k=2", "data.tasks=[demo-spam,demo-entailment]")


@pytest.fixture(scope="module")
def behaviour():
    """What a server of `model=tiny` answers."""
    import torch

    model = tiny_model("gpt2", seed=0)[0].eval()

    def log_probabilities(ids):
        with torch.inference_mode():
            return model(torch.tensor([list(ids)])).logits[0].log_softmax(-1).numpy()

    return lambda **fields: Behaviour(log_probabilities, limit=1024, **fields)


@pytest.fixture
def run(repository, tmp_path):
    def call(name, *overrides):
        return subprocess.run(
            [sys.executable, str(repository / "run.py"), *COMMON, f"hydra.run.dir={tmp_path / name}", *overrides],
            cwd=tmp_path, capture_output=True, text=True, timeout=300,
            env={**os.environ, "METASHOT_CACHE": str(tmp_path / "cache")},
        )  # fmt: skip

    return call


def rows(folder):
    return [
        (row["task"], row["index"], row["prediction"], row["nll"])
        for row in read_lines(folder / "predictions.jsonl")
    ]


@pytest.mark.parametrize("method", ["direct", "channel", "pmi"])
def test_a_server_gives_the_numbers_of_this_process(run, behaviour, tmp_path, method):
    assert run("here", f"method={method}", f"results_root={tmp_path / 'here_root'}").returncode == 0
    with served(behaviour()) as url:
        ended = run(
            "there",
            f"method={method}",
            "scorer=server",
            f"scorer.url={url}",
            f"results_root={tmp_path / 'root'}",
        )
    assert ended.returncode == 0, ended.stderr
    here, there = rows(tmp_path / "here"), rows(tmp_path / "there")
    assert [row[:3] for row in here] == [row[:3] for row in there]
    for mine, theirs in zip(here, there, strict=True):
        assert theirs[3] == pytest.approx(mine[3], abs=1e-4)


def test_a_server_that_dies_leaves_what_is_finished_and_the_next_command_goes_on(run, behaviour, tmp_path):
    root = f"results_root={tmp_path / 'root'}"
    dying = behaviour(answers_left=6)
    with served(dying) as url:
        ended = run("out", "scorer=server", f"scorer.url={url}", "scorer.retries=0", root)
    assert ended.returncode == 2
    (line,) = [one for one in ended.stderr.splitlines() if one.startswith("error: ")]
    assert "does not answer" in line
    assert "Traceback" not in ended.stderr
    with served(behaviour()) as url:
        assert run("out", "scorer=server", f"scorer.url={url}", root).returncode == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert {row["task"] for row in read_lines(tmp_path / "out" / "results.jsonl")} == {
        "demo-spam",
        "demo-entailment",
    }
    assert summary


@pytest.mark.parametrize("further", ["scorer.route=auto", "scorer.arguments={enforce_eager: true}"])
def test_without_its_package_an_engine_is_one_line(run, tmp_path, further):
    """Any argument of the engine passes the check of keys before."""
    try:
        import vllm  # noqa: F401
    except ImportError:
        ended = run("out", "scorer=vllm", further, f"results_root={tmp_path / 'root'}")
        assert ended.returncode == 2
        assert ended.stderr.strip().startswith("error: scorer: vLLM is not installed")
    else:
        pytest.skip("vLLM is installed")
