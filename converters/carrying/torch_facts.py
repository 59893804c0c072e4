"""What has changed around a module: sizes, numbers of heads, sizes of a head, before and after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from graphprune.converters.carrying.source_cut import SizeChange, SourceCut

#: Kinds of groups that count something a module has a number for.
COUNTED = {"experts": "experts", "conv_groups": "groups", "norm_groups": "groups"}
#: Parts that projections are fused of: keys and values; queries, keys and values; gates.
PARTS = (1, 2, 3, 4)


@dataclass(frozen=True)
class Fact:
    """Something had the size ``before`` and has the size ``after``.

    Attributes:
        kind: ``size``, ``heads``, ``head_dim``, ``experts``, ``groups``, ``repeats``.
        before: as the module may have it in an attribute.
        after: what the attribute should then be.
        tensor: name of the tensor that shows it.
        axis: of this tensor.
        has_heads: do heads lie under the axis?
        steps: how far it is from what is known (0: a size or group itself).
    """

    kind: str
    before: int
    after: int
    tensor: str
    axis: int
    has_heads: bool
    steps: int = 0


@dataclass(frozen=True)
class Sizes:
    """Axis sizes before and after, and the groups under the axes."""

    cut: SourceCut
    before: Mapping[str, tuple[int, ...]]
    after: Mapping[str, tuple[int, ...]]

    def facts(self, names: list[str]) -> list[Fact]:
        """All facts that these tensors show."""
        axes = [(name, axis) for name in names for axis in range(len(self.before[name]))]
        found = [fact for name, axis in axes for fact in self._of_axis(name, axis)]
        heads = {(f.before, f.after) for f in found if f.kind == "heads" and f.steps < 2}
        dims = {(f.before, f.after) for f in found if f.kind == "head_dim" and f.steps < 2}
        if heads:
            more = [fact for name, axis in axes for fact in self._counts(name, axis, dims)]
            found += [fact for fact in more if fact.kind == "heads"]
            heads |= {(f.before, f.after) for f in more}
        found += _repeats(found, heads)
        return found

    def changes(self) -> dict[int | None, frozenset[int]]:
        """Sizes before -> sizes after, of all tensors; None -> sizes of a head after."""
        found: dict[int | None, set[int]] = {}
        for fact in self.facts(list(self.before)):
            found.setdefault(fact.before, set()).add(fact.after)
            if fact.kind == "head_dim":
                found.setdefault(None, set()).add(fact.after)
        return {old: frozenset(new) for old, new in found.items() if new != {old}}

    def _of_axis(self, name: str, axis: int) -> Iterator[Fact]:
        before, after = self.before[name][axis], self.after[name][axis]
        groups = self.cut.sizes.get(name, {}).get(axis, ())
        has_heads = any(g.kind in ("heads", "head_dim") for g in groups)
        for parts in PARTS:
            if before % parts == 0 and after % parts == 0:
                steps = 0 if parts == 1 else 2
                yield Fact("size", before // parts, after // parts, name, axis, has_heads, steps)
        for group in groups:
            yield from _of_group(group, name, axis, has_heads)
        kinds = {g.kind for g in groups}
        if len(kinds) == 1 and has_heads:  # all that shrinks are heads, or all that shrinks is their size
            kind = kinds.pop()
            for part in range(2, before):
                if before % part == 0 and part * after % before == 0:
                    yield Fact(kind, part, part * after // before, name, axis, True, 2)
        for group in groups:
            if group.kind != "heads" or before % group.before or not group.after or after % group.after:
                continue
            each, left = before // group.before, after // group.after
            for parts in PARTS:
                if each % parts == 0 and left % parts == 0:
                    steps = 1 if parts == 1 else 2
                    yield Fact("head_dim", each // parts, left // parts, name, axis, True, steps)

    def _counts(self, name: str, axis: int, dims: set[tuple[int, int]]) -> Iterator[Fact]:
        """Numbers of heads: an axis by the size of a head."""
        before, after = self.before[name][axis], self.after[name][axis]
        groups = self.cut.sizes.get(name, {}).get(axis, ())
        if not any(g.kind in ("heads", "head_dim") for g in groups):
            return
        for size, left in sorted(dims):
            if size > 1 and before % size == 0 and left and after % left == 0:
                yield Fact("heads", before // size, after // left, name, axis, True, 1)


def _of_group(group: SizeChange, name: str, axis: int, has_heads: bool) -> Iterator[Fact]:
    if group.kind == "heads":
        yield Fact("heads", group.before, group.after, name, axis, True)
        yield Fact("repeats", group.before, group.after, name, axis, True, 2)
    elif group.kind == "head_dim":
        yield Fact("head_dim", group.before, group.after, name, axis, True)
        # Rotary embeddings make one group of a head's two halves.
        yield Fact("head_dim", 2 * group.before, 2 * group.after, name, axis, True, 1)
    elif group.kind in COUNTED:
        yield Fact(COUNTED[group.kind], group.before, group.after, name, axis, has_heads)
    else:
        yield Fact("size", group.before, group.after, name, axis, has_heads, 1)


def _repeats(found: list[Fact], heads: set[tuple[int, int]]) -> list[Fact]:
    """How many heads of queries share one of keys."""
    shown = next((f for f in found if f.kind == "heads"), None)
    if shown is None:
        return []
    ratios = {
        (many // few, left // less)
        for many, left in heads
        for few, less in heads
        if few and less and many % few == 0 and left % less == 0
    }
    return [Fact("repeats", ratio, now, shown.tensor, shown.axis, True, 1) for ratio, now in sorted(ratios)]
