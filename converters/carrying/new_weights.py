"""Whose fault it is when new weights can't be carried: theirs, or the source's?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
from graphprune.converters.carrying.matching import Matching, match

from graphprune.errors import CarryError
from graphprune.model import Model
from graphprune.plan import Plan


def require_new_weights(
    matching: Matching,
    model: Model,
    plan: Plan,
    arrays: Mapping[str, npt.NDArray[Any]],
    weights: Model | None,
) -> None:
    """Says so where the cut alone fits the source and only the new weights do not.

    Args:
        matching: of the source with the new weights.
        model: that the plan was made for.
        plan: what goes.
        arrays: of the source.
        weights: the pruned model with new weights, if there is one.

    Raises:
        CarryError: the new weights are at fault.
    """
    missing = [(each.constant, each.use, each.reason) for each in matching.unmatched]
    if weights is None or not missing or match(model, plan, arrays, None).unmatched:
        return
    constant, use, because = missing[0]
    if len(missing) > 1:
        because = f"{because} ({len(missing) - 1} more)"
    what = "the new weights can't be carried" + ("" if weights.path is None else f": '{weights.path}'")
    where = f"'{constant}'" + (f" at {use}" if use else "")
    hint = "--weights with a model that this plan made, or without it: the cut alone fits the source"
    raise CarryError(what, missing, where=where, because=because, hint=hint)
