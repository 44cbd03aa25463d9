"""Module names of version 0.1 that have moved: own components written against them still import."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_ROOMS = {
    "base": {
        "data": "errors files json_text yaml_files console terminal value_kinds",
        "engine": "components errors files",
        "stages": "secrets",
    },
    "data.rows": {"data": "jsonl record_checks episodes apart", "data.preparation": "manifest"},
    "data.tasks": {
        "data": "source demo selected_source selection synthetic synthetic_rules harness_tasks pool_cells modules"
    },
    "data.text": {"data": "corpus sentences"},
    "icl.learning": {
        "icl": "held_out meta_training meta_learner trainer training_settings training_plan checkpoint_choice export"
    },
    "icl.learning.writing": dict.fromkeys(("icl", "icl.learning"), "sequences sequence_labels piece_cache"),
    "icl.learning.batches": dict.fromkeys(
        ("icl", "icl.learning"), "collate objective slices episode_stream attention_mask"
    ),
    "icl.prompting": {"icl": "methods prompt fitting columns calibration_inputs"},
    "icl.scoring": {
        "icl": "preview cell cell_data evaluation_settings plan generation classifier trained_method"
    },
    "metaprompt.meta.drawing": {"metaprompt.meta": "domains draws formats format_names tasks cuts"},
    "metaprompt.meta.steps": {"metaprompt.meta": "interpolation inner_loop outer_loop regularizer"},
    "engine.report.reading": {"engine.report": "folders harness_files variants coverage"},
    "engine.report.systems": {"engine.report": "pair_tests published rescoring"},
    "engine.report.tables": {"engine.report": "table comparisons confidence_table run_list"},
    "engine.report.page": {"engine.report": "html explorer"},
    "engine.report.formats": {"engine.report": "latex harness_output"},
}
"""Room -> where its modules were before -> their names."""
MOVED = {
    f"metashot.{old}.{name}": f"metashot.{new}.{name}"
    for new, sources in _ROOMS.items()
    for old, names in sources.items()
    for name in names.split()
} | {
    "metashot.data.seals": "metashot.base.json_text",
    "metashot.data.sources.place": "metashot.data.preparation.place",
    "metashot.engine.report.figures": "metashot.engine.report.page.plots",
    "metashot.engine.runs": "metashot.engine.cells",
    "metashot.icl.progress": "metashot.engine.cells.progress",
    "metashot.icl.prompt_record": "metashot.icl.scoring.preview",
    "metashot.engine.generation.stopping": "metashot.engine.generation.request",
    "metashot.icl.measured": "metashot.icl.scoring.ranking",
    "metashot.icl.evaluation": "metashot.icl.scoring.ranking",
}
"""Old module or package -> where it stands now."""


class MovedNames(MetaPathFinder, Loader):
    """Finds a module of `MOVED`, or one below it, under its new name; both names are one module."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec for an old name, None for every other."""
        return ModuleSpec(fullname, self) if _now(fullname) is not None else None

    def exec_module(self, module: ModuleType) -> None:
        """Put the module of the new name in the place of the old one."""
        old = module.__name__
        new = _now(old)
        assert new is not None
        warnings.warn(f"{old} is now {new}", DeprecationWarning, stacklevel=2)
        sys.modules[old] = import_module(new)


def _now(name: str) -> str | None:
    for old, new in MOVED.items():
        if name == old or name.startswith(old + "."):
            return new + name[len(old) :]
    return None


def install() -> None:
    """Once, when the package is imported."""
    if not any(isinstance(finder, MovedNames) for finder in sys.meta_path):
        sys.meta_path.insert(0, MovedNames())
