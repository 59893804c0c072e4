"""What a plan means for the source's own arrays: which positions stay, and what they become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class SizeChange:
    """One group under an axis: what a module calls its number of heads, its head size, its width.

    Attributes:
        group: id in the plan.
        kind: ``channels``, ``heads``, ``head_dim``, ``experts``, ...
        before: units of the group.
        after: how many of them stay.
    """

    group: str
    kind: str
    before: int
    after: int


@dataclass(frozen=True)
class SourceCut:
    """The plan in the source's terms.

    Attributes:
        kept: name of a source array -> axis of that array -> sorted positions that stay.
        sizes: name of a source array -> axis -> the groups that lie under the axis, outer first.
        values: name of a source array -> its new values at the new shape, where weights were updated.
        added: name of an array that the source does not have (a new bias) -> its values.
        gone: names of arrays of which nothing stays.
        how: name of a source array -> how it was found (``name``, ``value``, ``batch norm``, ``order``).
    """

    kept: Mapping[str, Mapping[int, npt.NDArray[np.int64]]]
    sizes: Mapping[str, Mapping[int, tuple[SizeChange, ...]]] = field(default_factory=dict)
    values: Mapping[str, Array] = field(default_factory=dict)
    added: Mapping[str, Array] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()
    how: Mapping[str, str] = field(default_factory=dict)
