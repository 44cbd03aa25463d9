"""Checkpoints: a folder that is whole or not there, checked by hash, without pickle.

Layout of `<root>/step-00000040/`:

* `model.safetensors`: the trained weights under their model's names (with LoRA `adapter_model.safetensors`);
* `state.safetensors` + `state.json`: everything else a resumed run needs (`engine.state_tree`);
* whatever the learner's `export` adds (for a language model `config.json` and the tokenizer, so that the
  folder also loads as a model);
* `manifest.json`, written last: format, step, identity of the run, method, metric, sha256 and size of each
  file.

The folder is filled under a hidden name, every file is fsynced, and one rename makes it appear.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from metashot.base.errors import CheckpointError, OutputError
from metashot.base.files import GONE, HeldFolder, fsync_file, fsync_folder, hold, output_errors, sha256_file
from metashot.base.json_text import digest_of, parse_json, read_json
from metashot.engine.models.adapters import ADAPTER_WEIGHTS, is_adapter
from metashot.engine.training.state_tree import join_tree, split_tree
from metashot.engine.training.weight_output import share_as_folder, weight_output_errors

if TYPE_CHECKING:
    import torch

    from metashot.engine.training.sharded import Gather

MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"
STATE_TENSORS = "state.safetensors"
STATE_VALUES = "state.json"
_FORMAT = 1
_PREFIX = "step-"
_STAGING_SUFFIX = ".tmp"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint read back from disk, after its hashes matched.

    Attributes:
        folder: where it lies.
        manifest: the parsed `manifest.json`.
        weights: tensors of `model.safetensors`, on the CPU.
        state: the tree given to `CheckpointStore.save`.
    """

    folder: Path
    manifest: dict[str, Any]
    weights: dict[str, torch.Tensor]
    state: Any

    @property
    def step(self) -> int:
        """Number of optimizer steps that were done."""
        return int(self.manifest["step"])


