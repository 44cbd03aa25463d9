"""The only entry point: compose the config, check it, run its stages, report.

python run.py method=channel k=16 'seeds=[100,13]'
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import sys
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

FULL_ERROR = "HYDRA_FULL_ERROR"
SHOW_ALL = os.environ.get(FULL_ERROR) == "1"
"""Whether the user asked for whole tracebacks, before `main` sets the variable for Hydra."""
USAGE_EXIT = 2
RUN_FILES = (".hydra", "run.json")
GROUP_NULL = "Config group override must be"
LAUNCHER_EXTRAS = {"joblib": "sweep", "submitit_local": "sweep", "submitit_slurm": "sweep", "ray": "ray"}
"""Choices of hydra/launcher that a plugin brings, and the extra that installs it."""
LOG_WIDTH = 120
RUN_ID = uuid.uuid4().hex[:6]
"""Keeps two runs of one second apart. Plain text, since launchers send resolvers to their workers."""

Stage = Callable[[Any], float | None]


def register_resolvers() -> None:
    """`${uid:}` and `${basename:path}`."""
    OmegaConf.register_new_resolver("uid", lambda: RUN_ID, replace=True)
    OmegaConf.register_new_resolver("basename", lambda path: Path(str(path)).name, replace=True)


def stages() -> dict[str, dict[str, Stage]]:
    """Stage -> method family -> function. Imports torch, so only a run calls it."""
    from engine import data_stages
    from engine import stages as common
    from icl import stages as icl
    from icl import training_stage as training
    from metaprompt import stages as prompt

    return {
        "prepare": {"icl": data_stages.prepare_stage, "prompt": prompt.prepare_stage},
        "doctor": {"icl": data_stages.doctor_stage},
        "train": {"icl": training.train_stage, "prompt": prompt.train_stage},
        "evaluate": {"icl": icl.evaluate_stage, "prompt": prompt.evaluate_stage},
        "plan": {"icl": icl.plan_stage},
        "report": {"icl": common.report_stage, "prompt": common.report_stage},
        "compare": {"icl": common.compare_stage, "prompt": common.compare_stage},
    }


def chosen_stages(config: Mapping[str, Any]) -> list[Stage]:
    """The functions of `stage=...`, in order.

    Raises:
        ConfigError: a stage that does not exist, or that the method has no use for.
    """
    from engine.config import suggestion
    from engine.errors import ConfigError

    known = stages()
    asked = config["stage"] if isinstance(config["stage"], list) else [config["stage"]]
    family = "prompt" if "tuning" in config["method"] else "icl"
    functions: list[Stage] = []
    for name in asked:
        if name not in known:
            raise ConfigError("stage", f"unknown stage {name!r}", suggestion(str(name), known))
        if family not in known[name]:
            useful = [stage for stage, functions_ in known.items() if family in functions_]
            raise ConfigError(
                "stage",
                f"method {config['method']['name']!r} has no stage {name!r}",
                f"one of {', '.join(useful)}",
            )
        functions.append(known[name][family])
    return functions


def execute(config: dict[str, Any], output: Path, overrides: list[str]) -> float | None:
    """Run the stages of a resolved config; returns the last stage's figure, for sweepers."""
    from rich.console import Console

    from engine.config import check_targets
    from engine.pruning import watched
    from engine.run_context import RunContext, tracker_spec
    from engine.run_record import RunRecord
    from engine.tracking import open_tracker

    check_targets(config)
    functions = chosen_stages(config)
    tracker = watched(open_tracker(tracker_spec(config), config))
    console = Console(width=None if sys.stdout.isatty() else LOG_WIDTH)
    record = RunRecord(output, config, overrides)
    run = RunContext(config, output, Path(config["results_root"]), console, tracker, record)
    figure: float | None = None
    status = "failed"
    try:
        for function in functions:
            figure = function(run)
        status = "finished"
    finally:
        record.write(status)
        tracker.finish("ok" if status == "finished" else "failed")
    run.console.print(f"output folder: {output}", soft_wrap=True)
    return figure


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def job(composed: DictConfig) -> float | None:
    """One job of a run or multirun. In a multirun a mistake fails its job only; alone it ends the process."""
    from data.errors import MetashotError

    settings = HydraConfig.get()
    output = Path(settings.runtime.output_dir)
    try:
        with nothing_left(output):
            overrides = list(settings.overrides.task)
            if composed.stage == "rerun":
                composed, overrides = replay(composed, overrides)
            config = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
            return execute(config, output, overrides)  # pyright: ignore[reportArgumentType]
    except (MetashotError, OmegaConfBaseException) as error:
        if settings.mode is RunMode.MULTIRUN or SHOW_ALL:
            raise
        return fail(str(error) if isinstance(error, MetashotError) else explain(error))


def replay(composed: DictConfig, overrides: list[str]) -> tuple[DictConfig, list[str]]:
    """The config of `run=<folder>` composed again from its overrides, with today's files and further overrides.

    Prints in which keys it differs from what the run recorded.

    Raises:
        ConfigError: no `run`, or a run that was itself a replay without overrides of its own.
        OutputError: the folder holds no run.
    """
    from engine.config_difference import config_changes, read_run
    from engine.errors import ConfigError

    if composed.run is None:
        raise ConfigError("run", "is not set", "stage=rerun run=<output folder of a run>")
    saved = read_run(Path(composed.run))
    further = [text for text in overrides if text.partition("=")[0] not in ("stage", "run")]
    again = [*saved.overrides, *further]
    config = compose("config", overrides=again)
    today: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # pyright: ignore[reportAssignmentType]
    changes = config_changes(saved.config, today, ignore=("results_root", "logger.folder", "logger.group"))
    if changes:
        print("the config differs from the recorded one (then -> today):", *changes, sep="\n  ")
    else:
        print("the config is the same as then")
    return config, again


@contextmanager
def nothing_left(output: Path) -> Generator[None]:
    """After a user's mistake, remove an output folder that holds no result."""
    from data.errors import MetashotError

    try:
        yield
    except (MetashotError, OmegaConfBaseException):
        if output.is_dir() and all(
            path.name in RUN_FILES or path.suffix == ".log" for path in output.iterdir()
        ):
            shutil.rmtree(output)
            with suppress(OSError):  # the folders of the day, unless other runs are in them
                output.parent.rmdir()
                output.parent.parent.rmdir()
        raise


def explain(error: Exception) -> str:
    """One line for a composition error: the key, the fault, the way out."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        if group == "hydra/launcher" and choice in LAUNCHER_EXTRAS:
            extra = LAUNCHER_EXTRAS[choice]
            return f"{group}: {choice!r} is not installed (pip install 'metashot[{extra}]')"
        return f"{group or 'config'}: no choice {choice!r} ({hint(choice, error.options or ())})"
    cause = next((link for link in chain(error) if isinstance(link, OmegaConfBaseException)), None)
    if isinstance(error, OverrideParseException):
        return unparsed(error.override)
    if cause is None:
        return explain_text(" ".join(str(error).split()))
    if match := re.search(r"Missing mandatory value: ([\w.]+)", str(cause)):
        full = str(cause.full_key or "")
        name = full if full.endswith(match[1]) else match[1]
        return f"{name}: is not set (give {name}=<value>)"
    key = cause.full_key or str(cause.key)
    parent = cause.parent_node if cause.parent_node is not None else None
    known = [str(name) for name in parent] if isinstance(parent, DictConfig) else []
    fault = str(cause.msg or cause).split("\n")[0]
    if "is not in struct" in fault or re.fullmatch(r"Key '.*' not in '\w+'", fault):
        way_out = hint(str(cause.key), known) if known else f"to add it, write +{key}=<value>"
        return f"{key}: unknown key ({way_out})"
    return f"{key}: {fault} (correct the value)"


def explain_text(text: str) -> str:
    """Errors of Hydra's own parser and command line."""
    if match := re.search(r"Ambiguous value for argument '([^']*)'", text):
        key = match[1].split("=")[0]
        return f"{key}: several values in {match[1]!r} (sweep with -m, or write a list: '{key}=[...]')"
    if match := re.search(r"Error parsing override '(.*?)'", text):
        return unparsed(match[1])
    if match := re.search(r"Could not override '([^']*)'. No match in the defaults list", text):
        return f"{match[1]}: no such config group ({hint(match[1], [path.name for path in (Path(__file__).parent / 'conf').iterdir() if path.is_dir()])})"
    if text.startswith(GROUP_NULL):
        return "config: a config group cannot be set to null (leave the override out, or drop the group with ~group)"
    return f"config: {text} (see python run.py --help)"


def unparsed(word: str) -> str:
    """An override that Hydra's grammar does not know."""
    return f"{word}: cannot be parsed as an override (write key=value, and put values with special characters in quotes)"


def hint(word: str, known: Any) -> str:
    """`did you mean x?`, or what is known."""
    names = sorted(str(name) for name in known)
    near = difflib.get_close_matches(word, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'nothing'}"


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and what caused it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def fail(message: str) -> NoReturn:
    """Print the one-line error and leave with the status of a usage error."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(USAGE_EXIT)


def main() -> None:
    """Run, and turn a user's mistake into one line and exit status 2."""
    from data.errors import MetashotError

    register_resolvers()
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # hydra/launcher=ray would report to its makers
    os.environ[FULL_ERROR] = "1"  # makes Hydra raise, where it would print and exit by itself
    try:
        job()
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        if SHOW_ALL or (isinstance(error, ValueError) and not str(error).startswith(GROUP_NULL)):
            raise
        fail(explain(error))
    except MetashotError as error:  # of the sweep itself; a job has its own
        if SHOW_ALL:
            raise
        fail(str(error))
    except KeyboardInterrupt:
        print("interrupted: finished cells and checkpoints are stored, run again to go on", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
