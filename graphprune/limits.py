"""Limits that a user sets on what is read, for files from people who are not trusted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from graphprune.errors import ModelError

_MAX_BYTES: ContextVar[int | None] = ContextVar("max_bytes", default=None)


@contextmanager
def max_bytes(limit: int | None) -> Iterator[None]:
    """Within it, a model, an archive of samples or a document of more than ``limit`` bytes is refused.

    Counted is what reading it would take: of a model its file and all tensors that it declares (several may
    lie in the same bytes), of an archive the arrays unpacked.

    Args:
        limit: bytes; None: no limit.
    """
    token = _MAX_BYTES.set(limit)
    try:
        yield
    finally:
        _MAX_BYTES.reset(token)


def require_size(size: int, what: str) -> None:
    """Refuses what is too large.

    Args:
        size: bytes.
        what: it is, for the message: ``model file 'a.onnx'``.

    Raises:
        ModelError: it has more bytes than allowed.
    """
    limit = _MAX_BYTES.get()
    if limit is not None and size > limit:
        message = f"{what} is too large"
        because = f"it takes {size} bytes, and --max-bytes allows {limit}"
        raise ModelError(message, because=because, hint="a higher limit, if you trust the file")
