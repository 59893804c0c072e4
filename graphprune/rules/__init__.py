"""Coupling rules: how each operator's output axes are made from its input axes."""

from graphprune.rules import attention as attention
from graphprune.rules import contraction as contraction
from graphprune.rules import contrib_attention as contrib_attention
from graphprune.rules import contrib_elementwise as contrib_elementwise
from graphprune.rules import contrib_grouped as contrib_grouped
from graphprune.rules import contrib_matmul as contrib_matmul
from graphprune.rules import contrib_moe as contrib_moe
from graphprune.rules import contrib_norm as contrib_norm
from graphprune.rules import control_flow as control_flow
from graphprune.rules import einsum as einsum
from graphprune.rules import elementwise as elementwise
from graphprune.rules import indexing as indexing
from graphprune.rules import movement as movement
from graphprune.rules import norm as norm
from graphprune.rules import quantized as quantized
from graphprune.rules import quantized_contrib as quantized_contrib
from graphprune.rules import recurrent as recurrent
from graphprune.rules import reduce as reduce
from graphprune.rules import shape as shape
from graphprune.rules import space as space
from graphprune.rules.registry import RULES as RULES
