"""Writing the cut: parameters are sliced, attributes and shape inputs follow."""

from graphprune.rewrite import repairs as repairs
from graphprune.rewrite import repairs_attention as repairs_attention
from graphprune.rewrite import repairs_contrib as repairs_contrib
from graphprune.rewrite import repairs_contrib_attention as repairs_contrib_attention
from graphprune.rewrite import repairs_quantized as repairs_quantized
from graphprune.rewrite import repairs_recurrent as repairs_recurrent
from graphprune.rewrite import repairs_space as repairs_space
from graphprune.rewrite.cut import cut as cut
from graphprune.rewrite.registry import REPAIRS as REPAIRS
