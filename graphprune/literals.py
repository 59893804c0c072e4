"""Python's syntax in texts of a model: sizes such as ``past + 1``, lists of module names.  Nothing is run."""

from __future__ import annotations

import ast
from typing import Any

#: What Python's parser raises over a text; one that is nested deeply may even end the process.
SYNTAX_ERRORS = (SyntaxError, ValueError, TypeError, RecursionError, MemoryError)
#: The longest formula that is looked at, in characters.
LONGEST_FORMULA = 500
_LONGEST_LITERAL = 10_000


def literal(text: str) -> Any:
    """The list, text or number that ``text`` spells in Python; None if it is none of these."""
    if len(text) > _LONGEST_LITERAL or text.count("[") > 1:
        return None
    try:
        return ast.literal_eval(text)
    except SYNTAX_ERRORS:
        return None


def formula(text: str) -> ast.expr | None:
    """The syntax tree of an expression; None if it is none."""
    if len(text) > LONGEST_FORMULA:
        return None
    try:
        return ast.parse(text.strip(), mode="eval").body
    except SYNTAX_ERRORS:
        return None
