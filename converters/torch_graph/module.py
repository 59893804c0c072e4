"""The module that interprets a graph."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from graphprune.converters.torch_graph import operators as operators
from graphprune.converters.torch_graph.call import FLOATING, Precision, tensor_of
from graphprune.converters.torch_graph.program import Step, compile_graph
from graphprune.converters.torch_graph.weights import Weight, constants_of, require_unique, weights_of
from graphprune.converters.torch_graph.write_back import written_back

from graphprune.errors import ModelError, UsageError
from graphprune.model import Model, Source, load

#: Integers of more than so many numbers are indices into data and go where the data is.
FEW_INTEGERS = 64


class GraphModule(torch.nn.Module):  # type: ignore[misc]  # torch is absent where the types are checked
    """A model's graph; see :mod:`graphprune.converters.torch_graph`.

    Attributes:
        inputs: names of the inputs that have to be given.
        outputs: names of the graph's outputs.
        weights: what each parameter stands for, by its key.
    """

    def __init__(self, source: Source) -> None:
        super().__init__()
        model = load(source)
        graph = model.ir.graph
        self.precision = Precision()
        self._registered: dict[str, str] = {}
        self._numbers: dict[str, torch.Tensor] = {}
        self._input_types = {v.name or "": FLOATING[v.dtype] for v in graph.inputs if v.dtype in FLOATING}
        constants = list(constants_of(graph))
        weights = [w for value in constants for w in weights_of(value)]
        require_unique(weights)
        self.weights: dict[str, Weight] = {w.key: w for w in weights}
        of_use = {(w.name, use): w.key for w in weights for use in w.uses or ()}
        for value in constants:
            self._hold(value, [w for w in weights if w.name == value.name] if weights else [])
        self.register_buffer("place", torch.zeros(0), persistent=False)

        def use_name(node: ir.Node, index: int) -> str | None:
            value = node.inputs[index]
            return of_use.get((value.name or "", (node.outputs[0].name or "", index))) if value else None

        self._program = compile_graph(graph, model.ir.opset_imports, self.precision, use_name)
        self.inputs = [v.name or "" for v in graph.inputs if (v.name or "") not in graph.initializers]
        self.outputs = list(self._program.outputs)

    @property
    def initializers(self) -> dict[str, torch.nn.Parameter]:
        """The parameters by initializer name; one use of several is ``NAME@OUTPUT:INPUT_INDEX``."""
        return {key: self._parameters[self._registered[key]] for key in self.weights}

    @property
    def registered_names(self) -> dict[str, str]:
        """Initializer name -> the name torch knows the parameter by (torch allows no dots)."""
        return {key: self._registered[key] for key in self.weights}

    def steps(self) -> Iterator[Step]:
        """All nodes, those of bodies included; a step's function may be exchanged."""
        return self._program.all_steps()

    def parameter_key(self, name: str, output: str, index: int) -> str | None:
        """Key of the parameter that one use of an initializer reads; None if that is no parameter.

        Args:
            name: of the initializer.
            output: first output of the node that uses it.
            index: which input it is.
        """
        key = f"{name}@{output}:{index}"
        return key if key in self.weights else name if name in self.weights else None

    def forward(
        self,
        feeds: Mapping[str, Any] | None = None,
        /,
        *,
        fetch: Collection[str] | None = None,
        **named: Any,
    ) -> dict[str, torch.Tensor]:
        """Runs the graph.

        Args:
            feeds: tensors or arrays by input name.
            fetch: names of any tensors of the graph, instead of its outputs.
            **named: further inputs, where their names are no Python words.

        Returns:
            Tensors by name; only what they need is computed.

        Raises:
            ModelError: a node can't be run on these inputs.
            UsageError: an input is missing or unknown, or no tensor has the name that is fetched.
        """
        values = self._constants()
        values.update(self._fed({**(feeds or {}), **named}))
        wanted = self.outputs if fetch is None else list(fetch)
        if fetch is not None:
            self._require_known(wanted)
        return self._program.run(values, wanted)

    def write_back(self, source: Source) -> Model:
        """A copy of the model with this module's numbers in its initializers, by name.

        Args:
            source: the model that the module was made from; it is not changed.

        Raises:
            ModelError: it has no initializer of that name and shape.
        """
        arrays = {key: p.detach().cpu() for key, p in self.initializers.items()}
        return written_back(load(source), self.weights, arrays)

    def _hold(self, value: ir.Value, weights: list[Weight]) -> None:
        """Registers a constant: as parameters, as a buffer, or as small integers aside."""
        tensor = value.const_value
        assert tensor is not None
        name = value.name or ""
        if not weights or weights[0].uses is not None:
            held = tensor_of(_array(tensor))
            if held.is_floating_point() or held.numel() > FEW_INTEGERS:
                self._registered[name] = self._free_name("constant", name)
                self.register_buffer(self._registered[name], held, persistent=False)
            else:
                self._numbers[name] = held
        for weight in weights:
            self._registered[weight.key] = self._free_name("weight", weight.key)
            parameter = torch.nn.Parameter(tensor_of(_array(tensor)))
            self.register_parameter(self._registered[weight.key], parameter)

    def _free_name(self, kind: str, name: str) -> str:
        plain = f"{kind}_" + re.sub(r"\W", "_", name)
        taken = set(self._registered.values()) if plain in self._registered.values() else set()
        if plain not in taken:
            return plain
        return next(f"{plain}_{i}" for i in range(2, len(taken) + 3) if f"{plain}_{i}" not in taken)

    def _constants(self) -> dict[str, torch.Tensor]:
        values = dict(self._numbers)
        for name, registered in self._registered.items():
            parameter = self._parameters.get(registered)
            values[name] = parameter if parameter is not None else self._buffers[registered]
        return values

    def _fed(self, feeds: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        known = set(self._program.inputs)
        for name in feeds:
            if name not in known:
                what = f"the model has no input '{name}'"
                raise UsageError(what, hint=f"its inputs are {', '.join(self._program.inputs)}")
        for name in self.inputs:
            if name not in feeds:
                what = f"no value for input '{name}'"
                raise UsageError(what, hint="a tensor or an array for each input")
        place = self._buffers["place"].device
        found = {}
        for name, given in feeds.items():
            value = given if isinstance(given, torch.Tensor) else torch.from_numpy(np.array(given))
            if value.is_floating_point():
                value = value.to(place, self.precision.real or self._input_types.get(name, value.dtype))
            elif value.numel() > FEW_INTEGERS:
                value = value.to(place)
            found[name] = value
        return found

    def _require_known(self, names: Collection[str]) -> None:
        known = set(self._program.inputs) | set(self._registered) | set(self._numbers)
        known.update(n for step in self._program.steps for n in step.call.outputs)
        for name in names:
            if name not in known:
                what = f"the graph has no tensor '{name}'"
                raise UsageError(what, hint="the name of an input, an output or a node's output")

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> GraphModule:
        """Follows ``.double()``, ``.half()`` and ``.to(...)``: casts in the graph follow the parameters."""
        super()._apply(fn, recurse)
        probes = {fn(torch.zeros(0, dtype=dtype)).dtype for dtype in FLOATING.values()}
        if len(probes) == 1:
            self.precision.real = probes.pop()
        return self


def _array(tensor: ir.TensorProtocol) -> np.ndarray[Any, Any]:
    try:
        return tensor.numpy()
    except (OSError, ValueError) as error:
        what = f"the constant '{tensor.name}' can't be read"
        raise ModelError(what, because=str(error)) from error
