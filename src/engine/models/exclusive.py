"""One thread at a time in a model: scoring puts its own attention, norms and hooks into the modules for a while."""

from __future__ import annotations

from threading import Lock, RLock
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import nn

_locks: WeakKeyDictionary[nn.Module, AbstractContextManager[bool]] = WeakKeyDictionary()
_making = Lock()


def exclusive(model: nn.Module) -> AbstractContextManager[bool]:
    """The lock of a model, to be held with `with`; a thread that holds it may take it again."""
    with _making:
        return _locks.setdefault(model, RLock())
