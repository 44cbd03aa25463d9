"""What a command imports that computes nothing: no torch, no plotting, no tables of numbers."""

import inspect
import json
import re
import subprocess
import sys
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from metashot.base.components.binding import signature, types_of
from metashot.base.components.choices import CONFIG_FOLDER
from metashot.base.components.targets import import_target
from metashot.base.errors import ConfigError
from metashot.stages.components import make_run_config
from metashot.stages.run_config import RunConfig
from metashot.stages.stage_table import STAGES, check_stage, chosen_stages

COMMANDS = """
import json, sys
from metashot.stages.command import main
HEAVY = ("torch", "transformers", "scipy", "matplotlib", "polars", "wandb", "optuna")
for arguments in json.loads(sys.argv.pop()):
    sys.argv[1:] = arguments
    try:
        main()
    except SystemExit as ending:
        print("exit", ending.code)
    print("loaded", arguments, [name for name in HEAVY if name in sys.modules])
"""


@pytest.mark.slow
def test_a_mistake_a_stored_rerun_and_a_plan_import_no_torch(tmp_path):
    stored = ["debug=smoke", f"results_root={tmp_path}", "hydra.run.dir=" + str(tmp_path / "${stage}")]
    subprocess.run([sys.executable, "run.py", *stored], check=True, capture_output=True)
    commands = [
        [*stored, "k=many"],
        [*stored, "optimizer.algorithm.beta=[0.9,0.99]"],
        stored,
        [*stored, "stage=plan"],
    ]
    script = [sys.executable, "-c", COMMANDS, json.dumps(commands)]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    assert [line for line in done.stdout.splitlines() if line.startswith(("loaded", "exit"))] == [
        "exit 2", f"loaded {commands[0]} []", "exit 2", f"loaded {commands[1]} []", f"loaded {commands[2]} []",
        f"loaded {commands[3]} []",
    ]  # fmt: skip
    assert "error: k: " in done.stderr
    assert "optimizer.algorithm.beta: unknown key (did you mean 'betas'?)" in done.stderr
    assert "all 2 cells were stored already" in done.stdout
    record = json.loads((tmp_path / "evaluate" / "run.json").read_text())
    assert record["status"] == "finished"
    assert "device" not in record


def targets(folder: Path) -> set[str]:
    """Every `_target_` of this package in the config files."""
    words = [line.split() for file in folder.rglob("*.yaml") for line in file.read_text().splitlines()]
    return {row[1] for row in words if row[:1] == ["_target_:"] and row[1].startswith("metashot.")}


@pytest.mark.parametrize("name", sorted(targets(CONFIG_FOLDER)))
def test_the_types_of_every_choice_can_be_read(name):
    """A type that is imported for type checkers only would leave the keys of its choice unchecked."""
    target = import_target(name, "target")
    annotated = {
        key for key, one in signature(target).items() if one.annotation is not inspect.Parameter.empty
    }
    assert annotated <= set(types_of(target))


def test_the_types_of_the_whole_config_can_be_read():
    pending, seen = [RunConfig], set()
    while pending:
        kind = pending.pop()
        if kind in seen:
            continue
        seen.add(kind)
        types = types_of(kind)
        assert set(signature(kind)) <= set(types), kind
        pending += [one for one in types.values() if inspect.isclass(one) and is_dataclass(one)]
    assert len(seen) > 10


def test_import_metashot_alone_imports_nothing_large():
    script = "import sys, metashot; print([n for n in ('torch', 'transformers', 'numpy', 'hydra') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("stage", "target", "message"),
    [
        (
            "evaluat",
            "metashot.icl.prompting.methods.Method",
            r"stage: unknown stage 'evaluat' \(did you mean 'evaluate'\?\)",
        ),
        (
            ["train", "plant"],
            "metashot.icl.prompting.methods.Method",
            r"unknown stage 'plant' \(did you mean 'plan'\?\)",
        ),
    ],
)
def test_a_wrong_stage_is_said_before_anything_is_imported(stage, target, message):
    with pytest.raises(ConfigError, match=message):
        check_stage({"stage": stage, "method": {"_target_": target, "name": "m"}})


def test_a_stage_that_a_method_has_no_use_for_names_those_that_it_has():
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        config = compose("config", ["debug=smoke", "method=soft_prompt", "stage=doctor"])
    composed = cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True))
    config = make_run_config(composed)
    with pytest.raises(
        ConfigError,
        match=r"'soft_prompt' has no stage 'doctor' \(one of (recipe, )?prepare, train, evaluate,",
    ):
        chosen_stages(config)


def test_every_stage_names_functions_that_exist():
    from importlib import import_module

    for families in STAGES.values():
        for place in families.values():
            module, _, function = place.partition(".")
            assert callable(getattr(import_module(f"metashot.stages.{module}"), function))


def test_help_names_every_stage():
    text = yaml.safe_load((CONFIG_FOLDER / "hydra" / "default.yaml").read_text())["help"]["template"]
    (stages,) = re.findall(r"Stages: (.*);", text)
    assert stages.split(", ") == list(STAGES)
