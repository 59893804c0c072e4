"""Targets: what may be kept, as a fraction of the original or as an absolute amount."""

from __future__ import annotations

import re
from collections.abc import Mapping

from graphprune.cost import Cost
from graphprune.errors import UsageError

METRICS = ("macs", "params", "bytes")
_UNITS = {
    "": 1.0,
    "k": 1e3,
    "m": 1e6,
    "g": 1e9,
    "t": 1e12,
    "ki": 2.0**10,
    "mi": 2.0**20,
    "gi": 2.0**30,
}
_ABSOLUTE = re.compile(r"^([0-9]*\.?[0-9]+(?:e[0-9]+)?|[0-9]+\.)\s*([kmgt]i?)?b?$", re.IGNORECASE)


def parse_target(text: str) -> tuple[str, float | str]:
    """``"macs=50%"`` as ``("macs", 0.5)``; an absolute amount stays text.

    Raises:
        UsageError: unknown metric or unreadable amount.
    """
    metric, separator, amount = text.partition("=")
    if not separator:
        message = f"cannot read the target '{text}'"
        raise UsageError(message, hint="METRIC=AMOUNT, such as macs=50%")
    metric, amount = metric.strip().lower(), amount.strip()
    if amount.endswith("%"):
        try:
            return metric, float(amount[:-1]) / 100
        except ValueError as error:
            message = f"cannot read the target '{text}'"
            raise UsageError(message, hint=f"{metric}=50%") from error
    return metric, amount


def fractions(target: Mapping[str, float | str], dense: Cost) -> dict[str, float]:
    """Each target as the fraction of the original that may be kept.

    Args:
        target: metric -> fraction (``0.5``), percentage (``"50%"``) or amount (``"2.1G"``, ``"20MB"``).
        dense: cost of the original.

    Raises:
        UsageError: unknown metric, unreadable amount, or a fraction outside (0, 1).
    """
    if not target:
        message = "no target given"
        raise UsageError(message, hint="macs=50%, params=50% or bytes=20MB")
    found = {}
    for metric, amount in target.items():
        if metric not in METRICS:
            message = f"unknown target '{metric}'"
            raise UsageError(message, hint=f"one of {', '.join(METRICS)}")
        whole = getattr(dense, metric)
        fraction = _fraction(metric, amount, whole)
        if fraction >= 1.0 and isinstance(amount, str) and not amount.endswith("%"):
            message = f"the target {metric}={amount} is no cut"
            raise UsageError(message, because=f"the model has {whole} already", hint=f"{metric}=50%")
        if 0.0 < fraction < 1e-3 and isinstance(amount, str) and amount.isdigit():
            message = f"the target {metric}={amount} keeps {amount} of {whole}"
            raise UsageError(message, hint=f"{metric}={amount}%, if a percentage was meant")
        if not 0.0 < fraction < 1.0:
            message = f"the target {metric}={fraction:.0%} is out of range"
            raise UsageError(
                message,
                because="a target says how much is kept: more than 0 %, less than 100 %",
                hint=f"{metric}=50%",
            )
        found[metric] = fraction
    return found


def _fraction(metric: str, amount: float | str, whole: int) -> float:
    if not isinstance(amount, str):
        return float(amount)
    if amount.endswith("%"):
        return parse_target(f"{metric}={amount}")[1]  # type: ignore[return-value]
    match = _ABSOLUTE.match(amount)
    if match is None:
        message = f"cannot read the amount '{amount}' of target '{metric}'"
        raise UsageError(message, hint=f"{metric}=50%, or an amount such as 2.1G or 20MB")
    value = float(match[1]) * _UNITS[(match[2] or "").lower()]
    if metric != "bytes" and value <= 1.0 and not match[2]:
        return value
    return value / max(whole, 1)
