"""Amounts as people read them."""

from __future__ import annotations


def count(number: float) -> str:
    """``1234567`` as ``1.23 M``."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number:g}"


def size(number: float) -> str:
    """Bytes with a decimal prefix."""
    return f"{count(number)}B" if number >= 1000 else f"{number:g} B"


def several(number: int, noun: str) -> str:
    """``1 thread``, ``2 threads``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def milliseconds(number: float) -> str:
    """Three digits that count."""
    return f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"
