"""The command that is being carried out, as it can be typed again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

_given: list[str] = []


def remember(arguments: Sequence[str]) -> None:
    """Called once, before the arguments are read."""
    _given[:] = arguments


def command_line() -> str:
    """Quoted for a shell."""
    return shlex.join(["graphprune", *_given])
