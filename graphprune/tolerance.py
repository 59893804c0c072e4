"""How far apart two models may be that compute the same: what rounding does in their types."""

from __future__ import annotations

import onnx_ir as ir

from graphprune.model import Model
from graphprune.parts import is_big
from graphprune.widened import HALVES, widened

#: A few hundred units in the last place: sums of other lengths round differently, layer by layer.
_COMPUTED = {
    ir.DataType.DOUBLE: 1e-10,
    ir.DataType.FLOAT: 1e-4,
    ir.DataType.FLOAT16: 2e-2,
    ir.DataType.BFLOAT16: 1e-4,  # it is run in float32
}
#: Weights that were rounded to a type, against those that were not.
_ROUNDED = {ir.DataType.FLOAT16: 2e-2, ir.DataType.BFLOAT16: 5e-2}
_DEFAULT = _COMPUTED[ir.DataType.FLOAT]


def computed(model: Model) -> float:
    """For two runs of a model as it is: the coarsest floating-point type among its weights."""
    return max((_COMPUTED[kind] for kind in _types(model) if kind in _COMPUTED), default=_DEFAULT)


def rounding(model: Model) -> float:
    """For a cut and its reference: numbers of 16 bits are compared in float32, unless they are too many."""
    kinds = _types(model)
    if is_big(model):
        return computed(model)
    return max((_COMPUTED[kind] for kind in kinds & _COMPUTED.keys() - set(HALVES)), default=_DEFAULT)


def in_single_precision(model: Model) -> Model:
    """What :func:`rounding` is about: ``model`` itself, or a copy in float32."""
    return model if is_big(model) else widened(model, HALVES)


def between(first: Model, second: Model) -> float:
    """For two files that should be the same function, perhaps in different types."""
    kinds = [_types(model) for model in (first, second)]
    only = (kinds[0] ^ kinds[1]) & _ROUNDED.keys()
    return max(computed(first), computed(second), *(_ROUNDED[kind] for kind in only))


def _types(model: Model) -> set[ir.DataType]:
    constants = (v.const_value for v in model.ir.graph.initializers.values())
    return {tensor.dtype for tensor in constants if tensor is not None}
