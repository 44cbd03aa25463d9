"""Rendering of a chat template, which is a program that comes with a model: with limits of time, memory and size."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from jinja2 import TemplateError

from metashot.engine.models.text_tokenizer import AnyTokenizer, TextTokenizer

_CPU_SECONDS = 3
_WALL_SECONDS = 60
_MEMORY_BYTES = 512 << 20
"""What rendering may take beside what the process has; published templates need a few MB and milliseconds."""
_TEXT_BYTES = 16 << 20

_one_at_a_time = threading.Lock()
"""Jinja's own lock must not be held by another thread of ours when the process forks."""


Conversation = tuple[Sequence[Mapping[str, Any]], Mapping[str, Any]]
"""Messages with `role` and `content`; options of transformers' `apply_chat_template` and variables for the template."""


def render_chats(tokenizer: AnyTokenizer, conversations: Sequence[Conversation]) -> list[str]:
    """The texts of conversations by the tokenizer's chat template, rendered in a child process that may be ended.

    Jinja's sandbox keeps a template from files and from Python, but not from loops without end or texts that fill
    the memory.

    Args:
        tokenizer: holds the template.
        conversations: what to render.

    Raises:
        ValueError: the template refuses a conversation, fails, or takes more than 3 CPU seconds, 512 MiB or 16 MiB
            of text; the words say which.
    """
    whole: Any = tokenizer.whole if isinstance(tokenizer, TextTokenizer) else tokenizer

    def render() -> list[str]:
        return [
            str(whole.apply_chat_template(list(messages), tokenize=False, **options))
            for messages, options in conversations
        ]

    with _one_at_a_time:
        said = _in_child(render)
    if "texts" not in said:
        raise ValueError(said["error"])
    return said["texts"]


def _in_child(render: Callable[[], list[str]]) -> dict[str, Any]:
    """`texts`, or `error` in words."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _answer(render, writer)
    os.close(writer)
    try:
        answer = _read(reader)
    finally:
        os.close(reader)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if answer is None or os.waitstatus_to_exitcode(status) == -signal.SIGXCPU:
        return {"error": f"it takes more than {_CPU_SECONDS} seconds"}
    try:
        return json.loads(answer)
    except ValueError:
        return {"error": f"it takes more than {_MEMORY_BYTES >> 20} MiB"}


def _answer(render: Callable[[], list[str]], writer: int) -> None:
    """In the child: write what there is to say, and end without a word of Python's or any library's ending."""
    try:
        try:
            _limit()
            texts = render()
            length = sum(map(len, texts))
            said = (
                {"texts": texts} if length <= _TEXT_BYTES else {"error": f"it writes {length:,} characters"}
            )
        except (MemoryError, OverflowError):
            said = {"error": f"it takes more than {_MEMORY_BYTES >> 20} MiB"}
        except TemplateError as error:  # what the template itself says, of a role for example
            said = {"error": str(error)[:500]} if type(error) is TemplateError else _named(error)
        except BaseException as error:
            said = _named(error)
        left = memoryview(json.dumps(said).encode())
        while left:
            left = left[os.write(writer, left) :]
    finally:
        os._exit(0)


def _named(error: BaseException) -> dict[str, str]:
    return {"error": f"{type(error).__name__}: {str(error)[:500]}"}


def _limit() -> None:
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS + 1))
    with suppress(OSError, ValueError):  # without /proc, or above a limit that is set already: time remains
        with open("/proc/self/statm", encoding="ascii") as stream:
            taken = int(stream.read().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (taken + _MEMORY_BYTES, hard))


def _read(reader: int) -> bytes | None:
    """All that the child writes; None where it takes too long."""
    end, parts = time.monotonic() + _WALL_SECONDS, list[bytes]()
    while (left := end - time.monotonic()) > 0 and select.select([reader], [], [], left)[0]:
        part = os.read(reader, 1 << 20)
        if not part:
            return b"".join(parts)
        parts.append(part)
    return None
