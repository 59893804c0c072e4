"""Which concrete sizes to give a model's symbolic dims, and in which order to try them.

Two sets are needed. The *nominal* sizes are what a user would run: costs are counted under them.
The *analysis* sizes are distinct primes that divide nothing else in the model, so that an axis of
the merged size 13·12 can only be the one dim times the other. Image sides get 32 times a prime,
since most networks halve them five times.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Literal

import onnx_ir as ir

from graphprune.errors import ModelError, UsageError
from graphprune.literals import formula
from graphprune.storage.constants import is_constant

Role = Literal["batch", "length", "side"]
# Sides go through five halvings in the usual image network.
SIDE_UNIT = 32
# So many dims are tried as sums of each other.
_MOST_IN_SUMS = 4
UNITS: Mapping[Role, int] = {"batch": 1, "length": 1, "side": SIDE_UNIT}

_BATCH = re.compile(r"batch|^(n|b|bs|bsz)$", re.IGNORECASE)
_LENGTH = re.compile(r"seq|len|time|token|past|step|frame", re.IGNORECASE)
_SIDE = re.compile(r"height|width|^(h|w)$", re.IGNORECASE)


@dataclass(frozen=True)
class SymbolicDim:
    """A size that the model leaves open.

    Attributes:
        name: the name it has in the file, or ``input:axis``.
        role: what it most likely is; decides which sizes are tried first.
    """

    name: str
    role: Role


class Interface:
    """The inputs of a model, their symbolic dims, and the sizes to try for these."""

    def __init__(self, model: ir.Model) -> None:
        self.inputs = [value for value in model.graph.inputs if value.name]
        self._axes: dict[str, list[int | str]] = {}
        dims: dict[str, SymbolicDim] = {}
        for value in self.inputs:
            if value.shape is None:
                continue
            axes: list[int | str] = []
            for axis, size in enumerate(value.shape):
                if isinstance(size, int):
                    axes.append(size)
                    continue
                name = size.value or f"{value.name}:{axis}"
                axes.append(name)
                for atom in _atoms(name):
                    dims.setdefault(atom, SymbolicDim(atom, _role(atom, value, axis)))
            self._axes[value.name or ""] = axes
        self.dims = tuple(dims.values())
        self._taken = _fixed_sizes(model)

    def check(self, overrides: Mapping[str, int]) -> None:
        """Refuse overrides of dims that don't exist, or with sizes that can't be."""
        names = [dim.name for dim in self.dims]
        for name, size in overrides.items():
            if name not in names:
                msg = f"'{name}' is not a symbolic dim of this model"
                hint = f"one of: {', '.join(names)}" if names else "leave it out: every size is fixed"
                raise UsageError(msg, because="no input has an axis of that name", hint=hint)
            if size < 1:
                msg = f"dim '{name}' cannot be {size}"
                raise UsageError(msg, because="sizes are positive", hint=f"--dim {name}=1")

    def shapes(self, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        """Shape of every input whose rank is known."""
        return {
            name: tuple(axis if isinstance(axis, int) else evaluate_dim(axis, sizes) for axis in axes)
            for name, axes in self._axes.items()
        }

    def symbols(self) -> dict[str, list[int | str]]:
        """Axes of every input, the symbolic ones by name."""
        return self._axes

    def nominal(self, overrides: Mapping[str, int]) -> Iterator[dict[str, int]]:
        """Sizes to run the model with, likeliest first."""
        for length, side in ((128, 224), (128, 256), (16, 384), (16, 96), (8, 32), (1, 1)):
            usual = {"batch": 1, "length": length, "side": side}
            sizes = {dim.name: overrides.get(dim.name, usual[dim.role]) for dim in self.dims}
            yield sizes
            if length == 128 and side == 224:
                yield from self._sums(sizes, overrides)

    def analysis(self, overrides: Mapping[str, int], nominal: Mapping[str, int]) -> Iterator[dict[str, int]]:
        """Sizes to analyse the model with, the most telling first.

        Args:
            overrides: what the user asked for; multiples of these are tried.
            nominal: the sizes of the other run; the two should differ in every dim.
        """
        scales = ((3, 5, 7, 11), (2,), (1,)) if overrides else ((1,),)
        for scale in scales:
            forced = {
                name: size * scale[index % len(scale)]
                for index, (name, size) in enumerate(sorted(overrides.items()))
            }
            candidates = [sizes | forced for sizes in self._distinct(nominal)]
            # A stable sort: those that leave nothing as it is in the other run come first.
            yield from sorted(candidates, key=lambda sizes: len(sizes.items() & nominal.items()))

    def _distinct(self, nominal: Mapping[str, int]) -> Iterator[dict[str, int]]:
        """Distinct sizes, then ever fewer of them."""
        taken = self._taken | {size for size in nominal.values() if size > 1}
        primes = list(islice(_primes(taken), len(self.dims) + 1))
        own, spare = dict(zip(self.dims, primes, strict=False)), primes[-1]
        for batch in (None, 1):
            for length in (None, spare, 32, 7):
                for side in (None, SIDE_UNIT * spare, 96 * spare, 384, 224, 96):
                    fixed = {"batch": batch, "length": length, "side": side}
                    if any(fixed[role] for role in set(fixed) - {dim.role for dim in self.dims}):
                        continue
                    sizes = {
                        dim.name: fixed[dim.role] or prime * UNITS[dim.role] for dim, prime in own.items()
                    }
                    yield sizes
                    if not any(fixed.values()):
                        yield from self._sums(sizes, ())

    def _sums(self, sizes: Mapping[str, int], given: Collection[str]) -> Iterator[dict[str, int]]:
        """One dim as long as two others together: what a file calls ``total`` may be past and new tokens."""
        names = [dim.name for dim in self.dims if dim.role != "batch"]
        for total in [name for name in names[:_MOST_IN_SUMS] if name not in given]:
            for a, b in combinations([name for name in names[:_MOST_IN_SUMS] if name != total], 2):
                yield {**sizes, total: sizes[a] + sizes[b]}


def evaluate_dim(text: str, sizes: Mapping[str, int]) -> int:
    """Value of a symbolic dim such as ``batch`` or ``past_length + 1``."""
    if text in sizes:
        return sizes[text]
    tree = _parse(text)
    if tree is None:
        msg = f"the size '{text}' cannot be computed"
        raise ModelError(msg, because="it is neither a symbolic dim nor arithmetic on some")
    return _compute(tree, sizes)


def _compute(tree: ast.expr, sizes: Mapping[str, int]) -> int:
    if isinstance(tree, ast.BinOp):
        left, right = _compute(tree.left, sizes), _compute(tree.right, sizes)
        if isinstance(tree.op, ast.Add):
            return left + right
        if isinstance(tree.op, ast.Sub):
            return left - right
        return left * right if isinstance(tree.op, ast.Mult) else left // right
    return sizes[tree.id] if isinstance(tree, ast.Name) else int(ast.literal_eval(tree))


def _atoms(text: str) -> list[str]:
    """The symbolic dims that ``text`` is made of; itself unless it is arithmetic."""
    tree = _parse(text)
    if tree is None:
        return [text]
    return [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)] or [text]


def _parse(text: str) -> ast.expr | None:
    """Syntax tree of ``text`` if it is arithmetic on names and integers, else None."""
    tree = formula(text)
    if tree is None:
        return None
    allowed = (ast.BinOp, ast.Name, ast.Load, ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Div)
    for node in ast.walk(tree):
        is_int = isinstance(node, ast.Constant) and type(node.value) is int
        if not is_int and not isinstance(node, allowed):
            return None
    return tree


def _role(name: str, value: ir.Value, axis: int) -> Role:
    if _BATCH.search(name):
        return "batch"
    if _SIDE.search(name):
        return "side"
    if _LENGTH.search(name):
        return "length"
    if axis == 0:
        return "batch"
    shape = value.shape
    is_float = value.dtype is not None and value.dtype.is_floating_point()
    return "side" if is_float and shape is not None and len(shape) >= 4 else "length"


def _fixed_sizes(model: ir.Model) -> set[int]:
    """Every size that the weights and inputs fix: no prime that divides one is telling."""
    values = [*model.graph.inputs, *filter(is_constant, model.graph.initializers.values())]
    shapes = [value.shape for value in values if value.shape is not None]
    return {size for shape in shapes for size in shape if isinstance(size, int) and size > 1}


def _primes(taken: Collection[int]) -> Iterator[int]:
    """Primes from 5 on that divide none of ``taken``; any prime where that leaves too few."""
    candidates = [n for n in range(5, 200) if all(n % k for k in range(2, int(n**0.5) + 1))]
    free = [prime for prime in candidates if all(size % prime for size in taken)]
    yield from free
    yield from (prime for prime in candidates if prime not in free)
