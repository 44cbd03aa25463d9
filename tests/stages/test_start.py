"""What a command imports before its config is made: no torch, no plotting, no tables of numbers."""

import re
import subprocess
import sys

import pytest
import yaml

from metashot.engine.components.choices import CONFIG_FOLDER
from metashot.engine.errors import ConfigError
from metashot.stages.stage_table import STAGES, check_stage

START = """
import sys
import metashot.stages.command
print([name for name in ("torch", "transformers", "scipy", "matplotlib", "polars", "wandb", "optuna") if name in sys.modules])
"""


def test_a_mistake_in_the_command_line_imports_no_torch():
    done = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_import_metashot_alone_imports_nothing_large():
    script = "import sys, metashot; print([n for n in ('torch', 'transformers', 'numpy', 'hydra') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("stage", "target", "message"),
    [
        (
            "evaluat",
            "metashot.icl.methods.Method",
            r"stage: unknown stage 'evaluat' \(did you mean 'evaluate'\?\)",
        ),
        (
            ["train", "plant"],
            "metashot.icl.methods.Method",
            r"unknown stage 'plant' \(did you mean 'plan'\?\)",
        ),
        ("doctor", "metashot.metaprompt.tuning.tunable.PromptMethod", r"method 'm' has no stage 'doctor'"),
    ],
)
def test_a_wrong_stage_is_said_before_anything_is_imported(stage, target, message):
    with pytest.raises(ConfigError, match=message):
        check_stage({"stage": stage, "method": {"_target_": target, "name": "m"}})


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
