"""The registry of operators: one small function each.

``function(call, *inputs) -> tensor or tuple of tensors``. Absent inputs are None. An operator with bodies
gets them as functions of a list of inputs: ``function(call, bodies, *inputs)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphprune.registry import DEFAULT_DOMAIN, Registry

Operator = Callable[..., Any]
TORCH_OPS: Registry[Operator] = Registry("torch function")


def op(*op_types: str, since: int = 1, domain: str = DEFAULT_DOMAIN) -> Callable[[Operator], Operator]:
    """Decorator that enters a function for one or several operators.

    Args:
        *op_types: operator names.
        since: first opset version for which the function is right.
        domain: operator domain.
    """
    return TORCH_OPS.register(*op_types, since=since, domain=domain)
