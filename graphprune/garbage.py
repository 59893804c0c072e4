"""No collection of garbage cycles while a lot is built that stays."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collection() -> Iterator[None]:
    """Inside this block the collector of reference cycles rests.

    A graph is many thousands of objects that all live on.  Each time some more have been made the collector
    goes through all of them again, in vain.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
