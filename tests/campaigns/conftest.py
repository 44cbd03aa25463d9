"""Whole commands in forks of one warm process, and what their folders must hold in the end."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import sys
from hashlib import sha256
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from commands import COMMANDS, NEEDS, lay_out
from program import KILL

HERE = Path(__file__).parent
WARM = [
    "torch", "transformers", "peft", "accelerate", "metashot.stages.run_config", "metashot.stages.icl_evaluation",
    "metashot.stages.icl_training", "metashot.stages.metaprompt", "metashot.stages.metaprompt_checks",
    "metashot.stages.preparation", "metashot.stages.reports", "metashot.stages.command", "metashot.stages.tracking",
    "torch._dynamo", "program",
]  # fmt: skip
_TIMES = ("wall_seconds", "seconds", "started", "time", "threads", "versions", "seal", "cost", "attempts")


class Program:
    """Runs commands of one kind below a folder."""

    def __init__(self, context, target, folder, cache):
        self._context, self._target, self.folder = context, target, folder
        self._environment = {"METASHOT_CACHE": str(cache), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

    def start(self, arguments, name, at=0, strike=KILL, *, privileged=True, **environment):
        """A running command in `<folder>/<name>`."""
        root = self.folder / name
        root.mkdir(parents=True, exist_ok=True)
        filled = [text.replace("ROOT", str(root)).replace("SHARED", str(self.folder)) for text in arguments]
        assigned = [word for word in filled if word.partition("=")[0].isupper()]
        variables = {**self._environment, **dict(word.split("=", 1) for word in assigned), **environment}
        words = [word for word in filled if word not in assigned]
        child = self._context.Process(
            target=self._target, args=(words, str(root), at, strike, variables, privileged)
        )
        child.start()
        return child

    def __call__(self, arguments, name, at=0, strike=KILL, **options):
        """The exit status of a command (negative: the signal that ended it)."""
        child = self.start(arguments, name, at, strike, **options)
        child.join(300)
        assert not child.is_alive(), f"{name} hangs: {self.said(name)}"
        return child.exitcode

    def undisturbed(self, kind, arguments):
        """A whole run in `<folder>/whole`, after what it needs and one run that fills the caches which all share."""
        lay_out(self.folder)
        if kind in NEEDS:
            command, place = NEEDS[kind]
            assert self(COMMANDS[command], place) == 0, self.said(place)
        for name in ("first", "whole"):
            assert self(arguments, name) == 0, self.said(name)

    def said(self, name):
        """What the last command in a folder printed."""
        return (self.folder / f"{name}.log").read_text()

    def events(self, name):
        """How often the last command in a folder changed a file."""
        return json.loads((self.folder / f"{name}.events").read_text())


@pytest.fixture(scope="session")
def warm():
    """A server that has imported everything; children fork from it."""
    sys.path.insert(0, str(HERE))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(WARM)
    yield context, importlib.import_module("program").run
    sys.path.remove(str(HERE))


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Models and clusters of all campaigns."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def program(warm, cache, tmp_path):
    return Program(*warm, tmp_path, cache)


@pytest.fixture
def holds():
    """`holds(root)`: every file below a folder by its content, less times and records of how it came about."""

    def call(root):
        found = {}
        for path in sorted(root.rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.is_file() and not _is_record(path, name):
                found[name] = _content(path, root)
        return found

    return call


def _is_record(path, name):
    return (
        path.suffix in (".lock", ".log")
        or ".hydra" in name
        or path.name in (".lock", "run.json", "prepare.json", "metrics.jsonl")
    )


def _content(path, root):
    if path.suffix in (".json", ".jsonl", ".md", ".html", ".tex", ".csv"):
        text = path.read_text().replace(str(root), "ROOT")
        if path.suffix == ".json":
            content = _untimed(json.loads(text))
            if "ledger" in path.parts:
                content.pop("digest", None)  # of a config that holds the folder's own path
            return content
        if path.suffix == ".jsonl":
            return [_untimed(json.loads(line)) for line in text.splitlines()]
        return text
    return sha256(path.read_bytes()).hexdigest()


def _untimed(value):
    if isinstance(value, dict):
        return {key: _untimed(item) for key, item in value.items() if key not in _TIMES}
    return [_untimed(item) for item in value] if isinstance(value, list) else value
