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

from graphprune.algebra import Axis
from graphprune.registry import Registry
from graphprune.rules.context import Context

Rule = Callable[[Context], Sequence[Sequence[Axis]]]

RULES: Registry[Rule] = Registry("coupling rule")
rule = RULES.register
