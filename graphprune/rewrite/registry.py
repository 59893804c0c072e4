"""The registry of repairs: how a node's attributes and shape inputs follow its new axes.

A repair is called for a node some of whose axes shrink.  An operator whose attributes and inputs name no
sizes or positions needs none.
"""

from __future__ import annotations

from collections.abc import Callable

from graphprune.registry import Registry
from graphprune.rewrite.context import RepairContext

Repair = Callable[[RepairContext], None]

REPAIRS: Registry[Repair] = Registry("repair")
repair = REPAIRS.register
