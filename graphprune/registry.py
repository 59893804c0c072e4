"""A table from (domain, operator, since-version) to a function, with a closed default.

Duplicates raise: a second import of a rule file under another name, or two rules for one operator, would
otherwise silently replace each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

F = TypeVar("F", bound=Callable[..., object])

#: ONNX writes its default domain as "" or "ai.onnx".
DEFAULT_DOMAIN = ""


def normal_domain(domain: str | None) -> str:
    """``ai.onnx`` and the empty string are one domain."""
    return DEFAULT_DOMAIN if domain in (None, "", "ai.onnx") else str(domain)


class Registry(Generic[F]):
    """Functions keyed by operator, looked up by the opset that a model imports."""

    def __init__(self, noun: str) -> None:
        self._noun = noun
        self._table: dict[tuple[str, str], dict[int, F]] = {}

    def register(self, *op_types: str, since: int = 1, domain: str = DEFAULT_DOMAIN) -> Callable[[F], F]:
        """Decorator that enters a function for one or several operators.

        Args:
            *op_types: operator names.
            since: first opset version for which the function is right.
            domain: operator domain.

        Raises:
            ValueError: the operator already has a function for this version.
        """

        def enter(function: F) -> F:
            for op_type in op_types:
                versions = self._table.setdefault((normal_domain(domain), op_type), {})
                if since in versions:
                    message = f"a second {self._noun} for {domain or 'ai.onnx'}::{op_type} since {since}"
                    raise ValueError(message)
                versions[since] = function
            return function

        return enter

    def find(self, domain: str, op_type: str, opset: int) -> F | None:
        """The newest function whose since-version is at most ``opset``, or None."""
        versions = self._table.get((normal_domain(domain), op_type), {})
        best = max((v for v in versions if v <= opset), default=None)
        return None if best is None else versions[best]

    def ops(self) -> list[tuple[str, str, int]]:
        """All (domain, op type, since) entries, sorted."""
        return sorted((d, o, s) for (d, o), versions in self._table.items() for s in versions)
