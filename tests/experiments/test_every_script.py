"""Every script under `experiments/` runs: in seconds, on tiny models and a handful of rows, by its own command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
EXPERIMENTS = REPOSITORY / "experiments"
SCRIPTS = sorted(
    path.relative_to(EXPERIMENTS).as_posix()
    for path in EXPERIMENTS.rglob("*.py")
    if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
)
"""All that can be started."""
RUN_BY = {
    "metaicl_demo/run_demo.py": "test_metaicl_demo.py",
    "supmer_demo/run_demo.py": "test_supmer_demo.py",
    "supmer_smollm2/adapt_backbone.py": "test_adapt_backbone.py",
}
"""Scripts whose run is a test of their own, which says more than that they end well."""
Make = Callable[[Path], list[str]]


def run(folder: Path, *command: object) -> str:
    """Standard output of a command that has to end well."""
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=540,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def prompt_data(folder: Path) -> Path:
    """Prompt-tuning data of four tasks: one word tells the label."""
    words = {"SST-2": 2, "sst-5": 5, "subj": 2, "cb": 3}
    root = folder / "tune"
    for task, labels in words.items():
        (root / task).mkdir(parents=True)
        for split, count in (("train", 40 * labels), ("test", 6)):
            rows = [{"source": f"word{n % labels} text {n}", "label": n % labels} for n in range(count)]
            if task == "cb":
                rows = [{**row, "premise": row["source"], "hypothesis": "so"} for row in rows]
            (root / task / f"{split}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def evaluated(folder: Path, name: str, model: str) -> Path:
    """The folder of a small evaluation."""
    out = folder / name
    run(
        folder, REPOSITORY / "run.py", "method=direct", "model=tiny", f"model.path={model}", "k=2", "seeds=[100,13]",
        "data.tasks=[demo-spam,demo-emotion]", f"results_root={folder}/{name}-store", f"hydra.run.dir={out}",
    )  # fmt: skip
    return out


def comparison(folder: Path) -> list[str]:
    """Two models on the same rows."""
    return ["found.json", str(evaluated(folder, "raw", "gpt2")), str(evaluated(folder, "trained", "llama"))]


def few_rows(folder: Path) -> list[str]:
    """A data folder of three rows a file."""
    (folder / "from" / "task").mkdir(parents=True)
    for split in ("train", "test"):
        (folder / "from" / "task" / f"task_16_100_{split}.jsonl").write_text("{}\n" * 3)
    return ["from", "to", "2"]


def panels(folder: Path) -> list[str]:
    """Stored results of the first recipe."""
    results = EXPERIMENTS / "metaicl_real" / "results"
    return [str(results / "comparison.json"), str(results / "training_seed1.json"), "out.svg"]


def tuned_rows(folder: Path) -> list[str]:
    """The whole comparison of SUPMER on random weights."""
    return [
        "--data-root", str(prompt_data(folder)), "--results-root", str(folder / "out"), "model=tiny", "model.dtype=float32",
        "seeds=[100]", "supmer.loop.steps=2", "supmer.loop.save_every=2", "supmer.loop.evaluate_every=2", "supmer.test_queries=8",
        "supmer.loop.progress=false", "supmer.prompt_length=2", "tuning.train.steps=2", "tuning.train.evaluate_every=1",
        "tuning.tasks=[SST-2]",
    ]  # fmt: skip


def words(text: str) -> Make:
    """A command line without files."""
    return lambda folder: text.split()


RUNS: dict[str, Make] = {
    "bench_commands/adding_cells.py": words("--cells 20 40 --output out.json"),
    "bench_commands/run_benchmark.py": words("--rounds 1 --jobs 2 --output out.json"),
    "bench_csv/bench.py": words("--rows 2000 --folder ."),
    "bench_engines/run_benchmark.py": words("--quick --output out.json"),
    "bench_harness/run_benchmark.py": words(
        "--model tiny --documents 2 --shots 1 --tasks shaped_arc --batch-sizes 2 --shared nowhere --output out.json"
    ),
    "bench_ranks/run_benchmark.py": words("--model tiny --rows 6 --shots 2 --output out.json"),
    "bench_recipes/bench_convert.py": words("--rows 2000"),
    "bench_recipes/bench_prepare.py": words("--rows 20 --rounds 1"),
    "bench_scoring/architectures.py": words("--names llama lfm2 --inputs 2 --turns 1"),
    "bench_scoring/run_benchmark.py": words(
        "--scorers engine,plain,original,lm_eval --methods direct --options 2 --k 0 --inputs 1 --repeat 1 --baseline-repeat 1 "
        "--subset 2 --lm-eval-sizes 1 --output out.json"
    ),
    "bench_scoring/worker.py": words("engine gpt2_small_random float32 1 1"),
    "bench_supmer/run_benchmark.py": words("--size demo --tasks 1 --examples 2 --repeat 1 --output out.json"),
    "bench_training/bench_cpu_step.py": words(
        "--layers 1 --rows 1 --tokens 16 --repeats 1 --output out.json"
    ),
    "bench_training/bench_step.py": words("--layers 1 --rows 1 --tokens 16 --repeats 1"),
    "bench_training/bench_training.py": words("--smoke --output out.json"),
    "gpu_check/run_check.py": words("--quick --output out.json"),
    "lab_2026/run_lab.py": words("--quick --output out"),
    "metaicl_real/compare_runs.py": comparison,
    "metaicl_real/first_rows.py": few_rows,
    "metaicl_real/over_tasks.py": lambda folder: [
        str(EXPERIMENTS / "metaicl_real" / "results" / "comparison_independent.json")
    ],
    "metaicl_real/plot_runs.py": panels,
    "supmer_smollm2/in_context.py": lambda folder: (
        f"--data-root {prompt_data(folder)} --model tiny --dtype float32 --k 1 --rows 4 --seeds 1".split()
    ),
    "supmer_smollm2/run_rows.py": tuned_rows,
}
"""The command line of every other script, given an empty folder to work in."""


def test_every_script_has_a_run() -> None:
    assert sorted([*RUNS, *RUN_BY]) == SCRIPTS
    for script, test in RUN_BY.items():
        text = (Path(__file__).parent / test).read_text(encoding="utf-8")
        assert Path(script).name in text, f"{test} does not run {script}"


@pytest.mark.slow
@pytest.mark.parametrize("script", RUNS)
def test_a_script_runs(script: str, tmp_path: Path) -> None:
    made = REPOSITORY / "outputs"
    before = set(made.iterdir()) if made.is_dir() else set()
    run(tmp_path, EXPERIMENTS / script, *RUNS[script](tmp_path))
    after = set(made.iterdir()) if made.is_dir() else set()
    assert after == before, "it wrote into the checkout"
    shutil.rmtree(tmp_path)
