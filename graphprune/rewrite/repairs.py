"""Repairs, operator by operator."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from graphprune.axes_kept import Mask
from graphprune.rewrite.context import RepairContext
from graphprune.rewrite.registry import repair


def compact(keep: Mask | None, index: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where positions ``index`` stand once only ``keep`` is left."""
    return index if keep is None else (np.cumsum(keep) - 1)[index]


@repair("Conv", "ConvTranspose")
def groups_of_convolution(ctx: RepairContext) -> None:
    """``group`` counts the groups that stay."""
    _count_groups(ctx, "group", default=1)


@repair("GroupNormalization")
def groups_of_norm(ctx: RepairContext) -> None:
    """``num_groups`` counts the groups that stay."""
    _count_groups(ctx, "num_groups", default=1)


def _count_groups(ctx: RepairContext, name: str, default: int) -> None:
    keep, groups = ctx.keep_in[0][1], ctx.attr_int(name, default)
    if groups > 1 and keep is not None:
        ctx.set_attr(name, int(keep.reshape(groups, -1).any(axis=1).sum()))


@repair("Reshape")
def reshape(ctx: RepairContext) -> None:
    """Sizes in the target follow; -1 stays, and 0 (copy) stays where the copied axis shrinks alike."""
    entries = ctx.new_sizes()
    target = ctx.ints(1)
    if target is not None:
        for d in list(entries):
            if target[d] == -1:
                del entries[d]
            elif target[d] == 0 and not ctx.attr_int("allowzero", 0):
                copied = ctx.keep_in[0][d]
                if copied is not None and int(copied.sum()) == entries[d]:
                    del entries[d]
        for d, n in enumerate(target):
            # A copied axis that shrinks while the result does not: the size has to be spelled out.
            copies = n == 0 and not ctx.attr_int("allowzero", 0)
            if copies and d not in ctx.new_sizes() and ctx.keep_in[0][d] is not None:
                entries[d] = ctx.shape_out()[d]
    ctx.patch_shape(1, entries)


@repair("Squeeze")
def squeeze(ctx: RepairContext) -> None:
    """Without axes all axes of size 1 go: they are named before another one becomes that small."""
    if ctx.has(1) or ctx.attr_ints("axes") is not None:
        return
    axes = [d for d, n in enumerate(ctx.shape_in(0)) if n == 1]
    if ctx.opset < 13:
        ctx.set_attr("axes", axes)
    else:
        ctx.set_ints(1, axes, "axes")


@repair("Expand")
def expand(ctx: RepairContext) -> None:
    """The shape input is aligned at the right of the output."""
    given = ctx.shape_in(1)[0]
    rank = len(ctx.shape_out())
    sizes = {d - (rank - given): n for d, n in ctx.new_sizes().items()}
    old = ctx.ints(1)
    entries = {d: n for d, n in sizes.items() if d >= 0 and (old is None or old[d] != 1)}
    ctx.patch_shape(1, entries)


@repair("ConstantOfShape")
def constant_of_shape(ctx: RepairContext) -> None:
    """The shape input is the output's shape."""
    ctx.patch_shape(0, ctx.new_sizes())


@repair("Tile")
def tile(ctx: RepairContext) -> None:
    """Repeats are new sizes divided."""
    entries = {}
    for d, n in ctx.new_sizes().items():
        keep = ctx.keep_in[0][d]
        size = ctx.shape_in(0)[d] if keep is None else int(keep.sum())
        entries[d] = n // size
    ctx.patch_shape(1, entries)


@repair("Resize", "Upsample")
def resize(ctx: RepairContext) -> None:
    """Target sizes of carried axes follow; scales of 1 stay."""
    if ctx.node.op_type == "Upsample" or not ctx.has(3):
        return
    axes = ctx.attr_ints("axes")
    rank = len(ctx.shape_out())
    where = [d % rank for d in axes] if axes is not None else list(range(rank))
    sizes = ctx.new_sizes()
    ctx.patch_shape(3, {i: sizes[d] for i, d in enumerate(where) if d in sizes})


@repair("Split")
def split(ctx: RepairContext) -> None:
    """Sizes of the pieces become explicit; a piece of which nothing is left is empty until all is repaired.

    They are counted in the input: a piece of one position has an axis that can't shrink, but dies whole.
    """
    at = ctx.attr_int("axis", 0) % len(ctx.shape_in(0))
    keep = ctx.keep_in[0][at]
    if keep is None:
        return
    sizes, start = [], 0
    for i in range(len(ctx.node.outputs)):
        end = start + ctx.shape_out(i)[at]
        sizes.append(int(keep[start:end].sum()))
        start = end
    if ctx.opset < 13:
        ctx.set_attr("split", sizes)
        return
    ctx.drop_attr("num_outputs")
    ctx.set_ints(1, sizes, "split")


