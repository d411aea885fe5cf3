"""Signals that end a command: the first one ends it in order, a second one at once.

A signal that was ignored when the process began, such as SIGHUP under `nohup`, stays ignored.
Handlers belong to the main thread of a process; in other threads nothing here has an effect.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
"""The signals that end a command."""

SAME_S = 0.3
"""A signal that follows the first one within this time is the same one, sent twice.

`timeout` signals the process and its group, and so do shells whose terminal is closed.
"""

PR_SET_CHILD_SUBREAPER = 36
"""From linux/prctl.h."""

ACKNOWLEDGED = (
    b"generalist-search: %s: ending in order, what is finished is kept; "
    b"a second signal ends it at once.\n"
)

SHOW_CURSOR = b"\x1b[?25h"
"""A live view hides the cursor of a terminal."""


class Interrupted(KeyboardInterrupt):
    """The first signal has come."""


def raise_interrupted() -> NoReturn:
    """Raise `Interrupted`: the answer to the first signal where no other is given."""
    raise Interrupted


def raise_keyboard_interrupt() -> NoReturn:
    """Raise `KeyboardInterrupt`: the answer to a second signal where Python code is the caller."""
    raise KeyboardInterrupt


def do_nothing() -> None:
    """Leave the first signal to the next `on_interruption`."""


class _Interruption:
    """The first signal, once it has come, and what answers it and a second one."""

    def __init__(self, at_once: Callable[[], object], answer: Callable[[], object]) -> None:
        self.came_at: float | None = None
        self.answer = answer
        self.at_once = at_once
        self.unsaid = threading.Lock()
        self.stderr = _duplicate(2)  # `sys.stderr` may be in use, or redirected

    def handle(self, number: int, _: Any) -> None:
        """Take a signal."""
        now = time.monotonic()
        if self.came_at is None:
            self.came_at = now
            self.acknowledge(number)
            self.answer()
        elif now - self.came_at > SAME_S:
            self.at_once()

    def acknowledge(self, number: int) -> None:
        """Say once that a signal has come."""
        if self.stderr is not None and self.unsaid.acquire(blocking=False):
            with contextlib.suppress(OSError):  # a terminal that is closed, or a full disk
                os.write(self.stderr, ACKNOWLEDGED % signal.Signals(number).name.encode())

    @contextlib.contextmanager
    def watching(self, numbers: Sequence[int]) -> Iterator[None]:
        """Acknowledge these signals in a thread, also while the main thread runs C code."""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        watcher = threading.Thread(target=self._watch, args=(reading, numbers), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            os.close(writing)
            watcher.join()
            if self.stderr is not None:
                os.close(self.stderr)

    def _watch(self, reading: int, numbers: Sequence[int]) -> None:
        with open(reading, "rb", buffering=0) as signals:
            while came := signals.read(1):
                if came[0] in numbers:
                    self.acknowledge(came[0])


_current: _Interruption | None = None


@contextlib.contextmanager
def interruptible(
    at_once: Callable[[], object] = raise_keyboard_interrupt,
    answer: Callable[[], object] = raise_interrupted,
) -> Iterator[None]:
    """Acknowledge and answer signals in the block; afterwards their handlers are as before.

    The first signal calls `answer`, or what `on_interruption` says, and a second one calls
    `at_once`. Within another such block it does nothing.
    """
    global _current  # noqa: PLW0603 - a process has one set of handlers
    if _current is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    _current = _Interruption(at_once, answer)
    numbers = [signal.Signals[name] for name in SIGNALS if name in signal.Signals.__members__]
    heeded = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, _current.handle) for number in heeded}
    try:
        with _current.watching(heeded):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _current = None


@contextlib.contextmanager
def on_interruption(answer: Callable[[], object]) -> Iterator[None]:
    """Let the first signal call `answer` in the block; at its beginning, if it has come before."""
    current = _current
    if current is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before, current.answer = current.answer, answer
    try:
        if current.came_at is not None:
            answer()
        yield
    finally:
        current.answer = before


def was_interrupted() -> bool:
    """Whether the first signal has come."""
    return _current is not None and _current.came_at is not None


def set_handlers_again() -> None:
    """Set the handlers of signals as Python knows them, after a library's C code removed them."""
    if threading.current_thread() is threading.main_thread():
        for name in SIGNALS:
            signal.signal(signal.Signals[name], signal.getsignal(signal.Signals[name]))


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends, where Linux offers it.

    They then remain among `descendants`; otherwise Ray's workers would outlive a raylet unseen.
    """
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_at_once() -> NoReturn:
    """End this process and all that it started, now, with exit code 1."""
    kill(descendants())
    if sys.stderr.isatty():
        os.write(2, SHOW_CURSOR)
    os._exit(1)


def kill(processes: set[int]) -> None:
    """Send SIGKILL to processes that are still there."""
    for pid in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def descendants() -> set[int]:
    """The processes that this one started, and theirs; none where there is no /proc."""
    children: dict[int, list[int]] = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(place.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(place.parent.name))
    found, new = set[int](), [os.getpid()]
    while new:
        born = children.get(new.pop(), [])
        found.update(born)
        new += born
    return found


def _duplicate(descriptor: int) -> int | None:
    try:
        return os.dup(descriptor)
    except OSError:
        return None
