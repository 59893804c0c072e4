"""Printing: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType

from graphprune.errors import GraphPruneError

_log = Console(stderr=True, highlight=False)


def show(*parts: RenderableType) -> None:
    """Tables and text for people, on stdout."""
    # Wide enough for names when the output is no terminal; a table is never cut off then.
    # No markup: names of tensors may hold square brackets.
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160)
    with console.capture() as captured:
        for part in parts:
            console.print(part, soft_wrap=isinstance(part, str))
    _write(captured.get())


def show_json(document: dict[str, Any]) -> None:
    """One JSON document on stdout; JSON has no infinities and no NaN, so these are null."""
    _write(json.dumps(_finite(document), indent=1, allow_nan=False) + "\n")


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader went away (`graphprune inspect … | head`): nothing left to say, or to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None


def _finite(item: Any) -> Any:
    if isinstance(item, dict):
        return {key: _finite(value) for key, value in item.items()}
    if isinstance(item, (list, tuple)):
        return [_finite(value) for value in item]
    return None if isinstance(item, float) and not math.isfinite(item) else item


def log(text: str) -> None:
    """A line on stderr."""
    _log.print(text, markup=False, soft_wrap=True)


def console_for_logs() -> Console:
    """Where progress is drawn: stderr."""
    return _log


def fail(error: GraphPruneError) -> int:
    """Prints an error, returns its exit code."""
    sys.stderr.write(f"graphprune: {error}\n")
    return error.exit_code


@contextmanager
def working(text: str) -> Iterator[None]:
    """A spinner while something runs, on a terminal only."""
    if _log.is_terminal:
        with _log.status(text):
            yield
    else:
        yield
