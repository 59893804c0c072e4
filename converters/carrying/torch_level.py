"""Heads of one size, for modules that have one number for the size of keys and of values.

A plan may leave 24 of 32 dimensions to queries and keys and 20 to values. Where a module's code knows only
one size of a head, the smaller side is filled up with zeros: the same function, a few weights more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from graphprune.converters.carrying.source_cut import Array, SizeChange, SourceCut
from graphprune.converters.carrying.torch_arrays import slots
from graphprune.converters.carrying.torch_attributes import near
from torch import nn

from graphprune.errors import ModelError
from graphprune.plan import Plan


def level(
    module: nn.Module, plan: Plan, cut: SourceCut, arrays: Mapping[str, Array]
) -> tuple[SourceCut, tuple[str, ...]] | None:
    """The cut with fewer dimensions of heads removed; None if no module has heads of two sizes.

    Args:
        module: uncut.
        plan: that is carried.
        cut: what it means for the arrays.
        arrays: of the uncut module.

    Returns:
        the new cut, and the names of the arrays that get zeros.

    Raises:
        ModelError: an axis is not made of heads in a known order.
    """
    targets = _targets(module, cut, arrays)
    if not targets:
        return None
    units = {g.id: np.array(g.keep, np.int64) for g in plan.groups}
    sizes = {g.id: g.size for g in plan.groups}
    more = units | {g: _with_more(units[g], sizes[g], count) for g, count in targets.items()}
    kept = {name: dict(axes) for name, axes in cut.kept.items()}
    changes = {name: dict(axes) for name, axes in cut.sizes.items()}
    values = dict(cut.values)
    weights = dict(module.named_parameters())
    filled: list[str] = []
    for name, axes in cut.sizes.items():
        held = {
            axis: [g for g in found if g.kind == "head_dim"]
            for axis, found in axes.items()
            if any(g.group in targets for g in found)
        }
        if name not in arrays or not held:
            continue
        for axis in held:
            size = arrays[name].shape[axis]
            old = np.asarray(kept[name].get(axis, np.arange(size)))
            pairs = [(sizes[g.group], units[g.group], more[g.group]) for g in held[axis]]
            kept[name][axis] = _extended(old, size, pairs, f"{name}:{axis}")
            changes[name][axis] = tuple(
                replace(g, after=targets.get(g.group, g.after)) for g in changes[name][axis]
            )
        if name in weights or name in values:
            filled.append(name)
            values[name] = _filled(arrays[name], cut, name, kept[name])
    return replace(cut, kept=kept, sizes=changes, values=values), tuple(filled)


def _targets(module: nn.Module, cut: SourceCut, arrays: Mapping[str, Array]) -> dict[str, int]:
    """How many units the groups get that share a module with a larger one."""
    by_path: dict[str, list[str]] = {}
    apart = {id(m) for a in module.modules() if isinstance(a, nn.MultiheadAttention) for m in a.modules()}
    for slot in slots(module):
        if id(slot.owner) not in apart:  # these can have both sizes
            by_path.setdefault(slot.path, []).append(slot.name)
    sets: list[dict[str, SizeChange]] = []
    for path, m in module.named_modules():
        names = near(path, m, by_path)
        found = {
            g.group: g
            for name in names
            for groups in cut.sizes.get(name, {}).values()
            for g in groups
            if g.kind == "head_dim"
        }
        if found and _has_whole(names, cut, arrays):
            full = max(g.before for g in found.values())
            found[""] = SizeChange("", "head_dim", full, full)
        if len(found) > 1:
            sets.append(found)
    targets: dict[str, int] = {}
    changed = True
    while changed:  # a group may be shared by all layers, and lift them all
        changed = False
        for found in sets:
            full = max(g.before for g in found.values())
            parts = {g.group: full // g.before for g in found.values() if full % g.before == 0}
            now = {k: n * targets.get(k, found[k].after) for k, n in parts.items()}
            if len(set(now.values())) < 2:
                continue
            most = -(-max(now.values()) // max(parts.values())) * max(parts.values())
            for k, n in parts.items():
                if k and targets.get(k, found[k].after) != most // n:
                    targets[k], changed = most // n, True
    return targets


def _has_whole(names: list[str], cut: SourceCut, arrays: Mapping[str, Array]) -> bool:
    """Do heads of the full size stand beside those of a smaller one?"""
    apart = [n for n in names if not any(_sizes_of_heads(cut, n, axis) for axis in cut.sizes.get(n, {}))]
    for name in names:
        for axis in cut.sizes.get(name, {}):
            found = _sizes_of_heads(cut, name, axis)
            if not found or name not in arrays:
                continue
            shape, size = arrays[name].shape, found[0].before
            kept = np.isin(np.arange(shape[axis]), cut.kept.get(name, {}).get(axis, np.arange(shape[axis])))
            if shape[axis] % size == 0 and kept.reshape(-1, size).all(axis=1).any():
                return True
            for other in apart:
                theirs = arrays[other].shape if other in arrays else ()
                is_cut = axis in cut.kept.get(other, {})
                if len(theirs) == len(shape) > 1 and theirs[axis] == shape[axis] and not is_cut:
                    return True
    return False


def _sizes_of_heads(cut: SourceCut, name: str, axis: int) -> list[SizeChange]:
    return [g for g in cut.sizes.get(name, {}).get(axis, ()) if g.kind == "head_dim"]


def _with_more(units: np.ndarray, size: int, count: int) -> np.ndarray:
    """These units, and the first others, ``count`` of them."""
    others = np.setdiff1d(np.arange(size), units)[: max(count - len(units), 0)]
    return np.sort(np.concatenate([units, others]))


def _extended(
    kept: np.ndarray, size: int, pairs: list[tuple[int, np.ndarray, np.ndarray]], where: str
) -> np.ndarray:
    """The kept positions of an axis, with more units of each of its heads."""
    is_kept = np.zeros(size, bool)
    is_kept[kept] = True
    for runs in _layouts(is_kept, pairs[0][0]):
        new = [_head(row, pairs) for row in runs.reshape(-1, pairs[0][0])]
        if all(row is not None for row in new):
            runs[...] = np.array(new).reshape(runs.shape)
            return np.flatnonzero(is_kept)
    what = f"the heads in '{where}' can't be brought to one size"
    raise ModelError(what, because="they do not lie there one after the other")


def _layouts(is_kept: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Views whose last axis runs over the units of one head: whole, or every second entry."""
    if len(is_kept) % size == 0:
        yield is_kept.reshape(-1, size)
    if len(is_kept) % (2 * size) == 0:
        yield is_kept.reshape(-1, size, 2).transpose(0, 2, 1)


def _head(row: np.ndarray, pairs: list[tuple[int, np.ndarray, np.ndarray]]) -> np.ndarray | None:
    """What stays of one head; None if it is not cut as one of the groups is."""
    if not row.any() or row.all():
        return row
    for size, old, new in pairs:
        if size == len(row) and np.array_equal(np.flatnonzero(row), old):
            found = np.zeros(size, bool)
            found[new] = True
            return found
    return None


def _filled(array: Array, cut: SourceCut, name: str, kept: Mapping[int, np.ndarray]) -> Array:
    """The values of the cut array, and zeros at the positions that are there in addition."""
    old = cut.kept.get(name, {})
    values = cut.values.get(name)
    if values is None:
        values = array
        for axis, positions in old.items():
            values = values.take(positions, axis=axis)
    shape = [len(kept[a]) if a in kept else n for a, n in enumerate(array.shape)]
    found = np.zeros(shape, array.dtype)
    places = [
        np.searchsorted(kept[a], old.get(a, np.arange(n))) if a in kept else np.arange(n)
        for a, n in enumerate(array.shape)
    ]
    found[np.ix_(*places)] = values
    return found
