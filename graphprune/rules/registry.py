"""The registry of coupling rules.

A rule is a function ``rule(ctx) -> list[list[Axis]]``: it reads one node and the axes of its inputs, states
which axes are equal (``ctx.equate``), and returns the axes of each output.  It may read shapes, attributes
and constant inputs; it may not read neighbours or write anything else.  An operator with no rule blocks
whatever touches it.

How to add an operator: one function here in its family's file, one repair in :mod:`graphprune.rewrite` if an
attribute or a shape input has to follow the cut, one row in ``tests/rules`` that proves the law.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from graphprune.algebra import Axis
from graphprune.registry import DEFAULT_DOMAIN, Registry
from graphprune.rules.context import Context

#: None: the shape of that output is not known.
Rule = Callable[[Context], Sequence[Sequence[Axis] | None]]

RULES: Registry[Rule] = Registry("coupling rule")
R = TypeVar("R", bound=Rule)


def rule(*op_types: str, since: int = 1, domain: str = DEFAULT_DOMAIN) -> Callable[[R], R]:
    """Decorator that enters a rule for one or several operators; the function keeps its own type.

    Args:
        *op_types: operator names.
        since: first opset version for which the rule is right.
        domain: operator domain.
    """
    enter = RULES.register(*op_types, since=since, domain=domain)

    def keep(function: R) -> R:
        enter(function)
        return function

    return keep
