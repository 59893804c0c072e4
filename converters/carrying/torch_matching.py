"""The arrays of a live module behind the constants of its ONNX model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import onnx_ir as ir
import torch
from graphprune.converters.carrying.matching import Matching, Unmatched, match
from graphprune.converters.carrying.source_cut import Array, SourceCut
from graphprune.converters.carrying.torch_arrays import arrays_of, ties_of

from graphprune.errors import CarryError, ModelError
from graphprune.model import Model
from graphprune.plan import Plan


def _missing(matching: Matching, source: Model) -> list[Unmatched]:
    """What was not found, without what a module makes up as it runs: that is left to the proof."""
    return [each for each in matching.unmatched if not _is_made_up(source, each.constant)]


def _is_made_up(source: Model, name: str) -> bool:
    """Indices, and the ones and zeros that exporters write for a norm without a scale of its own."""
    value = source.ir.graph.initializers.get(name)
    tensor = None if value is None else value.const_value
    if tensor is None:
        return False
    if tensor.dtype in (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL):
        return True
    flat = tensor.numpy().reshape(-1)
    return bool((flat == flat[:1]).all())


def _require_whole(matching: Matching, source: Model) -> None:
    """Every constant that the plan cuts has been found in the module, and all of a module stays.

    Raises:
        CarryError: one has not.
        ModelError: nothing stays of a tensor.
    """
    missing = _missing(matching, source)
    if missing:
        first, *others = missing
        what = f"'{first.constant}' of the model was not found in the module"
        more = f" ({len(others)} more were not found)" if others else ""
        hint = "the module with the weights that were exported, or leave the group out: --exclude"
        told = [(each.constant, each.use, each.reason) for each in missing]
        raise CarryError(what, told, where=first.use, because=first.reason + more, hint=hint)
    if matching.cut.gone:
        first_gone = sorted(matching.cut.gone)[0]
        what = f"nothing stays of '{first_gone}'"
        because = "a module's code calls all of its layers"
        hint = "a plan without whole blocks: kinds=['channels', 'heads', 'head_dim', 'experts']"
        raise ModelError(what, because=because, hint=hint)


def matched(
    module: torch.nn.Module, source: Model, plan: Plan, pruned: Model | None
) -> tuple[dict[str, Array], SourceCut]:
    """The arrays of the module, and what becomes of them.

    Exporters write a tied weight twice where one of its uses is transposed; the plan, or a compensator, may
    then do two things to it, and the tie has to go.
    """
    ties = ties_of(module)
    arrays = arrays_of(module)
    matching = match(source, plan, arrays, pruned)
    if _missing(matching, source) and ties:
        single = arrays_of(module, untied=True)
        again = match(source, plan, single, pruned)
        if not _missing(again, source):
            return single, _with_ties(again.cut, ties)
    _require_whole(matching, source)
    return arrays, _with_ties(matching.cut, ties)


def _with_ties(cut: SourceCut, ties: Mapping[str, tuple[str, ...]]) -> SourceCut:
    """The same cut, said for the names of a tied tensor that were not found in the file."""

    def spread(entries: Any) -> Any:
        told = {name: e for name, e in entries.items() if name in cut.how or name not in ties}
        others = {o: e for name, e in told.items() for o in ties.get(name, ()) if o not in cut.how}
        return dict(entries) | told | others

    return replace(cut, kept=spread(cut.kept), sizes=spread(cut.sizes), values=spread(cut.values))
