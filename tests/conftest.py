"""Nothing may download while tests run."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

# One thread each: pytest-xdist already fills the cores, and spinning threads would only slow each other down.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

TENSOR_MODULES = (
    "metashot.icl.learning.batches.objective",
    "metashot.metaprompt.meta.steps.interpolation",
    "metashot.metaprompt.meta.steps.regularizer",
)
"""Modules of pure tensor functions, whose shapes and dtypes every test checks as it calls them."""
install_import_hook(TENSOR_MODULES, "beartype.beartype")

# Hypothesis' limits are of wall time (200 ms an example), which a crowded machine or a slow fsync exceeds by itself.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout's root."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference material beside the checkout (or at $METASHOT_SHARED); tests that need it skip without it."""
    folder = Path(os.environ.get("METASHOT_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip("the shared reference material is not here")
    return folder
