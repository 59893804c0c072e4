"""SIGTERM ends a command as Ctrl-C does: temporary files go, and nothing is half written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPED = 143  # 128 + SIGTERM, as shells have it


class Stopped(BaseException):
    """Somebody asked this process to end; as with KeyboardInterrupt, nothing on the way may catch it."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Inside this block SIGTERM raises :class:`Stopped`."""
    if threading.current_thread() is not threading.main_thread():
        yield  # others can't have handlers of signals
        return
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped
