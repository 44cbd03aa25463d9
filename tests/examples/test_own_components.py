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
