"""Writing the cut: parameters are sliced, attributes and shape inputs follow."""

from graphprune.rewrite import repairs as repairs
from graphprune.rewrite.cut import cut as cut
from graphprune.rewrite.registry import REPAIRS as REPAIRS
