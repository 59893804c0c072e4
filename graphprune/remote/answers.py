"""What a runner answers, checked before anything relies on it: the other machine may be anybody's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any], bool]


def text(found: Any) -> bool:
    """A text that is no book."""
    return isinstance(found, str) and len(found) <= 10_000


def number(found: Any) -> bool:
    """A finite number that is not negative."""
    is_number = isinstance(found, (int, float)) and not isinstance(found, bool)
    return is_number and 0 <= found < 1e18 and math.isfinite(found)


def some_number(found: Any) -> bool:
    """A finite number."""
    return number(abs(found)) if isinstance(found, (int, float)) else False


def flag(found: Any) -> bool:
    """True or false."""
    return isinstance(found, bool)


def maybe(check: Check) -> Check:
    """Null as well."""
    return lambda found: found is None or check(found)


def many(check: Check, least: int = 0) -> Check:
    """A list of these."""
    return lambda found: isinstance(found, list) and len(found) >= least and all(map(check, found))


def table(check: Check) -> Check:
    """A mapping to these."""
    return lambda found: isinstance(found, dict) and all(map(check, found.values()))


def record(**fields: Check) -> Check:
    """A mapping with these entries, and perhaps others."""
    return lambda found: (
        isinstance(found, dict)
        and all(name in found and check(found[name]) for name, check in fields.items())
    )


_RUN = record(
    milliseconds=many(number, 1), medians=many(number, 1), joules=table(some_number), warmup=number,
    stable=maybe(flag),
)  # fmt: skip

#: By request.
ANSWERS: Mapping[str, Check] = {
    "info": record(
        python=text, numpy=text, onnxruntime=text, providers=many(text), processor=text, features=many(text),
        card=maybe(text),
    ),
    "measure": record(
        runs=many(_RUN, 1),
        conditions=record(mhz=many(number), celsius=many(some_number), throttled=number),
    ),
    "alone": record(idle=maybe(number), peak=maybe(number), card=maybe(number), load_ms=number),
    "trace": record(nodes=many(record(name=text, op_type=text, provider=text, ms=number))),
    "outputs": record(names=many(text)),
}  # fmt: skip


def is_answer(do: str, result: Any) -> bool:
    """Is this what a runner answers to a request?"""
    return ANSWERS.get(do, record())(result)
