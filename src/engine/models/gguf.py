"""GGUF files become float32 safetensors once, in the user's cache folder."""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from metashot.base.errors import ModelError
from metashot.base.files import (
    fsync_file,
    fsync_folder,
    output_errors,
    sha256_file,
    sha256_once,
    write_json,
)
from metashot.base.json_text import parse_json, sealed, unsealed
from metashot.engine.models.gguf_files import GgufFile
from metashot.engine.models.weights import first_line
from metashot.engine.training.weight_output import share_as_folder, weight_output_errors

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_COMPLETE_MARK = "complete"
_STAGING_SUFFIX = ".tmp"

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """`$METASHOT_CACHE`, or `metashot` in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "metashot"
    return Path(os.environ.get("METASHOT_CACHE", default)).expanduser()


def convert_gguf(source: GgufFile) -> Path:
    """Convert a GGUF file to float32 safetensors once; the folder is named after the file's content.

    The folder appears by a rename and holds the sha256 of each of its files, which are compared at every start; a
    damaged folder is converted anew, and what a killed conversion left is removed. One conversion runs at a time,
    since each holds a whole model in float32.

    Raises:
        ModelError: the file cannot be read.
        OutputError: the cache cannot be written.
    """
    digest = source.digest()
    target = cache_folder() / "models" / f"{source.stem}-{digest[:16]}"
    if _is_whole(target):
        _remove_leftovers(target.parent)
        return target
    with output_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(target.parent):
        _remove_staging(target.parent)
        if _is_whole(target):
            return target
        if target.exists():
            _log.warning("%s is damaged (or of an earlier version) and is converted again", target)
        staging = target.with_name(f".{target.name}.{uuid.uuid4().hex}{_STAGING_SUFFIX}")
        try:
            with output_errors(staging):
                staging.mkdir()
            _write_converted(source, staging)
            _write_mark(staging, digest)
            shutil.rmtree(target, ignore_errors=True)
            with output_errors(target):
                os.replace(staging, target)
                fsync_folder(target.parent)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return target


def _write_mark(folder: Path, source: str) -> None:
    """Make the files durable and write their digests beside them."""
    files: dict[str, str] = {}
    for file in sorted(folder.iterdir()):
        with output_errors(file):
            fsync_file(file)
        files[file.name] = sha256_file(file)
    write_json(folder / _COMPLETE_MARK, sealed({"source": source, "files": files}))


def _is_whole(folder: Path) -> bool:
    """Whether the folder holds exactly the files of its mark, each with its digest."""
    try:
        mark = unsealed(parse_json((folder / _COMPLETE_MARK).read_bytes()))
        names = {path.name for path in folder.iterdir()} - {_COMPLETE_MARK}
        return names == mark["files"].keys() and all(
            sha256_once(folder / name) == digest for name, digest in mark["files"].items()
        )
    except (OSError, ValueError):
        return False


def _remove_staging(folder: Path) -> None:
    """What killed conversions left; the caller holds the lock, so that none is running."""
    for leftover in folder.glob(f".*{_STAGING_SUFFIX}"):
        shutil.rmtree(leftover, ignore_errors=True)


def _remove_leftovers(folder: Path) -> None:
    """The same where nothing is to be converted, unless another process converts just now."""
    if any(folder.glob(f".*{_STAGING_SUFFIX}")):
        with suppress(OSError, Timeout), FileLock(folder / ".conversion.lock", mode=0o666, timeout=0):
            _remove_staging(folder)


@contextmanager
def _one_at_a_time(folder: Path) -> Generator[None]:
    lock = FileLock(folder / ".conversion.lock", mode=0o666)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        _log.info("another process converts a model, this one waits")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _write_converted(source: GgufFile, folder: Path) -> None:
    """Convert into an empty folder; parts are joined there first."""
    size = sum(part.stat().st_size for part in source.parts)
    _log.info(
        "converting %s.gguf (%d MB) to safetensors, once; this takes a minute or more",
        source.stem,
        size >> 20,
    )
    with output_errors(folder):
        whole = source.joined_in(folder)
    model, tokenizer = _read_gguf(whole)
    if whole.parent == folder:
        whole.unlink()
    _log.info("writing %d tensors of %s", len(model.state_dict()), type(model).__name__)
    with weight_output_errors(folder):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        share_as_folder(folder)


def _read_gguf(path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model in float32 and tokenizer of a GGUF file."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    try:
        config: Any = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
        auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        given = {"config": _t5_config(config, path)} if config.model_type == "t5" else {}
        loaded: Any = auto.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32, output_loading_info=True, **given
        )
        quantized, told = loaded
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    except Exception as error:
        raise ModelError(
            str(path),
            f"cannot read this GGUF file: {first_line(error)}",
            "check that the file is whole, and that transformers reads its architecture",
        ) from error
    if told["missing_keys"]:
        lacking = sorted(told["missing_keys"])
        raise ModelError(
            str(path),
            f"lacks {len(lacking)} of the tensors of {type(quantized).__name__}, such as {lacking[0]}",
            "give the file of a whole language model",
        )
    # transformers refuses to save a model that remembers its quantization, so a plain twin takes the tensors.
    config = quantized.config.__class__.from_dict(
        {key: value for key, value in quantized.config.to_dict().items() if key != "quantization_config"}
    )
    with torch.device("meta"):
        plain = auto.from_config(config, dtype=torch.float32)
    plain.load_state_dict(quantized.state_dict(), assign=True)
    if quantized.get_output_embeddings().weight is quantized.get_input_embeddings().weight:
        plain.tie_weights()  # a T5 config asks for it even where the file has a head of its own
    return plain, tokenizer


def _t5_config(config: Any, path: Path) -> Any:
    """The config of a T5 file with what transformers 5.23 does not read: the feed-forward layer's form, and whose the head is.

    Files with a gate are of T5 1.1, Flan-T5 and later (GELU), those without of the first T5 (ReLU).
    """
    from gguf import GGUFReader

    tensors = {tensor.name for tensor in GGUFReader(path).tensors}
    derived = ("dense_act_fn", "is_gated_act", "scale_decoder_outputs")
    known = {key: value for key, value in config.to_dict().items() if key not in derived}
    known["feed_forward_proj"] = "gated-gelu" if "enc.blk.0.ffn_gate.weight" in tensors else "relu"
    known["tie_word_embeddings"] = "output.weight" not in tensors
    return type(config).from_dict(known)
