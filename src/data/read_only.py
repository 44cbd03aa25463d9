"""Folders that may be read but not written: what is finished in them serves as it is."""

from __future__ import annotations

import errno

_REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS)


def is_read_only(error: OSError) -> bool:
    """Whether the system has refused to write here at all, rather than failed to."""
    return error.errno in _REFUSALS
