"""The arrays of a live module behind the constants of its ONNX model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from graphprune.converters.carrying.links import Link
from graphprune.converters.carrying.matching import Matching, Unmatched, match
from graphprune.converters.carrying.new_weights import require_new_weights
from graphprune.converters.carrying.places import Place
from graphprune.converters.carrying.source_cut import Array, SourceCut
from graphprune.converters.carrying.torch_arrays import arrays_of, ties_of

from graphprune.errors import CarryError, ModelError
from graphprune.model import Model
from graphprune.plan import Plan


def _missing(matching: Matching) -> list[Unmatched]:
    """What was not found, without what only a run can tell: that is left to the proof."""
    return [each for each in matching.unmatched if not each.needs_run]


def _require_whole(matching: Matching) -> None:
    """Every constant that the plan cuts has been found in the module, and all of a module stays.

    Raises:
        CarryError: one has not.
        ModelError: nothing stays of a tensor.
    """
    missing = _missing(matching)
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
) -> tuple[dict[str, Array], SourceCut, Mapping[Place, Link]]:
    """The arrays of the module, what becomes of them, and the constants that are made of them.

    Exporters write a tied weight twice where one of its uses is transposed; the plan, or a compensator, may
    then do two things to it, and the tie has to go.
    """
    ties = ties_of(module)
    arrays = arrays_of(module)
    matching = match(source, plan, arrays, pruned)
    if _missing(matching) and ties:
        single = arrays_of(module, untied=True)
        again = match(source, plan, single, pruned)
        if not _missing(again):
            return single, _with_ties(again.cut, ties), again.links
    if _missing(matching):
        require_new_weights(matching, source, plan, arrays, pruned)
    _require_whole(matching)
    return arrays, _with_ties(matching.cut, ties), matching.links


def _with_ties(cut: SourceCut, ties: Mapping[str, tuple[str, ...]]) -> SourceCut:
    """The same cut, said for the names of a tied tensor that were not found in the file."""

    def spread(entries: Any) -> Any:
        told = {name: e for name, e in entries.items() if name in cut.how or name not in ties}
        others = {o: e for name, e in told.items() for o in ties.get(name, ()) if o not in cut.how}
        return dict(entries) | told | others

    return replace(cut, kept=spread(cut.kept), sizes=spread(cut.sizes), values=spread(cut.values))