@repair("Gather")
def gather(ctx: RepairContext) -> None:
    """Constant indices point to where their positions stand now; removed ones go."""
    value = ctx.node.inputs[1]
    if value is None or value.const_value is None:
        return
    at = ctx.attr_int("axis", 0) % len(ctx.shape_in(0))
    index = value.const_value.numpy()
    new = np.asarray(index, np.int64) % ctx.shape_in(0)[at]
    for d in range(new.ndim):
        keep = ctx.keep_out[0][at + d]
        if keep is not None:
            new = np.compress(keep, new, axis=d)
    new = compact(ctx.keep_in[0][at], new)
    if new.shape != index.shape or (new != index).any():
        ctx.node.replace_input_with(1, ctx.constant("indices", new.astype(index.dtype)))


@repair("Pad")
def pad(ctx: RepairContext) -> None:
    """Padded positions are counted again."""
    rank = len(ctx.shape_in(0))
    pads = ctx.ints(1) if ctx.opset >= 11 else ctx.attr_ints("pads") or ctx.attr_ints("paddings")
    axes = ctx.ints(3) if ctx.has(3) else None
    where = [d % rank for d in axes] if axes is not None else list(range(rank))
    if pads is None:
        return
    new = list(pads)
    for i, d in enumerate(where):
        keep = ctx.keep_out[0][d]
        before, after = pads[i], pads[i + len(where)]
        if keep is not None and (before or after):
            new[i] = int(keep[:before].sum())
            new[i + len(where)] = int(keep[len(keep) - after :].sum())
    if new == list(pads):
        return
    if ctx.opset >= 11:
        ctx.set_ints(1, new, "pads")
    else:
        ctx.set_attr("pads" if ctx.opset >= 2 else "paddings", new)


@repair("Slice")
def slice_(ctx: RepairContext) -> None:
    """Starts and ends move; positions that are no longer evenly spaced are gathered."""
    from_inputs = ctx.opset >= 10
    shape = ctx.shape_in(0)
    starts = ctx.ints(1) if from_inputs else ctx.attr_ints("starts")
    ends = ctx.ints(2) if from_inputs else ctx.attr_ints("ends")
    axes = ctx.ints(3) if from_inputs else ctx.attr_ints("axes")
    steps = ctx.ints(4) if from_inputs else None
    if starts is None or ends is None:
        return
    axes = [d % len(shape) for d in axes] if axes is not None else list(range(len(starts)))
    steps = steps if steps is not None else [1] * len(starts)
    new_starts, new_ends, new_steps = list(starts), list(ends), list(steps)
    for i, d in enumerate(axes):
        keep = ctx.keep_in[0][d]
        if keep is None:
            continue
        end: int | None = ends[i]
        if steps[i] < 0 and ends[i] < -shape[d]:
            end = None
        chosen = np.arange(shape[d])[slice(starts[i], end, steps[i])]
        now = compact(keep, chosen[keep[chosen]])
        distances = set(np.diff(now).tolist())
        if not len(now):
            new_starts[i], new_ends[i], new_steps[i] = 0, 0, 1
        elif len(distances) > 1 or (len(distances) == 1 and not distances <= {1, -1}):
            index = ctx.constant(f"positions_{d}", now)
            data = ctx.node.inputs[0]
            assert data is not None
            ctx.node.replace_input_with(0, ctx.add_node("Gather", [data, index], f"pick_{d}", {"axis": d}))
            new_starts[i], new_ends[i], new_steps[i] = 0, len(now), 1
        elif distances == {-1}:
            new_starts[i], new_steps[i] = int(now[0]), -1
            new_ends[i] = int(now[-1]) - 1 if now[-1] > 0 else -int(keep.sum()) - 1
        else:
            new_starts[i], new_ends[i], new_steps[i] = int(now[0]), int(now[-1]) + 1, 1
    if not from_inputs:
        ctx.set_attr("starts", new_starts)
        ctx.set_attr("ends", new_ends)
        return
    ctx.set_ints(1, new_starts, "starts")
    ctx.set_ints(2, new_ends, "ends")
    if ctx.has(4):
        ctx.set_ints(4, new_steps, "steps")


@repair("Equal")
def equal(ctx: RepairContext) -> None:
    """Positions in constants are counted again."""
    for i, other in ((0, 1), (1, 0)):
        keep, value = ctx.keep_index[i], ctx.node.inputs[other]
        if keep is not None and value is not None and value.const_value is not None:
            old = value.const_value.numpy()
            new = compact(keep, np.asarray(old, np.int64))
            ctx.node.replace_input_with(other, ctx.constant("positions", new.astype(old.dtype)))


@repair("OneHot")
def one_hot(ctx: RepairContext) -> None:
    """As many classes as positions are left."""
    if ctx.keep_index[0] is not None:
        ctx.set_ints(1, np.full(ctx.shape_in(1), int(ctx.keep_index[0].sum())), "depth")