@dataclass(frozen=True, slots=True)
class CheckpointStore:
    """The checkpoints of one run.

    Attributes:
        root: the folder that holds them.
        identity: what must be equal to continue a run (config keys, model digest); dotted keys.
        method: what the weights are trained for; evaluation reads it (`icl.training_stage.trained_method`).
        keep_last: how many of the newest to keep, at least 1.
        keep_best: how many more to keep by metric.
        higher_is_better: direction of the metric.
    """

    root: Path
    identity: dict[str, Any] = field(default_factory=dict)
    method: dict[str, Any] = field(default_factory=dict)
    keep_last: int = 2
    keep_best: int = 1
    higher_is_better: bool = True

    def save(
        self,
        step: int,
        weights: dict[str, torch.Tensor],
        state: Any,
        *,
        metric: float | None = None,
        export: Callable[[Path], None] | None = None,
        gather: Gather | None = None,
    ) -> Path:
        """Write the checkpoint of `step`, then remove those that `keep_last` and `keep_best` give up.

        CPU tensors are written from where they lie, without a second copy in memory. Sharded ones are asked of
        `gather` (by default of all ranks) in the order of `stored_tensors`, one at a time.

        Raises:
            OutputError: full disk or unwritable folder, all earlier checkpoints are untouched; or the folder was removed
                while it was written.
        """
        target = self.root / f"{_PREFIX}{step:08d}"
        with output_errors(target):
            self.root.mkdir(parents=True, exist_ok=True)
        self.remove_leftovers()
        staging = self.root / f".{target.name}.{os.getpid()}{_STAGING_SUFFIX}"
        try:
            with weight_output_errors(target):
                staging.mkdir()
                held = HeldFolder(staging)
                if export is not None:
                    export(staging)
                _write_parts(staging, target, weights, state, gather)
                share_as_folder(staging)
                self._write_manifest(staging, step, metric)
                if held.is_gone:
                    raise OutputError(str(target), GONE, "run the same command again")
                self._publish(staging, target)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        self.prune(least=2)  # whether the newest is sound shows only when its loss is seen
        return target

    def _write_manifest(self, staging: Path, step: int, metric: float | None) -> None:
        files: dict[str, dict[str, Any]] = {}
        for path in sorted(path for path in staging.rglob("*") if path.is_file()):
            fsync_file(path)
            files[path.relative_to(staging).as_posix()] = {
                "sha256": sha256_file(path),
                "bytes": path.stat().st_size,
            }
        manifest = {
            "format": _FORMAT,
            "step": step,
            "metric": metric,
            "method": self.method,
            "identity": self.identity,
            "files": files,
        }
        path = staging / MANIFEST
        path.write_text(_manifest_text(manifest), encoding="utf-8")
        fsync_file(path)
        fsync_folder(staging)

    def _publish(self, staging: Path, target: Path) -> None:
        if target.exists():
            # Only a damaged checkpoint is ever written again: resuming would have started from a whole one.
            os.replace(target, self.root / f".{target.name}.{os.getpid()}.old{_STAGING_SUFFIX}")
        os.replace(staging, target)
        fsync_folder(self.root)

    @contextmanager
    def alone(self) -> Generator[HeldFolder]:
        """Held by the one process that writes here: a second one would remove what the first is writing.

        Yields:
            the folder, which must stay where it is.

        Raises:
            OutputError: another process trains in this folder, or it cannot be written.
        """
        held = hold(self.root)
        with output_errors(self.root):
            lock = FileLock(self.root / ".lock", timeout=0)
            try:
                lock.acquire()
            except Timeout:
                raise OutputError(
                    str(self.root),
                    "another process trains in this folder",
                    "wait for it, stop it, or choose another hydra.run.dir",
                ) from None
        try:
            yield held
        finally:
            lock.release()

    def prune(self, least: int = 1) -> None:
        """Remove the checkpoints that neither `keep_last` (but `least` of the newest stay) nor `keep_best` keeps."""
        folders = checkpoint_folders(self.root)
        keep = set(folders[-max(least, self.keep_last) :])
        sign = -1.0 if self.higher_is_better else 1.0
        scored = [(sign * metric, folder) for folder in folders if (metric := _metric(folder)) is not None]
        keep.update(folder for _, folder in sorted(scored)[: self.keep_best])
        for folder in folders:
            if folder not in keep:
                self._hide(folder)
        self.remove_leftovers()

    def rewind(self, step: int) -> None:
        """Remove the checkpoints after `step`, as long as one is left: a training goes on from before them."""
        for folder in checkpoint_folders(self.root)[1:]:
            if int(folder.name.removeprefix(_PREFIX)) > step:
                self._hide(folder)
        self.remove_leftovers()

    def _hide(self, folder: Path) -> None:
        os.replace(folder, self.root / f".{folder.name}.{os.getpid()}.old{_STAGING_SUFFIX}")

    def remove_leftovers(self) -> None:
        """Remove what a kill left behind: half-written or half-removed folders under hidden names."""
        for path in self.root.glob(f".{_PREFIX}*{_STAGING_SUFFIX}"):
            shutil.rmtree(path, ignore_errors=True)

    def latest(self) -> Checkpoint | None:
        """The newest whole checkpoint of this run; a damaged one is passed over with one line said.

        Raises:
            CheckpointError: the newest whole one belongs to another model or config (the keys are named), or
                checkpoints exist and none is whole.
        """
        folders = checkpoint_folders(self.root)
        for folder in reversed(folders):
            try:
                manifest = verify(folder)
            except CheckpointError as error:
                _log.warning("%s: %s; using the one before", error.where, error.problem)
                continue
            self.check_identity(folder, manifest)
            return _read(folder, manifest)
        if folders:
            raise CheckpointError(
                str(self.root),
                f"all {len(folders)} checkpoints are damaged",
                "start anew in another output folder, or restore one of them",
            )
        return None

    def check_identity(self, folder: Path, manifest: dict[str, Any]) -> None:
        """Raise CheckpointError when the checkpoint belongs to another run, naming the keys that differ."""
        stored: dict[str, Any] = manifest["identity"]
        keys = sorted(stored.keys() | self.identity.keys())
        wanted = json.loads(json.dumps(self.identity))
        differing = [key for key in keys if stored.get(key) != wanted.get(key)]
        if not differing:
            return
        told = ", ".join(
            f"{key} is {_said(stored, key)} there, {_said(wanted, key)} here" for key in differing
        )
        shared = stored.keys() & self.identity.keys()
        remedy = "set the keys back, or start in another output folder"
        if not shared.issuperset(differing):
            remedy = "another version began it: start in another output folder; it evaluates as before"
        raise CheckpointError(str(folder), f"cannot be continued by this run: {told}", remedy)


def _said(identity: dict[str, Any], key: str) -> str:
    return repr(identity[key]) if key in identity else "not recorded"


def checkpoint_folders(root: Path) -> list[Path]:
    """Folders of all checkpoints below `root`, oldest step first, whether whole or not."""
    return sorted(path for path in root.glob(f"{_PREFIX}*") if path.is_dir())


