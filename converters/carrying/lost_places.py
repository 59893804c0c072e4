"""Places of the original that a file with new weights does not have: were their numbers changed?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from graphprune.converters.carrying.places import Place
from graphprune.converters.carrying.updates import new_constants

from graphprune import api
from graphprune.model import Model
from graphprune.plan import Plan
from graphprune.storage.constants import is_constant


def lost_places(places: Sequence[Place], model: Model, plan: Plan, pruned: Model) -> frozenset[Place]:
    """Places that stay, and of whose new numbers nothing is known.

    Cutting may fold a node, so the plain cut tells which places a file can have.  What it folded must have
    the numbers of the plain cut: nothing says which numbers of the original others would be.

    Args:
        places: of the original model.
        model: the original.
        plan: what goes.
        pruned: the file with new weights.
    """
    now = new_constants(places, pruned)
    missing = {place for place in places if not place.is_gone and place not in now}
    if not missing:
        return frozenset()
    plain = api.apply(model, plan)
    there = new_constants(places, plain)
    lost = {place for place in missing if place in there}
    if lost != missing and not _has_same_folds(model, plain, pruned):
        return frozenset(missing)
    return frozenset(lost)


def _has_same_folds(model: Model, plain: Model, pruned: Model) -> bool:
    """Are all constants the same that stand in the cut model and nowhere in the original?"""
    known, wanted, found = _constants(model), _constants(plain), _constants(pruned)
    return all(
        key in found and _is_same(found[key], value) for key, value in wanted.items() if key not in known
    )


def _constants(model: Model) -> dict[tuple[str, int], ir.Value]:
    return {
        (node.outputs[0].name or "", i): value
        for node in model.ir.graph.all_nodes()
        for i, value in enumerate(node.inputs)
        if value is not None and value.const_value is not None and is_constant(value)
    }


def _is_same(one: ir.Value, other: ir.Value) -> bool:
    if one.const_value is None or other.const_value is None:
        return False
    return np.array_equal(one.const_value.numpy(), other.const_value.numpy())
