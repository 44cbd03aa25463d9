"""Which GGUF file is meant: one on disk, one inside a PyPI package, or one that packages hold in parts."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from metashot.base.errors import ModelError
from metashot.base.files import sha256_once
from metashot.base.json_text import digest_of
from metashot.engine.models.digests import check_packaged

_GGUF = re.compile(r"(?P<stem>.+)\.gguf(\.part(?P<part>\d+))?$")
_REQUIREMENT = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A GGUF file.

    Attributes:
        stem: its name without suffix.
        parts: the file, or the files whose contents joined are it, in order.
    """

    stem: str
    parts: tuple[Path, ...]

    def digest(self) -> str:
        """sha256 of a single file; of the parts' digests where there are several."""
        digests = [sha256_once(part) for part in self.parts]
        return digests[0] if len(digests) == 1 else digest_of(digests)

    def joined_in(self, folder: Path) -> Path:
        """The file itself, or its parts joined in `folder`."""
        if len(self.parts) == 1:
            return self.parts[0]
        whole = folder / f"{self.stem}.gguf"
        with whole.open("wb") as target:
            for part in self.parts:
                with part.open("rb") as content:
                    shutil.copyfileobj(content, target)
        return whole


def gguf_on_disk(path: Path) -> GgufFile:
    """The file at `path`."""
    return GgufFile(path.stem, (path,))


def packaged_gguf(package: str, model: str, install: str) -> GgufFile:
    """The file inside an installed package and the packages that it requires; none of them is imported.

    Args:
        package: its name on PyPI.
        model: the config's model, for errors.
        install: the command that installs it.

    Raises:
        ModelError: a package is missing, or they hold no GGUF file.
    """
    found: dict[int, Path] = {}
    stem = ""
    for one in _with_requirements(package, model, install):
        for file in one.files or ():
            match = _GGUF.fullmatch(file.name)
            if match is not None:
                stem = match["stem"]
                found[int(match["part"] or 0)] = check_packaged(file)
    if not found or sorted(found) != list(range(len(found))):
        raise ModelError(f"model={model}", f"{package!r} holds no whole .gguf file", "reinstall the package")
    return GgufFile(stem, tuple(found[part] for part in sorted(found)))


def _with_requirements(package: str, model: str, install: str) -> list[Distribution]:
    """The package, and those of its requirements that are parts of it."""
    try:
        whole = distribution(package)
        names = [_REQUIREMENT.match(line) for line in whole.requires or ()]
        parts = [match[0] for match in names if match is not None and match[0].startswith(f"{package}-part")]
        return [whole, *map(distribution, parts)]
    except PackageNotFoundError as error:
        raise ModelError(f"model={model}", f"the package {error.name!r} is not installed", install) from None
