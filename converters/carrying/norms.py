"""Batch norms of the source, and constants into which an exporter folded them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from graphprune.converters.carrying.hints import leaf_of, module_of

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]
#: Leaf names by role, as torch, Keras and Flax have them.
_ROLES = {
    "scale": ("weight", "gamma", "scale"),
    "shift": ("bias", "beta"),
    "mean": ("running_mean", "moving_mean", "mean"),
    "variance": ("running_var", "moving_variance", "var"),
}
#: Roles of a BatchNormalization's inputs.
INPUTS = {1: "scale", 2: "shift", 3: "mean", 4: "variance"}
#: Epsilons in use; the first that reproduces the numbers counts.
EPSILONS = (1e-5, 1e-3, 1e-6, 1.001e-5, 1e-4, 1e-2, 1e-7, 1e-8, 1e-12, 2e-5, 0.0)
#: Rounding of a folded number in single precision: a few operations.
ROUNDING = 2e-5
#: The same in half precision: a few units in the last place, as a fraction.
_COARSE = {"float16": 5e-3, "bfloat16": 3e-2}


@dataclass(frozen=True)
class Norm:
    """A batch norm: ``scale * (x - mean) / sqrt(variance + epsilon) + shift``.

    Attributes:
        module: its name.
        scale: name of the array; None if it has none (then it is 1).
        shift: name of the array; None if it has none (then it is 0).
        mean: name of the array.
        variance: name of the array.
        epsilon: as found; NaN before.
    """

    module: str
    scale: str | None
    shift: str | None
    mean: str
    variance: str
    epsilon: float = float("nan")

    @property
    def names(self) -> tuple[str, ...]:
        """Its arrays."""
        return tuple(n for n in (self.scale, self.shift, self.mean, self.variance) if n is not None)

    def factor(self, arrays: Mapping[str, Array]) -> Doubles:
        """What it multiplies each channel with."""
        variance = np.asarray(arrays[self.variance], np.float64)
        gamma = np.ones(variance.shape) if self.scale is None else np.asarray(arrays[self.scale], np.float64)
        with np.errstate(all="ignore"):
            return np.asarray(gamma / np.sqrt(variance + self.epsilon))

    def offset(self, arrays: Mapping[str, Array], bias: Array | None = None) -> Doubles:
        """What it makes of a layer's bias (None: of zero)."""
        mean = np.asarray(arrays[self.mean], np.float64)
        beta = np.zeros(mean.shape) if self.shift is None else np.asarray(arrays[self.shift], np.float64)
        before = np.zeros(mean.shape) if bias is None else np.asarray(bias, np.float64).reshape(-1)
        return np.asarray(beta + (before - mean) * self.factor(arrays))


def rounding_of(dtype: np.dtype[Any]) -> float:
    """Error that a computed number may have in a type, as a fraction."""
    return _COARSE.get(dtype.name, ROUNDING)


def role_of(name: str) -> str | None:
    """What an array would be in a norm, by the last part of its name."""
    return next((role for role, leaves in _ROLES.items() if leaf_of(name) in leaves), None)


def find_norms(arrays: Mapping[str, Array]) -> list[Norm]:
    """All batch norms, told by running statistics of equal length beside each other."""
    modules: dict[str, dict[str, str]] = {}
    for name, array in arrays.items():
        role = role_of(name)
        if role is not None and array.ndim == 1:
            modules.setdefault(module_of(name), {})[role] = name
    found = []
    for module, roles in modules.items():
        sizes = {arrays[name].size for name in roles.values()}
        if {"mean", "variance"} <= set(roles) and len(sizes) == 1:
            found.append(
                Norm(module, roles.get("scale"), roles.get("shift"), roles["mean"], roles["variance"])
            )
    return found


def misfit(found: Doubles, wanted: Doubles, scale: Doubles | None = None) -> float:
    """Largest difference as a fraction of ``scale``, by default of the numbers.

    NaN in ``found`` fits anything.  Numbers far smaller than the largest are held against a hundredth of it.
    """
    known = ~np.isnan(found)
    if not known.any() or not np.isfinite(wanted[known]).all():
        return float("inf")
    sizes = np.abs(wanted if scale is None else scale)[known]
    sizes = np.maximum(sizes, sizes.max() * 1e-2)
    error = np.abs(found - wanted)[known]
    with np.errstate(all="ignore"):
        return float(np.where(error == 0, 0.0, error / sizes).max())


def with_epsilons(norm: Norm) -> Iterator[Norm]:
    """The norm with each epsilon that it may have."""
    for epsilon in EPSILONS:
        yield replace(norm, epsilon=epsilon)


def fitting_norms(
    norms: Sequence[Norm],
    arrays: Mapping[str, Array],
    size: int,
    judge: Callable[[Norm], float],
    limit: float,
) -> list[Norm]:
    """Norms of this many channels that reproduce some numbers, each with the epsilon that does it best.

    Args:
        norms: to choose from.
        arrays: of the source.
        size: channels.
        judge: error of a norm with its epsilon, as a fraction.
        limit: accepted error.
    """
    found = []
    for norm in norms:
        if arrays[norm.mean].size == size:
            errors = [(judge(each), i, each) for i, each in enumerate(with_epsilons(norm))]
            error, _, each = min(errors, key=lambda item: item[:2])
            if error <= limit:
                found.append(each)
    return found


def direction(constant: Doubles, weight: Doubles, axis: int, rounding: float = ROUNDING) -> Doubles | None:
    """The factor per position of an axis that makes ``weight`` the constant; None if there is none.

    NaN where the weight is zero at that position.
    """
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    wanted = np.moveaxis(constant, axis, 0).reshape(weight.shape[axis], -1)
    power = (rows * rows).sum(axis=1)
    with np.errstate(all="ignore"):
        factor = (rows * wanted).sum(axis=1) / power
    known = power > 0
    if not known.any() or np.abs(wanted[~known]).max(initial=0.0) > 0:
        return None
    left = np.abs(wanted[known] - rows[known] * factor[known, None]).max(axis=1)
    most = np.abs(wanted[known]).max(axis=1)
    if (left > rounding * most).any():
        return None
    factor[~known] = np.nan
    return np.asarray(factor)
