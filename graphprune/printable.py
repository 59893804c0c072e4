"""Texts from files, made harmless for a terminal: what it would obey instead of showing is spelled out."""

from __future__ import annotations

import unicodedata

#: Control characters, invisible ones that turn the line around, halves of characters, line separators.
_SPELLED_OUT = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def printable(text: str, keep: str = "\n") -> str:
    """``text`` with the escapes of such characters in their place, but for those of ``keep``."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep or c.isprintable() or not _is_odd(c) else _spelled(c) for c in text)


def _is_odd(character: str) -> bool:
    return unicodedata.category(character) in _SPELLED_OUT


def _spelled(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
