"""The command: compose the config, check it, run its stages, report. `run.py` and the wheel's `metashot` call it."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import metashot
from metashot.base.components.choices import CONFIG_FOLDER
from metashot.base.errors import ConfigError, MetashotError
from metashot.base.secrets import hide_in_files, recorded_overrides, secrets_of, without_secrets
from metashot.base.terminal import PrintableRecords
from metashot.engine.training.signals import sigterm_interrupts
from metashot.stages.command_line import program, with_new_keys, with_typed_folder
from metashot.stages.composition_errors import SEARCH_PATH, explain
from metashot.stages.endings import (
    FULL_ERROR,
    SHOW_ALL,
    check_working_folder,
    fail,
    nothing_left,
    one_line_errors,
)
from metashot.stages.execution import announce, execute
from metashot.stages.launch import LAUNCH
from metashot.stages.removed_nodes import check_nothing_is_removed
from metashot.stages.replay import replay
from metashot.stages.shared_paths import anchored
from metashot.stages.stage_table import check_stage

HELP_KEYS = "--help-keys"
WELCOME = """metashot {version}: few-shot experiments with language models. Type one of these next:

  metashot init my_study                       a small study of your own, ready to be run and changed
  metashot stage=recipe prepare.file=my.csv    from your table to a task
  metashot method=channel k=4                  one method on the embedded tasks
  metashot --help                              stages and choices; --help-keys explains keys
"""


def register_resolvers() -> None:
    """`${run_stamp:}`, `${basename:path}` and `${program:}`."""
    stamp = LAUNCH.stamp  # plain text, since launchers send resolvers to their workers
    OmegaConf.register_new_resolver("run_stamp", lambda: stamp, replace=True)
    OmegaConf.register_new_resolver("program", program, replace=True)
    OmegaConf.register_new_resolver("basename", lambda path: Path(str(path)).name, replace=True)
    OmegaConf.register_new_resolver("run_folder", run_folder, replace=True)


def run_folder() -> str:
    """The folder of the run: Hydra's, or in a notebook the one that `evaluate` would take."""
    if HydraConfig.initialized():
        return str(HydraConfig.get().runtime.output_dir)
    return f"outputs/runs/{LAUNCH.stamp}"


@hydra.main(config_path=str(CONFIG_FOLDER), config_name="config", version_base="1.3")
def job(composed: DictConfig) -> float | None:
    """One job of a run or multirun. In a multirun a mistake fails its job only; alone it ends the process."""
    settings = HydraConfig.get()
    output = Path(settings.runtime.output_dir)
    for handler in logging.getLogger().handlers:
        handler.addFilter(PrintableRecords())
    try:
        with nothing_left(output):
            # As they were written: an interpolation in one may stand for a secret.
            overrides = cast("list[str]", OmegaConf.to_container(settings.overrides.task, resolve=False))
            if composed.stage == "rerun":
                composed, overrides = replay(composed, overrides)
            config = cast(
                "dict[str, Any]", OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
            )
            if settings.job.chdir:
                config = anchored(config, Path(settings.runtime.cwd))
            check_nothing_is_removed(config)
            check_stage(config)
            if settings.mode is RunMode.RUN and LAUNCH.leads:
                announce(config)
            secrets = secrets_of(config, OmegaConf.to_container(composed, resolve=False))
            hide_in_files(output / ".hydra", secrets)
            return execute(
                config, output, recorded_overrides(overrides, secrets), without_secrets(config, secrets)
            )
    except (MetashotError, OmegaConfBaseException) as error:
        if settings.mode is RunMode.MULTIRUN or SHOW_ALL:
            raise
        return fail(str(error) if isinstance(error, MetashotError) else explain(error))


def show_keys(arguments: list[str]) -> None:
    """Print what the keys of the group or node behind `--help-keys` are."""
    from metashot.stages.reference.keys import help_keys

    with one_line_errors():
        print(help_keys(next((word for word in arguments if word != HELP_KEYS), None)))


def init(arguments: list[str]) -> None:
    """`init FOLDER`: a study of one's own."""
    from metashot.stages.study import make_study

    with one_line_errors():
        if len(arguments) != 1 or arguments[0].startswith("-"):
            raise ConfigError(
                "init", "takes the name of one folder", f"for example: {program()} init my_study"
            )
        print(make_study(Path(arguments[0])))


def main() -> None:
    """Run what the command line asks for."""
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # hydra/launcher=ray would report to its makers
    warnings.filterwarnings("error", message=f"{SEARCH_PATH}.* is not available")
    logging.raiseExceptions = False  # a log file that cannot be written (a full disk) is no second error
    os.environ[FULL_ERROR] = "1"  # makes Hydra raise, where it would print and exit by itself
    sys.argv[1:] = with_typed_folder(with_new_keys(sys.argv[1:]), os.environ)
    if HELP_KEYS in sys.argv[1:]:
        return show_keys(sys.argv[1:])
    if not sys.argv[1:] and program() == "metashot":
        return print(WELCOME.format(version=metashot.__version__), end="")
    if sys.argv[1:] == ["--version"]:
        return print(f"metashot {metashot.__version__}")
    if sys.argv[1:2] == ["init"]:
        return init(sys.argv[2:])
    with one_line_errors(), LAUNCH.joined(), sigterm_interrupts():
        check_working_folder()
        register_resolvers()
        job()
        sys.stdout.flush()  # a reader that has gone is noticed here, not as the interpreter ends
