"""A plan carried to a live torch module: a smaller copy that computes what the cut file does."""

from __future__ import annotations

import copy
from typing import Any

import torch
from graphprune.converters.carrying.source_cut import SourceCut
from graphprune.converters.carrying.torch_arrays import slots
from graphprune.converters.carrying.torch_attributes import integers
from graphprune.converters.carrying.torch_calls import Call, calls
from graphprune.converters.carrying.torch_case import Case
from graphprune.converters.carrying.torch_level import level
from graphprune.converters.carrying.torch_matching import matched
from graphprune.converters.carrying.torch_noise import Pair, find_noise, is_seen
from graphprune.converters.carrying.torch_proof import reference
from graphprune.converters.carrying.torch_report import Mended, ModuleReport
from graphprune.converters.carrying.torch_watch import Watch, watch
from graphprune.converters.carrying.transformers_config import configure

from graphprune import api
from graphprune.compare import compare_outputs, run
from graphprune.errors import ModelError, ValidationError
from graphprune.model import Source, load
from graphprune.plan import Plan

UNTIED = "no longer tied, since the pruned file has it twice: {}"
NOT_REPEATED = (
    "proven with the module's own weights alone, since the model can't be given random ones: where the "
    "outputs hardly depend on a layer, they do not show what was done to it"
)
LEVELED = "heads have one size for keys and values in this module: {} arrays are filled up with zeros"


def carry_module(
    plan: Plan,
    module: torch.nn.Module,
    *,
    model: Source,
    weights: Source | None = None,
    inputs: Any = None,
    seed: int = 0,
) -> tuple[torch.nn.Module, ModuleReport]:
    """The module with what the plan removes removed.

    Args:
        plan: made for ``model``.
        module: what ``model`` was exported from, with the same weights; never changed.
        model: the ONNX model before pruning.
        weights: the pruned ONNX model, where its weights were updated after the cut.
        inputs: an example as ``convert`` takes it; None: random inputs, by the model's names.
        seed: of the random inputs.

    Returns:
        a copy of the smaller shapes, in the same mode, and what was done.

    Raises:
        PlanError: the plan is not for this model.
        CarryError: something that the plan cuts was not found in the module.
        ModelError: the module is not what the model was made from, or can't have the new sizes.
        ValidationError: the result is not what the pruned model computes.
    """
    source = load(model)
    pruned = api.apply(source, plan) if weights is None else load(weights)
    _require_module(module)
    uncut = _copy(module)
    original, smaller = calls(uncut, source, plan, inputs, seed)
    before = _watched(uncut, original)
    dtype = next((str(p.dtype).removeprefix("torch.") for p in uncut.parameters()), "float32")
    wanted = reference(source, original.feeds, before.result, dtype, type(module).__name__)
    arrays, cut, links = matched(module, source, plan, None if weights is None else pruned)
    expected = run(pruned, smaller.feeds)
    plain = pruned if weights is None else api.apply(source, plan)
    noise = find_noise(
        Pair(uncut, source, plain, (original, smaller), before, wanted), plan, links, arrays, cut
    )
    case = Case(before, smaller, expected, wanted, noise)
    plainly = None if noise is None else noise.plain(cut)
    filled: tuple[str, ...] = ()
    try:
        done = case.carried(uncut, cut, plainly)
    except (ModelError, ValidationError):
        leveled = level(module, plan, cut, arrays)
        if leveled is None:
            raise
        cut, filled = leveled
        if noise is not None and plainly is not None:
            again = level(module, plan, plainly, noise.arrays)
            plainly = None if again is None else again[0]
        done = case.carried(_copy(module), cut, plainly)
    carried = done.module
    if plainly is None:
        _require_seen(case, carried, cut)
    said = configure(carried, done.changes, case.error, wanted.tolerance, is_untied=bool(done.untied))
    for m, old in zip(carried.modules(), module.modules(), strict=True):
        m.training = old.training
    _narrow(carried, module)
    carried.zero_grad()
    report = ModuleReport(
        parameters=(_count(module), _count(carried)),
        how=dict(cut.how),
        mended=_mended(_numbers(module), _numbers(carried)),
        rescaled=done.rescaled,
        filled=filled,
        error=done.error,
        tolerance=wanted.tolerance,
        change=_change(run(source, original.feeds), expected),
        notes=tuple(
            note
            for note in (
                LEVELED.format(len(filled)) if filled else "",
                UNTIED.format(", ".join(done.untied)) if done.untied else "",
                NOT_REPEATED if plainly is None else "",
                said,
            )
            if note
        ),
    )
    return carried, report