def best_checkpoint(root: Path, *, higher_is_better: bool = True) -> Path | None:
    """The whole checkpoint with the best metric (the earliest of equals), or the newest if none has one.

    A damaged one is passed over with one line said.
    """
    whole: list[Path] = []
    for folder in checkpoint_folders(root):
        try:
            verify(folder)
            whole.append(folder)
        except CheckpointError as error:
            _log.warning("%s: %s; the best of the others is taken", error.where, error.problem)
    sign = 1.0 if higher_is_better else -1.0
    scored = [(sign * metric, folder) for folder in whole if (metric := _metric(folder)) is not None]
    if not scored:
        return whole[-1] if whole else None
    best = max(score for score, _ in scored)
    return next(folder for score, folder in scored if score == best)


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint whose files all have the size and sha256 that it states.

    Raises:
        CheckpointError: a file is missing or differs, or the manifest itself cannot be read.
    """
    remedy = "use an earlier checkpoint"
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
        manifest = parse_json(text)
        files = dict(manifest["files"])
        intact = text == _manifest_text({key: value for key, value in manifest.items() if key != "digest"})
        complete = manifest["format"] == _FORMAT and {"step", "identity", "method"} <= manifest.keys()
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"has no readable {MANIFEST} ({type(error).__name__})"
        raise CheckpointError(str(folder), problem, remedy) from error
    if not intact:
        raise CheckpointError(str(folder), f"{MANIFEST} is damaged (its digest differs)", remedy)
    if not complete:
        raise CheckpointError(
            str(folder), f"{MANIFEST} has an unknown format", "use the version that wrote it"
        )
    for name, entry in files.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(str(folder), f"{name} is missing", remedy)
        if path.stat().st_size != entry["bytes"] or sha256_file(path) != entry["sha256"]:
            raise CheckpointError(str(folder), f"{name} is damaged (its hash differs)", remedy)
    return manifest


def _manifest_text(manifest: dict[str, Any]) -> str:
    """The manifest as written: with a digest of itself, so that a flipped byte in it is seen too."""
    return json.dumps({**manifest, "digest": digest_of(manifest)}, indent=2, ensure_ascii=False) + "\n"


def read_checkpoint(folder: Path) -> Checkpoint:
    """Verify and read one checkpoint folder.

    Raises:
        CheckpointError: it is damaged.
    """
    return _read(folder, verify(folder))


def _read(folder: Path, manifest: dict[str, Any]) -> Checkpoint:
    values = read_json(folder / STATE_VALUES)
    # Optimizers keep and change what they are given, so their tensors must not be a view of the file.
    from safetensors.torch import load_file

    tensors = {name: tensor.clone() for name, tensor in load_file(folder / STATE_TENSORS).items()}
    return Checkpoint(folder, manifest, load_file(folder / _weights_file(folder)), join_tree(tensors, values))


def _weights_file(folder: Path) -> str:
    """The weights' name: PEFT's where its config stands beside them."""
    return ADAPTER_WEIGHTS if is_adapter(folder) else WEIGHTS


def stored_tensors(weights: dict[str, torch.Tensor], state: Any) -> list[torch.Tensor]:
    """All tensors of a checkpoint, in the order in which they are written."""
    return [*distinct_tensors(weights).values(), *split_tree(state)[0].values()]


def _write_parts(
    staging: Path, target: Path, weights: dict[str, torch.Tensor], state: Any, gather: Gather | None
) -> None:
    """Write into `staging`; errors name the file as it would stand in `target`."""
    from safetensors.torch import save_file

    from metashot.engine.training.sharded import sharded_among, whole, write_safetensors

    tensors, values = split_tree(state)
    metadata = {"format": "pt"}  # transformers loads a .safetensors file only when it names its framework
    for name, part in ((_weights_file(staging), distinct_tensors(weights)), (STATE_TENSORS, tensors)):
        with weight_output_errors(target / name):
            if sharded_among(part.values()):
                write_safetensors(part, staging / name, metadata, gather or whole)
            else:
                save_file(part, staging / name, metadata=metadata)
    with weight_output_errors(target / STATE_VALUES):
        (staging / STATE_VALUES).write_text(json.dumps(values) + "\n", encoding="utf-8")


def distinct_tensors(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights with every tied tensor kept once, under the first of its names."""
    from metashot.engine.training.sharded import memory_of

    seen: set[tuple[int, torch.Size]] = set()
    distinct: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        key = (memory_of(tensor), tensor.shape)
        if key not in seen or tensor.numel() == 0:
            seen.add(key)
            distinct[name] = tensor.detach().contiguous()
    return distinct


def _metric(folder: Path) -> float | None:
    try:
        return read_json(folder / MANIFEST)["metric"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
