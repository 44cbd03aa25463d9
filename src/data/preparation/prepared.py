"""Finished jsonl files as a source: the published data set on the hub, or any folder that holds them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from metashot.base.errors import DataError
from metashot.base.files import FileRecord, copy_file, record_of
from metashot.data.preparation.task_files import Choice, Role
from metashot.data.rows.jsonl import file_name, read_records
from metashot.data.rows.manifest import RoleRecord
from metashot.data.rows.record_checks import check_gold


class PreparedFiles:
    """Looks files up by name, wherever in the folder or data set they lie.

    Args:
        source: a folder, or a dataset id with its namespace.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self._folder = Path(source).expanduser() if Path(source).expanduser().is_dir() else None
        self.revision = ""
        self._names = self._list()

    @staticmethod
    def fingerprint(source: str, task: str, role: str, choice: Choice) -> str:
        """Digest of where the files come from and which ones are asked for."""
        payload = json.dumps(["prepared", source, task, role, choice.k, list(choice.seeds)])
        return hashlib.sha256(payload.encode("utf-8")).hexdigest()

    def find(self, name: str) -> Path | None:
        """Local path of the file with this name; None if the source lacks it."""
        inner = self._names.get(name)
        if inner is None:
            return None
        if self._folder is not None:
            return self._folder / inner
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(self.source, inner, repo_type="dataset", revision=self.revision or None))

    def _list(self) -> dict[str, str]:
        if self._folder is not None:
            found = sorted(self._folder.rglob("*.jsonl"))
            return {path.name: str(path.relative_to(self._folder)) for path in found}
        try:
            from huggingface_hub import HfApi

            info = HfApi().dataset_info(self.source)
        except ImportError as error:
            raise DataError(
                "prepare.prepared", "the hub needs huggingface-hub", 'pip install "metashot[hub]"'
            ) from error
        except Exception as error:  # network, offline and repository errors have no common base
            reason = str(error).strip().split("\n")[0]
            raise DataError(
                "prepare.prepared", f'"{self.source}" is no folder and cannot be had: {reason}', "give a folder of jsonl files"
            ) from error  # fmt: skip
        self.revision = info.sha or ""
        names = [sibling.rfilename for sibling in info.siblings or []]
        return {Path(name).name: name for name in names if name.endswith(".jsonl")}


def take_prepared(source: str, task: str, role: Role, choice: Choice, root: Path) -> RoleRecord:
    """Copy a task's files out of a prepared source, each one read once to see that it is whole.

    Raises:
        DataError: a file is missing or broken.
    """
    files = PreparedFiles(source)
    made: dict[str, FileRecord] = {}
    for name, is_needed in _wanted(task, role, choice):
        found = files.find(name)
        if found is None:
            if is_needed:
                raise DataError(
                    f"{source}: {name}", "not in the prepared source", "choose k and seeds that it has"
                )
            continue
        if found.stat().st_size:
            records = read_records(found, task)
            if role == "test":
                check_gold(records)
        copy_file(found, root / task / name)
        made[name] = record_of(root / task / name)
    origin = {"prepared": source} | ({"revision": files.revision} if files.revision else {})
    return RoleRecord(
        fingerprint=PreparedFiles.fingerprint(source, task, role, choice),
        fixes=False,
        source=origin,
        k=choice.k,
        seeds=choice.seeds,
        entries={},
        dropped={},
        files=made,
    )


def _wanted(task: str, role: Role, choice: Choice) -> Iterator[tuple[str, bool]]:
    for seed in choice.seeds:
        yield file_name(task, choice.k, seed, "train"), True
        if role == "test":
            yield file_name(task, choice.k, seed, "dev"), False
            yield file_name(task, choice.k, seed, "test"), True
