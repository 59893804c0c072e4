"""Shapes of what declared operators make, where the file does not say.

No inference knows a custom operator; without a shape, everything behind it would be out of reach.  A
declaration gives the outputs' axes in terms of the inputs' axes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import TypeAlias

import onnx_ir as ir

from graphprune.declaration_text import Factors, SizeError, solve_sizes
from graphprune.declarations import Declaration, Declarations
from graphprune.model import Model
from graphprune.shapes.inference import Inferred, Skeleton
from graphprune.shapes.sizes import Interface

#: A size, the name of a symbolic dim, or nothing known.
Size: TypeAlias = "int | str | None"


def with_declared_shapes(model: Model, declarations: Declarations) -> Model:
    """A copy of ``model`` in which the outputs of declared operators have shapes and types.

    Returns:
        ``model`` itself when nothing was missing, or nothing could be told.
    """
    if not any(True for _ in _shapeless(model.ir.graph, declarations)):
        return model
    copy = model.clone()
    skeleton, symbols = Skeleton(copy.ir), Interface(copy.ir).symbols()
    while True:
        known = skeleton.infer(symbols, by_name=True)
        missing = _shapeless(copy.ir.graph, declarations)
        made = [_declare(declaration, node, known) for node, declaration in missing]
        if not any(made):
            return copy


def _shapeless(graph: ir.Graph, declarations: Declarations) -> Iterator[tuple[ir.Node, Declaration]]:
    for node in graph if declarations.table else ():
        declaration = declarations.find(node)
        if declaration is not None and any(v.shape is None or v.dtype is None for v in node.outputs):
            yield node, declaration


def _declare(declaration: Declaration, node: ir.Node, known: Inferred) -> bool:
    """Writes the shapes and types of a node's outputs; was there anything new?"""
    sizes = _sizes(declaration, node, known)
    source = node.inputs[0] if node.inputs else None
    made = False
    for tensor, value in zip(declaration.text.outputs, node.outputs, strict=False):
        if value.shape is None and tensor.is_described and sizes is not None:
            leading = [(name,) for name in sizes if name.startswith("...") and tensor.leading]
            value.shape = ir.Shape([_size(factors, sizes) for factors in [*leading, *tensor.axes]])
            made = True
        if value.dtype is None and source is not None:
            dtype = known.types.get(source.name or "") or source.dtype
            if dtype is not None:
                value.dtype = dtype
                made = True
    return made


def _sizes(declaration: Declaration, node: ir.Node, known: Inferred) -> dict[str, Size] | None:
    """What is known about the sizes of a node's names; None while an input's rank is not known."""
    found: dict[str, Size] = {}
    numbers: list[tuple[Factors, int]] = []
    try:
        for tensor, value in zip(declaration.text.inputs, node.inputs, strict=False):
            if value is None or not tensor.is_described:
                continue
            shape = known.axes.get(value.name or "")
            if shape is None:
                return None
            for factors, size in zip(tensor.expanded(len(shape)), shape, strict=True):
                if isinstance(size, int):
                    numbers.append((factors, size))
                elif len(factors) == 1:
                    found[factors[0]] = found.get(factors[0]) or size
        for attribute, names in declaration.attributes.items():
            given = node.attributes.get(attribute)
            if given is not None and given.type == ir.AttributeType.INT:
                numbers.append((names, given.as_int()))
        return found | solve_sizes(numbers, whole=False)
    except SizeError:  # the rule will say how the node does not fit
        return None


def _size(factors: Factors, sizes: Mapping[str, Size]) -> Size:
    found = [sizes.get(name) for name in factors]
    numbers = [size for size in found if isinstance(size, int)]
    if len(numbers) == len(found):
        return prod(numbers)
    return found[0] if len(found) == 1 else None
