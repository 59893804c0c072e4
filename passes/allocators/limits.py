"""How many units of a group have to stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from graphprune.groups import Group

#: Kinds whose size is a tensor width; a number of heads or of convolution groups is not.
_WIDTHS = ("channels", "head_dim")


@dataclass(frozen=True)
class Limits:
    """How many units of a group have to stay.

    Attributes:
        floor: smallest kept fraction of a group (as many units stay as its axes need, one at least).
        align: widths are kept as multiples of this.
        steps: the same for single groups, by their ids.
    """

    floor: float = 0.1
    align: int = 1
    steps: Mapping[str, int] = field(default_factory=dict)

    def step(self, group: Group) -> int:
        """By how many units the kept number may change."""
        return self.steps.get(group.id, self.align) if group.kind in _WIDTHS else 1

    @property
    def coarsest(self) -> int:
        """The largest step of any group."""
        return max(self.steps.values(), default=self.align)

    def kept(self, group: Group, wanted: float) -> int:
        """Number of units to keep, at least ``wanted``."""
        floor = 0.0 if group.kind == "blocks" else self.floor  # a block is there, or not
        count = max(group.least, int(np.ceil(group.size * floor)), int(np.ceil(wanted - 1e-9)))
        step = self.step(group)
        count = -(-count // step) * step
        return min(count, group.size)

    def choices(self, group: Group) -> npt.NDArray[np.int64]:
        """All numbers of units that may be kept, the whole group first."""
        fewer = np.arange(self.kept(group, 0), group.size, self.step(group))
        return np.append(fewer, group.size)[::-1]
