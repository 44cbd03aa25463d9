"""What a tuning cell starts from: a new or meta-learned prompt, psi, or the model itself."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from metashot.base.errors import ConfigError
from metashot.base.json_text import digest_of
from metashot.engine.models.loading import LanguageModel
from metashot.metaprompt.backbone import Backbone
from metashot.metaprompt.exchange import import_learned, is_adapter
from metashot.metaprompt.meta.config import LayerInit, RegularizerConfig, Rescale
from metashot.metaprompt.meta.setup import make_regularizer
from metashot.metaprompt.meta.steps.regularizer import GradientRegularizer
from metashot.metaprompt.meta.training import MetaLearned, load_meta_learned
from metashot.metaprompt.released import load_released_regularizer
from metashot.metaprompt.soft_prompt import check_positions, initial_prompt, load_prompt
from metashot.metaprompt.tuning.adapters import peft_p_tuning_model, peft_prompt_model
from metashot.metaprompt.tuning.config import TuneSettings, TuningMethod
from metashot.metaprompt.tuning.tunable import (
    FullTunable,
    LoraTunable,
    PeftPromptTunable,
    PromptTunable,
    Tunable,
)

_log = logging.getLogger(__name__)
LENGTH_KEYS = ("tuning.prompt_length", "tuning.max_tokens")
_RANDOM_PSI = RegularizerConfig(
    rank=1920,
    hidden_layers=1,
    residual=False,
    last_activation="relu",
    init=LayerInit.NORMAL,
    rescale=Rescale.MATRIX_L2,
    coefficient_width=24,
)


@dataclass(frozen=True, slots=True)
class StartingPoint:
    """What every cell starts from: a given prompt (or None for a new one), psi, and digests of both."""

    prompt: Tensor | None
    regularizer: GradientRegularizer | None
    digest: dict[str, Any]


def starting_point(
    settings: TuneSettings, language_model: LanguageModel, backbone: Backbone
) -> StartingPoint:
    """Load prompt and psi once for all cells.

    Raises:
        CheckpointError: a file of another kind or width.
        ConfigError: supmer without a regularizer.
    """
    prompt, regularizer, digest = None, None, dict[str, Any]()
    width = backbone.width
    if settings.prompt_path:
        path = Path(settings.prompt_path).expanduser()
        if path.is_dir():
            learned = _learned(path, width)
            prompt, regularizer = learned.prompt, learned.regularizer
            digest["meta"] = learned.digest
        else:
            prompt = load_prompt(path, width)
            digest["prompt"] = digest_of(prompt.tolist())
    if prompt is not None:
        _check_length(settings, language_model, len(prompt))
    if settings.regularizer_path:
        regularizer = _regularizer_of(Path(settings.regularizer_path).expanduser(), width)
    behaviour = settings.behaviour()
    if settings.tuning == TuningMethod.SOFT_PROMPT:
        regularizer = make_regularizer(width, _RANDOM_PSI, 0) if behaviour.always_regularize else None
    elif settings.tuning != TuningMethod.SUPMER:
        regularizer = None
    elif regularizer is None:
        raise ConfigError(
            "tuning.regularizer_path",
            "names no regularizer, and tuning.prompt_path holds a prompt alone",
            "give a checkpoint folder or a gradient_edit_*.pt, or use method=soft_prompt",
        )
    if regularizer is not None:
        rescale = Rescale.MATRIX_L2 if behaviour.matrix_rescale_downstream else settings.rescale
        regularizer.rescale = Rescale(rescale or regularizer.rescale)
        regularizer = regularizer.requires_grad_(False).eval().to(language_model.device)
        digest["regularizer"] = digest_of({n: t.tolist() for n, t in regularizer.state_dict().items()})
        digest["rescale"] = regularizer.rescale.value
    return StartingPoint(prompt, regularizer, digest)


def _check_length(settings: TuneSettings, language_model: LanguageModel, length: int) -> None:
    """Hold the length of a given prompt to the positions, and say that `tuning.prompt_length` has no part in it."""
    if length != settings.prompt_length:
        _log.warning(
            "tuning.prompt_length=%d has no effect: the prompt of tuning.prompt_path has %d virtual tokens",
            settings.prompt_length,
            length,
        )
    check_positions(language_model, length, settings.max_tokens, LENGTH_KEYS)


def _learned(folder: Path, width: int) -> MetaLearned:
    return import_learned(folder, width) if is_adapter(folder) else load_meta_learned(folder, width)


def _regularizer_of(path: Path, width: int) -> GradientRegularizer | None:
    return _learned(path, width).regularizer if path.is_dir() else load_released_regularizer(path)


def make_tunable(settings: TuneSettings, backbone: Backbone, start: StartingPoint, seed: int) -> Tunable:
    """The thing that one cell trains."""
    method = TuningMethod(settings.tuning)
    if method is TuningMethod.FULL:
        return FullTunable(backbone)
    if method is TuningMethod.LORA:
        return LoraTunable(backbone, settings.lora_rank, settings.lora_alpha, settings.lora_dropout)
    language_model = backbone.language_model
    prompt = start.prompt
    if prompt is None:
        prompt = initial_prompt(language_model, settings.prompt_length, settings.prompt_init, seed)
    prompt = prompt.clone().to(language_model.device)
    if method is TuningMethod.PEFT_PROMPT:
        return PeftPromptTunable(backbone, peft_prompt_model(language_model, prompt))
    if method is TuningMethod.PEFT_P_TUNING:
        return PeftPromptTunable(backbone, peft_p_tuning_model(language_model, prompt, seed))
    return PromptTunable(
        backbone, nn.Parameter(prompt), start.regularizer, settings.behaviour().state_over_padding
    )
