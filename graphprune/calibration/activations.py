"""Normal variables behind an activation function: their means and covariances.

In Hermite polynomials of the standardised variables, ``f(x_i) = Σ a_ik He_k``, and for two variables of the
correlation ``r`` the covariance is ``Σ a_ik a_jk k! r^k`` (Mehler).
"""

from __future__ import annotations

from collections.abc import Callable
from math import erf, sqrt

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Matrix = npt.NDArray[np.float64]
Function = Callable[[Matrix], Matrix]
#: Points of the quadrature, and polynomials that are looked at.
_POINTS, _DEGREE = 96, 16


def behind(function: Function, mean: Matrix, covariance: Matrix) -> tuple[Matrix, Matrix]:
    """Mean ``[n]`` and covariance ``[n, n]`` of ``function`` of normal variables with these."""
    points, weights = np.polynomial.hermite_e.hermegauss(_POINTS)
    weights = weights / weights.sum()
    spread = np.sqrt(np.diag(covariance).clip(min=0.0))
    scale = np.where(spread > 0, spread, 1.0)
    correlation = (covariance / scale[:, None] / scale).clip(-1.0, 1.0)
    values = function(mean[:, None] + spread[:, None] * points)
    centre = values @ weights
    found, power = np.zeros_like(covariance), np.ones_like(covariance)
    last, polynomial = np.zeros_like(points), np.ones_like(points)  # He_k / sqrt(k!)
    for k in range(1, _DEGREE + 1):
        last, polynomial = polynomial, (points * polynomial - sqrt(k - 1) * last) / sqrt(k)
        part = (values * weights) @ polynomial
        power = power * correlation
        found += np.outer(part, part) * power
    # What higher polynomials add is each variable's own.
    np.fill_diagonal(found, np.square(values - centre[:, None]) @ weights)
    return centre, found


def function_of(node: ir.Node) -> Function | None:
    """What an activation node computes, None if it is none of those that are known here."""
    number = node.attributes.get_float
    if node.op_type == "Relu":
        return lambda x: np.maximum(x, 0.0)
    if node.op_type == "LeakyRelu":
        slope = number("alpha", 0.01)
        return lambda x: np.where(x < 0, slope * x, x)
    if node.op_type == "HardSwish":
        return lambda x: x * _hard_sigmoid(x, 1 / 6, 0.5)
    if node.op_type == "Gelu":
        return lambda x: 0.5 * x * (1.0 + np.vectorize(erf)(x / sqrt(2.0)))
    if node.op_type == "Clip":
        return _clip(node)
    return None


def gate_of(node: ir.Node) -> Function | None:
    """``x * g(x)`` for a node that computes ``g``, a sigmoid."""
    if node.op_type == "Sigmoid":
        return lambda x: x * (0.5 + 0.5 * np.tanh(0.5 * x))
    if node.op_type == "HardSigmoid":
        slope, shift = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
        return lambda x: x * _hard_sigmoid(x, slope, shift)
    return None


def _hard_sigmoid(x: Matrix, slope: float, shift: float) -> Matrix:
    return np.asarray((slope * x + shift).clip(0.0, 1.0))


def _clip(node: ir.Node) -> Function | None:
    bounds = [node.attributes.get_float("min", -np.inf), node.attributes.get_float("max", np.inf)]
    for i, value in enumerate(node.inputs[1:3]):
        if value is None:
            continue
        if value.const_value is None or value.is_graph_input() or value.const_value.size != 1:
            return None
        bounds[i] = float(value.const_value.numpy().reshape(-1)[0])
    low, high = bounds
    return lambda x: x.clip(low, high)
