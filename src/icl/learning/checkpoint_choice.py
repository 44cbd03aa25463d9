"""What `checkpoint=` may name: a run, a checkpoint, a model or PEFT folder, a `model.pt`, or a published checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from metashot.base.errors import CheckpointError, ConfigError
from metashot.base.files import sha256_file
from metashot.engine.models.adapters import ADAPTER_CONFIG
from metashot.engine.models.exports import check_export
from metashot.engine.models.sources import ModelConfig
from metashot.engine.training.checkpoint import MANIFEST, best_checkpoint
from metashot.icl.prompting.methods import Method
from metashot.icl.released import (
    METHODS,
    RELEASED_FILE,
    download_released,
    import_released,
    load_released_checkpoint,
    parse_name,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FOLDERS = (MANIFEST, "config.json", ADAPTER_CONFIG)
"""Files of which one makes a folder loadable as it is."""


def checkpoint_folder(given: str, model: ModelConfig, method: Method, results_root: Path) -> Path:
    """The folder in our layout or in transformers' that `given` means, importing published files first.

    Args:
        given: a folder of a run (its best checkpoint is taken), of a checkpoint, of a model, or of a PEFT adapter; a
            `model.pt` or the folder that holds one; or a published name, `channel-metaicl` or
            `metaicl/qa_to_qa`, with `@<hub repository>` to fetch it from a mirror that keeps the authors' layout.
        model: the config's model, whose tokenizer goes with a `model.pt`.
        method: what the weights of a `model.pt` are taken for where its folders do not say.
        results_root: imports go to `<results_root>/released`, where published files are also looked for.

    Raises:
        ConfigError: nothing of these lies there, or a published file that is not here.
        CheckpointError: a `model.pt` that does not fit, or is no GPT-2 state dict.
    """
    path = Path(given).expanduser()
    released = results_root / "released"
    if path.is_dir():
        if any((path / name).is_file() for name in _FOLDERS):
            return path
        best = best_checkpoint(path / "checkpoints")
        if best is not None:
            return best
        path = path / RELEASED_FILE
    if path.is_file():
        return _imported(path, _name_of(path, method), model.read_tokenizer(), released)
    name, _, repository = given.partition("@")
    if name.partition("/")[0].startswith(METHODS):
        published = parse_name(name)
        path = released / published.remote_path
        if not path.is_file():
            path = _fetched(name, repository, released)
        return _imported(path, name, model.read_tokenizer(), released)
    raise ConfigError(
        "checkpoint",
        f"{given!r} holds no whole checkpoint, no model and no {RELEASED_FILE}",
        f"run stage=train first, or name a published one: {', '.join(METHODS)}",
    )


def _fetched(name: str, repository: str, released: Path) -> Path:
    if repository:
        return download_released(name, repository, released)
    place = released / parse_name(name).remote_path
    raise ConfigError(
        "checkpoint",
        f"the published file of {name!r} is not at {str(place)!r}",
        f"put the authors' {RELEASED_FILE} there, or give checkpoint={name}@<hub repository with their layout>",
    )


def _name_of(path: Path, method: Method) -> str:
    """A published name from the folders `<method>/<setting>/model.pt`, or the method's own."""
    own = path.resolve().parent
    try:
        return f"{own.parent.name}/{parse_name(f'{own.parent.name}/{own.name}').setting}"
    except ConfigError:
        return method.name.replace("_", "-")


def _imported(path: Path, name: str, tokenizer: PreTrainedTokenizerBase, released: Path) -> Path:
    check_export(path.parent)
    root = released / "imported" / f"{parse_name(name).method}-{sha256_file(path)[:16]}"
    done = best_checkpoint(root)
    if done is not None:
        return done
    vocabulary = load_released_checkpoint(path).config.vocab_size
    if len(tokenizer) > vocabulary:
        raise CheckpointError(
            str(path),
            f"has {vocabulary:,} word vectors, and the tokenizer of model=... has {len(tokenizer):,} tokens",
            "choose the model that it was trained from, model=gpt2_large for the published ones",
        )
    return import_released(path, name, tokenizer, root)
