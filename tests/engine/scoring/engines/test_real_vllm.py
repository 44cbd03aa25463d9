"""The real vLLM, in the run's own process and as a server on loopback, by `run.py`: the numbers of `scorer=prefix`.

`make test-engines` makes the environment and runs this; elsewhere it is skipped.
"""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress

import pytest

from metashot.base.files import read_lines
from metashot.engine.models.loading import load_model
from metashot.engine.models.sources import named_model
from metashot.engine.models.tiny import tiny_model

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
    pytest.mark.timeout(1800),
]
COMMON = ("data.tasks=[demo-spam,demo-entailment,demo-review_sentiment]", "data.limit=8", "seeds=[13]", "k=4")
ENVIRONMENT = {
    **os.environ, "OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}  # fmt: skip
NATS = 1e-4
LENGTH = 1024
VLLM = ("scorer=vllm", f"scorer.max_model_len={LENGTH}", "scorer.arguments={enforce_eager: true}")
"""Without compiling, which takes minutes."""


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    """SmolLM2-135M as a folder, which both engines read."""
    folder = tmp_path_factory.mktemp("model")
    loaded = load_model(named_model("smollm2_135m"))
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def start(repository, tmp_path_factory, smollm2):
    """A command, started; its files are in the folder of its name below `start.root`."""
    root = tmp_path_factory.mktemp("runs")

    def call(name, *overrides, model=smollm2):
        return subprocess.Popen(
            [sys.executable, str(repository / "run.py"), *COMMON, "model=local", f"model.path={model}",
             f"hydra.run.dir={root / name}", f"results_root={root / name}-root", *overrides],
            cwd=root, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    call.root = root
    return call


@pytest.fixture(scope="module")
def ours(start):
    """The rows of `scorer=prefix`, by method."""
    found = {}
    for method in ("direct", "channel"):
        ended(start(f"ours-{method}", f"method={method}"))
        found[method] = rows(start.root / f"ours-{method}")
    return found


def ended(process, code=0):
    out, errors = process.communicate(timeout=900)
    assert process.returncode == code, errors[-3000:]
    return out if code == 0 else errors


def rows(folder):
    return [
        (row["task"], row["index"], row["prediction"], row["nll"], row["sum_nll"])
        for row in read_lines(folder / "predictions.jsonl")
    ]


def assert_same(found, expected):
    assert [row[:3] for row in found] == [row[:3] for row in expected]
    assert len(found) == 24
    for one, other in zip(found, expected, strict=True):
        assert one[3] == pytest.approx(other[3], abs=NATS)
        assert one[4] == pytest.approx(other[4], abs=3 * NATS, rel=1e-5)  # sums of up to 60 tokens


def cost(folder):
    return json.loads((folder / "run.json").read_text())["cost"]


@contextmanager
def serving(folder):
    """The address of vLLM's own server, and its process with all that it started."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--served-model-name", "m",
        "--dtype", "float32", "--enforce-eager", "--max-model-len", str(LENGTH), "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, env=ENVIRONMENT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            assert process.poll() is None, "the server ended"
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1", process
    finally:
        kill(process)


def kill(process):
    """As the kernel does when memory runs out: no word, and nothing left of it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("method", ["direct", "channel"])
def test_vllm_gives_our_numbers_and_a_second_run_computes_nothing(start, ours, method):
    name = f"vllm-{method}"
    how = (f"method={method}", *VLLM)
    assert "demo-entailment" in ended(start(name, *how))
    folder = start.root / name
    assert_same(rows(folder), ours[method])
    assert cost(folder)["computed_cells"] == 3
    again = ended(start(name, *how))
    assert "3 of 3 cells are stored already" in again
    assert cost(folder)["computed_cells"] == 0
    assert {row["task"] for row in read_lines(folder / "results.jsonl")} == {row[0] for row in ours[method]}


@pytest.mark.parametrize("route", ["steps", "whole"])
def test_every_route_of_a_cpu_gives_our_numbers(start, ours, route):
    ended(start(route, *VLLM, f"scorer.route={route}", "method=direct"))
    assert_same(rows(start.root / route), ours["direct"])


GENERATE = (
    "method=generate", "data.tasks=[demo-spam,demo-entailment]", "method.max_new_tokens=8", "method.stop=[]",
)  # fmt: skip


@pytest.fixture(scope="module")
def written(start):
    """What the loaded model writes: greedy, eight tokens."""
    ended(start("written", *GENERATE))
    return texts(start.root / "written")


def texts(folder):
    return [(row["task"], row["index"], row["texts"]) for row in read_lines(folder / "predictions.jsonl")]


def test_vllm_writes_what_the_loaded_model_writes(start, written):
    ended(start("vllm-written", *GENERATE, *VLLM))
    assert len(written) == 16
    assert texts(start.root / "vllm-written") == written


def test_a_real_server_gives_our_numbers_and_one_that_is_killed_leaves_what_is_finished(
    start, smollm2, ours, written
):
    with serving(smollm2) as (url, server):
        ended(start("served", "method=channel", "scorer=server", f"scorer.url={url}"))
        assert_same(rows(start.root / "served"), ours["channel"])
        running = start("killed", "method=direct", "scorer=server", f"scorer.url={url}", "scorer.retries=0")
        cells = start.root / "killed-root" / "cells"
        while running.poll() is None and not list(cells.glob("*/*.jsonl")):
            time.sleep(0.02)
        kill(server)
        errors = ended(running, code=2)
    (line,) = [one for one in errors.splitlines() if one.startswith("error: ")]
    assert "does not answer" in line
    assert "Traceback" not in errors
    stored = len(list(cells.glob("*/*.jsonl")))
    assert 0 < stored < 3
    with serving(smollm2) as (url, _):
        ended(start("server-written", *GENERATE, "scorer=server", f"scorer.url={url}"))
        assert texts(start.root / "server-written") == written
        out = ended(start("killed", "method=direct", "scorer=server", f"scorer.url={url}"))
    assert f"{stored} of 3 cells are stored already" in out
    assert_same(rows(start.root / "killed"), ours["direct"])


def test_a_model_that_vllm_does_not_know_is_one_line(start, tmp_path):
    model, tokenizer = tiny_model("t5", seed=0)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    errors = ended(start("unknown", "scorer=vllm", "method=direct", model=tmp_path), code=2)
    (line,) = [one for one in errors.splitlines() if one.startswith("error: ")]
    assert line.startswith("error: scorer: vLLM does not load")


def test_a_prompt_beyond_max_model_len_is_one_line(start):
    errors = ended(start("long", *VLLM, "method=direct", "scorer.max_model_len=40"), code=2)
    (line,) = [one for one in errors.splitlines() if one.startswith("error: ")]
    assert line.startswith("error: scorer.max_model_len: request ")
    assert "tokens, and the engine was started for 40" in line
