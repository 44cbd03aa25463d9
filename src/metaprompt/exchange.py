"""A prompt and its regularizer as one folder for others: a PEFT adapter, psi in safetensors, and a card.

`adapter_config.json` and `adapter_model.safetensors` are what `peft` reads; `regularizer.safetensors` and
`regularizer.json` are psi and its shape; `README.md` says what the folder holds and how to use it.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from metashot.base.errors import CheckpointError
from metashot.base.files import sha256_file, write_atomic, write_json
from metashot.base.json_text import read_json
from metashot.engine.models.exports import CARD, check_export, exporting
from metashot.engine.models.loading import LanguageModel
from metashot.engine.models.sources import HubModel
from metashot.metaprompt.meta.steps.regularizer import GradientRegularizer, RegularizerConfig
from metashot.metaprompt.meta.training import MetaLearned
from metashot.metaprompt.tuning.adapters import WEIGHTS_FILE, export_adapter, import_adapter

ADAPTER_CONFIG = "adapter_config.json"
REGULARIZER_WEIGHTS, REGULARIZER_CONFIG = "regularizer.safetensors", "regularizer.json"


def export_learned(
    folder: Path,
    language_model: LanguageModel,
    prompt: Tensor,
    regularizer: GradientRegularizer | None,
    origin: dict[str, Any],
) -> None:
    """Write a prompt [P, d], and psi if there is one, as a folder that `peft` and `import_learned` read.

    Args:
        folder: one that does not exist yet, or an earlier export, which is replaced.
        language_model: the model that the prompt is for.
        prompt: [P, d].
        regularizer: psi, or None.
        origin: what the card says about where both come from.

    Raises:
        ConfigError: the folder exists and is no export.
        OutputError: the folder cannot be written.
    """
    with exporting(folder) as made:
        export_adapter(made, language_model, prompt)
        path = made / ADAPTER_CONFIG
        config = json.loads(path.read_text(encoding="utf-8"))
        config["base_model_name_or_path"] = _public_name(language_model)
        write_json(path, config)
        if regularizer is not None:
            tensors = {name: t.detach().cpu().contiguous() for name, t in regularizer.state_dict().items()}
            write_atomic(made / REGULARIZER_WEIGHTS, save(tensors))
            shape = asdict(regularizer.config) | {"rescale": regularizer.rescale.value}
            write_json(made / REGULARIZER_CONFIG, shape)
        write_atomic(made / CARD, _card(language_model, prompt, regularizer, origin))


def import_learned(folder: Path, width: int | None = None) -> MetaLearned:
    """Prompt and frozen psi (None without one) of a folder that `export_learned` or `peft` wrote.

    Args:
        folder: with `adapter_config.json`.
        width: the model's embedding width, checked when given.

    Raises:
        CheckpointError: damaged, no prompt-tuning adapter, or of another width.
        ModelError: an export of ours that is not as it was written.
    """
    check_export(folder)
    prompt = import_adapter(folder, width)
    digest = sha256_file(folder / WEIGHTS_FILE)
    if not (folder / REGULARIZER_WEIGHTS).is_file():
        return MetaLearned(prompt, None, digest)
    try:
        row = read_json(folder / REGULARIZER_CONFIG)
        regularizer = GradientRegularizer(prompt.shape[1], RegularizerConfig(**row))
        regularizer.load_state_dict(load_file(folder / REGULARIZER_WEIGHTS))
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            str(folder / REGULARIZER_WEIGHTS),
            f"no readable regularizer: {str(error).splitlines()[0]}",
            "export it again, or remove both regularizer files",
        ) from error
    return MetaLearned(prompt, regularizer.requires_grad_(False).eval(), digest)


def is_adapter(folder: Path) -> bool:
    """Whether `folder` holds a PEFT adapter."""
    return (folder / ADAPTER_CONFIG).is_file()


def _public_name(language_model: LanguageModel) -> str:
    """A hub id as it is; for models that lie on a disk their name, never their folder."""
    spec = language_model.spec
    return spec.path if isinstance(spec, HubModel) else spec.name


def _card(
    language_model: LanguageModel,
    prompt: Tensor,
    regularizer: GradientRegularizer | None,
    origin: dict[str, Any],
) -> str:
    name = _public_name(language_model)
    kind = "AutoModelForSeq2SeqLM" if language_model.is_seq2seq else "AutoModelForCausalLM"
    place = "the encoder's input" if language_model.is_seq2seq else "the input"
    lines = [
        "---",
        "library_name: peft",
        f"base_model: {name}",
        "tags: [soft-prompt, prompt-tuning, few-shot]",
        "---",
        "",
        f"# Soft prompt for {name}",
        "",
        f"{prompt.shape[0]} virtual tokens of width {prompt.shape[1]} that stand before {place}. The model's weights have the",
        f"sha256 digest `{language_model.weights_digest}`.",
        "",
        "```python",
        "from peft import PeftModel",
        f"from transformers import {kind}",
        "",
        f'model = PeftModel.from_pretrained({kind}.from_pretrained("{name}"), "<this folder>", is_trainable=True)',
        "```",
        "",
    ]
    if regularizer is not None:
        lines += [
            f"`{REGULARIZER_WEIGHTS}` is the gradient regularization function that was meta-learned with the prompt:",
            "psi(g, e) = (1 - z(e)) rescale(h(g)) + z(e) g, applied to the prompt's gradient g before clipping, with e the mean",
            f"last hidden state of the batch. Its shape stands in `{REGULARIZER_CONFIG}`. In metashot:",
            "",
            "```bash",
            "metashot method=supmer tuning.prompt_path=<this folder>        # tune with it",
            "metashot method=soft_prompt tuning.prompt_path=<this folder>   # tune without it",
            "```",
            "",
        ]
    lines += ["Where it comes from:", "", "```json", json.dumps(origin, indent=2, sort_keys=True), "```", ""]
    return "\n".join(lines)
