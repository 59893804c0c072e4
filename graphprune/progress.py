"""How far a long stage is: told to whoever asked, step by step, and once more at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias, TypeVar

#: ``progress(stage, done, total)``.
Progress: TypeAlias = Callable[[str, int, int], None]
Item = TypeVar("Item")


def silent(stage: str, done: int, total: int) -> None:
    """Nobody looks on."""


def counted(progress: Progress, stage: str, items: Sequence[Item]) -> Iterator[Item]:
    """The items; before each it is told how many are done, and behind the last that all are."""
    for i, item in enumerate(items):
        progress(stage, i, len(items))
        yield item
    if items:
        progress(stage, len(items), len(items))
