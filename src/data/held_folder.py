"""A folder that must stay the one it was when a run began to write into it."""

from __future__ import annotations

import os
import weakref
from pathlib import Path

GONE = "the folder was removed while the run wrote to it"


class HeldFolder:
    """Notices that a folder was removed meanwhile, also when something has made it again under the same name.

    Files are written whole into a folder that is made if missing, so without this a run whose folder was removed
    half way would end well with the second half.

    Args:
        path: made if it is not there.

    Raises:
        OSError: it cannot be made or opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        # While it is open, the system gives its number to no other folder.
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        weakref.finalize(self, os.close, self._descriptor)

    @property
    def is_gone(self) -> bool:
        """Whether it was removed or replaced."""
        try:
            return not os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        except OSError:
            return True
