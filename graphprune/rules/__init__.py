"""Coupling rules: how each operator's output axes are made from its input axes."""

from graphprune.rules import contraction as contraction
from graphprune.rules import elementwise as elementwise
from graphprune.rules import movement as movement
from graphprune.rules import norm as norm
from graphprune.rules import reduce as reduce
from graphprune.rules import shape as shape
from graphprune.rules.registry import RULES as RULES