def _require_seen(case: Case, carried: torch.nn.Module, cut: SourceCut) -> None:
    """Without random weights on both sides: the outputs depend on what was cut.

    Raises:
        ValidationError: they do not, so they prove nothing.
    """
    if not is_seen(carried, cut, case.call, case.wanted):
        what = "nothing shows that the carried module is right"
        because = (
            "its outputs hardly depend on the weights that were cut (a layer of zeros, a tiny layer scale)"
        )
        hint = "carry the plan to a checkpoint file, or prune after some training"
        raise ValidationError(what, because=because, hint=hint)


def _watched(module: torch.nn.Module, call: Call) -> Watch:
    """A run of the uncut module, with what its code reads if it can be told."""
    found = watch(module, call.args, call.kwargs, reads=True)
    if found.error is not None:
        found = watch(module, call.args, call.kwargs)
    if found.error is not None:
        what = "the module does not run on the model's inputs"
        because = f"{type(found.error).__name__}: {found.error}"[:300]
        hint = "give an example of its inputs, as forward takes them"
        where = f"{type(module).__name__}.forward"
        raise ModelError(what, where=where, because=because, hint=hint) from found.error
    return found


def _narrow(carried: torch.nn.Module, module: torch.nn.Module) -> None:
    """The types that the tensors had; a new bias gets that of the other tensors."""
    types = {slot.name: slot.tensor.dtype for slot in slots(module)}
    usual = next(iter(types.values()), torch.float32)
    if torch.bfloat16 in types.values():
        for slot in slots(carried):
            slot.tensor.data = slot.tensor.data.to(types.get(slot.name, usual))


def _require_module(module: object) -> None:
    if not isinstance(module, torch.nn.Module):
        what = f"a plan is carried to a torch.nn.Module, not to a {type(module).__name__}"
        raise ModelError(what, hint="for a file of weights: graphprune carry PLAN FILE OUT")


def _copy(module: torch.nn.Module) -> torch.nn.Module:
    try:
        # onnxruntime computes bfloat16 models in float32 as well.
        return copy.deepcopy(module).eval()._apply(lambda t: t.float() if t.dtype == torch.bfloat16 else t)
    except Exception as error:  # a module may hold anything, and all of it is copied
        what = f"the {type(module).__name__} can't be copied"
        raise ModelError(what, because=f"{type(error).__name__}: {error}"[:300]) from error


def _numbers(module: torch.nn.Module) -> dict[str, int]:
    """All integers in the modules' attributes, as code would write them."""
    found: dict[str, int] = {}
    for path, m in module.named_modules():
        for name, key, value in integers(m):
            where = f"{path}.{name}" if path else name
            found[where if key is None else f"{where}[{key!r}]"] = value
    return found


def _mended(before: dict[str, int], after: dict[str, int]) -> tuple[Mended, ...]:
    changed = [name for name, value in before.items() if after.get(name, value) != value]
    return tuple(Mended(name, before[name], after[name]) for name in changed)


def _count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _change(original: Any, pruned: Any) -> float | None:
    """How far the cut moved the outputs; None where they have other shapes."""
    try:
        return max(d.passing_tolerance for d in compare_outputs(original, pruned))
    except ValidationError:
        return None
