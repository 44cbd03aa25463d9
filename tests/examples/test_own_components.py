"""`examples/own_components`: choices from a folder of one's own, and what stops code that nobody trusts."""

import json
import os
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict

from metashot.base.errors import ConfigError
from metashot.stages import command
from metashot.stages.components import make_run_config


@pytest.fixture
def example(repository, monkeypatch):
    folder = repository / "examples" / "own_components"
    monkeypatch.syspath_prepend(str(folder))
    return folder


def composed(repository, example, *overrides):
    command.register_resolvers()
    with initialize_config_dir(str(repository / "conf"), version_base="1.3"):
        path = f"hydra.searchpath=[file://{example / 'conf'}]"
        config = compose("config", overrides=[path, "model=tiny", *overrides])
    with open_dict(config):
        config.pop("logger")  # it speaks of the folder of a running job
    return OmegaConf.to_container(config, resolve=True)


def test_untrusted_code_is_refused_in_one_line(repository, example):
    config = composed(repository, example, "data=parity", "logger=none") | {"logger": {}}
    with pytest.raises(
        ConfigError, match=r"^data\._target_: 'own_components\.ParityData' is in no trusted package"
    ):
        make_run_config(config)


def test_a_mistake_in_a_key_of_ones_own_is_named(repository, example, monkeypatch):
    monkeypatch.setenv("METASHOT_TRUSTED_TARGETS", "own_components")
    config = composed(repository, example, "data=parity", "+data.sizes=3") | {"logger": {}}
    with pytest.raises(ConfigError, match=r"^data\.sizes: unknown key \(did you mean 'size'\?\)"):
        make_run_config(config)


@pytest.mark.slow
def test_the_run_of_the_readme(repository, example, tmp_path):
    done = subprocess.run(
        [sys.executable, str(repository / "run.py"), "--config-dir", str(example / "conf"), "data=parity",
         "scorer=uniform", "method=first_guess", "logger=lines", "model=tiny", "seeds=[100]", f"hydra.run.dir={tmp_path / 'out'}",
         f"results_root={tmp_path}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env={**os.environ, "METASHOT_TRUSTED_TARGETS": "own_components", "PYTHONPATH": str(example)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (result,) = map(json.loads, (tmp_path / "out" / "results.jsonl").read_text().splitlines())
    assert (result["task"], result["method"], result["n"], result["k"]) == ("parity", "first_guess", 20, 0)
    figures = (tmp_path / "out" / "figures.txt").read_text().splitlines()
    assert figures[0].startswith("first_guess-tiny-parity-k")
    assert figures[-1] == "ok"
    first = json.loads((tmp_path / "out" / "predictions.jsonl").read_text().splitlines()[0])
    # The rule divides by the square root of the tokens, of which every one costs the same.
    for nll, total, tokens in zip(first["nll"], first["sum_nll"], first["n_tokens"], strict=True):
        assert nll == pytest.approx(total / tokens**0.5)


def run_example(repository, example, folder, *overrides):
    """A command with the example's choices; its results."""
    done = subprocess.run(
        [sys.executable, str(repository / "run.py"), "--config-dir", str(example / "conf"), "model=tiny", "seeds=[100,13]",
         f"hydra.run.dir={folder}", f"results_root={folder.parent}/root", *overrides],
        cwd=folder.parent, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "METASHOT_TRUSTED_TARGETS": "own_components", "PYTHONPATH": str(example)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, list(map(json.loads, (folder / "results.jsonl").read_text().splitlines()))


@pytest.mark.slow
def test_a_family_of_ones_own_is_stored_and_reported(repository, example, tmp_path):
    words = ("data=parity", "method=majority", "k=5")
    first, results = run_example(repository, example, tmp_path / "first", *words)
    assert "2 cells computed, 0 reused" in first
    # Ten of twenty numbers are even, whatever is the most frequent.
    assert [(row["method"], row["model"], row["n"], row["value"]) for row in results] == 2 * [
        ("majority", "none", 20, 0.5)
    ]
    again, same = run_example(repository, example, tmp_path / "again", *words)
    assert "all 2 cells were stored already" in again
    assert same == results
    told, _ = run_example(repository, example, tmp_path / "first", *words, "stage=plan")
    assert json.loads((tmp_path / "first" / "plan.json").read_text())[1] == {
        "task": "parity", "seed": 13, "examples": 20,
    }  # fmt: skip
    told, _ = run_example(repository, example, tmp_path / "first", *words, "stage=report")
    assert "majority" in told


@pytest.mark.slow
def test_a_tuning_method_of_ones_own_tunes(repository, example, tmp_path):
    data = tmp_path / "data" / "SST-2"
    data.mkdir(parents=True)
    for split, n in (("train", 12), ("test", 6)):
        rows = [{"source": f"a {('dull', 'fine')[i % 2]} film, number {i}", "label": i % 2} for i in range(n)]
        (data / f"{split}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, results = run_example(
        repository, example, tmp_path / "run", "method=own_tuning", "tuning.tasks=[SST-2]", "k=2", "tuning.train.steps=2",
        "tuning.train.evaluate_every=2", "tuning.prompt_length=2", f"tuning.data_root={data.parent}",
    )  # fmt: skip
    assert [(row["method"], row["task"], row["seed"]) for row in results] == [
        ("own_tuning", "SST-2", 100), ("own_tuning", "SST-2", 13),
    ]  # fmt: skip
    assert len(list((tmp_path / "run" / "prompts").iterdir())) == 2
