"""How the inputs of an ONNX model are given to the module that it was exported from."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

import torch
from graphprune.converters.carrying.source_cut import Array
from graphprune.converters.carrying.torch_arrays import to_numpy
from graphprune.converters.torch_example import Example, bind

from graphprune.compare import Feeds
from graphprune.errors import ModelError
from graphprune.feasible_inputs import feasible_inputs
from graphprune.foreign import runnable
from graphprune.model import Model
from graphprune.plan import Plan
from graphprune.shapes.trace import trace


@dataclass(frozen=True)
class Call:
    """One call, for both sides.

    Attributes:
        args: of the module.
        kwargs: of the module.
        feeds: of the ONNX model.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    feeds: Feeds


def calls(
    module: torch.nn.Module, source: Model, plan: Plan, inputs: Any = None, seed: int = 0
) -> tuple[Call, Call]:
    """A call of the uncut module and one of the carried one.

    Args:
        module: what was exported.
        source: what it became.
        plan: that was applied.
        inputs: an example as ``convert`` takes it; None: random ones.
        seed: of the random ones.

    Raises:
        ModelError: the inputs of the two can't be told to be the same.
    """
    names = _inputs(source)
    if inputs is None:
        before = feasible_inputs(runnable(source), [trace(source).dims], seed)[0]
        return _named(module, names, before), _named(module, names, _cut(plan, before))
    example = bind(module, inputs)
    tensors = example.tensors
    order = names if set(names) <= set(tensors) else list(tensors)
    if len(order) != len(names):
        what = f"the example has {len(order)} tensors and the model {len(names)} inputs"
        raise ModelError(what, because=f"the model's are {', '.join(names)}")
    feeds = {name: to_numpy(tensors[given]) for name, given in zip(names, order, strict=True)}
    smaller = _cut(plan, feeds)
    cut = {given: torch.from_numpy(smaller[n]) for n, given in zip(names, order, strict=True)}
    carried = example.with_tensors({**tensors, **{k: cut[k].to(tensors[k]) for k in cut}})
    return _call(example, feeds), _call(carried, smaller)


def _call(example: Example, feeds: Feeds) -> Call:
    return Call(example.args, example.kwargs, feeds)


def _inputs(model: Model) -> list[str]:
    return [str(v.name) for v in model.ir.graph.inputs if not v.is_initializer()]


def _cut(plan: Plan, feeds: Mapping[str, Any]) -> dict[str, Array]:
    """The example for a model whose inputs have shrunk as well."""
    found = dict(feeds)
    for entry in plan.interface:
        if entry.kind == "input":
            found[entry.name] = found[entry.name].take(entry.keep, axis=entry.axis)
    return found


def _named(module: torch.nn.Module, names: list[str], feeds: Feeds) -> Call:
    """By keyword if all names are parameters of ``forward``, in order otherwise."""
    weights = next((p for p in module.parameters() if p.is_floating_point()), None)
    tensors = [_given(feeds[name], weights) for name in names]
    parameters = inspect.signature(module.forward).parameters
    positional = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.VAR_POSITIONAL)
    places = [p for p in parameters.values() if p.kind in positional]
    if all(name in parameters for name in names):
        return Call((), dict(zip(names, tensors, strict=True)), feeds)
    if len(names) <= len(places) or any(p.kind is Parameter.VAR_POSITIONAL for p in places):
        return Call(tuple(tensors), {}, feeds)
    what = f"the model has {len(names)} inputs and forward takes {len(places)}"
    hint = "give an example of the module's inputs"
    raise ModelError(what, where=type(module).__name__, because=f"they are {', '.join(names)}", hint=hint)


def _given(array: Any, weights: torch.Tensor | None) -> torch.Tensor:
    if array.dtype.name == "bfloat16":
        tensor = torch.from_numpy(array.astype("float32")).to(torch.bfloat16)
    else:
        tensor = torch.from_numpy(array)
    return tensor if weights is None else tensor.to(weights.device)
