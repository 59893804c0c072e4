"""How many nodes a model has once its local functions are written out: a few lines may make billions."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.traversal import RecursiveGraphIterator

from graphprune.errors import ModelError

#: What is written out within a minute or two.
MOST_NODES = 100_000
#: A model that has more nodes as it is stored may grow to so many times them: each function of a real one is
#: called by a few layers.
_GROWTH = 4


def require_expandable(model: ir.Model) -> None:
    """Refuses functions that call themselves, and those that would fill the memory.

    Raises:
        ModelError: one of these.
    """
    known: dict[ir.OperatorIdentifier, int] = {}
    order: list[tuple[ir.OperatorIdentifier, bool]] = [(key, False) for key in model.functions]
    open_ones: set[ir.OperatorIdentifier] = set()
    while order:
        key, is_closing = order.pop()
        if is_closing:
            known[key] = _size(model.functions[key], known)
            open_ones.discard(key)
        elif key not in known:
            if key in open_ones:
                message = f"the local function '{key[1]}' calls itself"
                because = "ONNX has no recursion"
                raise ModelError(message, because=because, hint="export the model without functions")
            open_ones.add(key)
            order.append((key, True))
            order += [
                (called, False) for called in _called(model.functions[key], model) if called not in known
            ]
    total = _size(model.graph, known)
    stored = _size(model.graph, {}) + sum(_size(body, {}) for body in model.functions.values())
    if total > max(MOST_NODES, _GROWTH * stored):
        message = "the model has too many nodes"
        because = f"its local functions, written out, are {float(min(total, 10**300)):.3g} nodes"
        raise ModelError(message, because=because, hint="export the model without functions")


def _called(body: ir.Graph | ir.Function, model: ir.Model) -> set[ir.OperatorIdentifier]:
    return {node.op_identifier() for node in RecursiveGraphIterator(body)} & model.functions.keys()


def _size(body: ir.Graph | ir.Function, known: dict[ir.OperatorIdentifier, int]) -> int:
    return sum(known.get(node.op_identifier(), 1) for node in RecursiveGraphIterator(body))
