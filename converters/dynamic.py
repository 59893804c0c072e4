"""Which axes stay symbolic: the batch by default, more by ``--dynamic input:axis=name``."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import onnx

from graphprune.errors import UsageError

Axes = Mapping[str, Mapping[int, str]]


def parse_dynamic(items: Iterable[str]) -> dict[str, dict[int, str]]:
    """Reads ``["ids:1=sequence", ...]`` into ``{"ids": {1: "sequence"}}``.

    Raises:
        UsageError: an item has another form.
    """
    axes: dict[str, dict[int, str]] = {}
    for item in items:
        key, equals, dim = item.partition("=")
        name, colon, axis = key.rpartition(":")
        if not (equals and colon and name and dim.isidentifier() and axis.isdecimal()):
            what = f"cannot read the dynamic axis '{item}'"
            raise UsageError(what, hint="--dynamic input_ids:1=sequence")
        axes.setdefault(name, {})[int(axis)] = dim
    return axes


def resolve(
    shapes: Mapping[str, Sequence[int]], extra: Axes | None, batch: str | None
) -> dict[str, dict[int, str]]:
    """The symbolic axes of every input.

    Args:
        shapes: example shape of each input.
        extra: axes asked for by name.
        batch: name for the first axis of each input that has the first input's length there; None
            leaves it fixed.

    Raises:
        UsageError: ``extra`` names an input or an axis that does not exist.
    """
    axes: dict[str, dict[int, str]] = {name: {} for name in shapes}
    length = next((shape[0] for shape in shapes.values() if shape), None)
    for name, shape in shapes.items():
        if batch and shape and shape[0] == length:
            axes[name][0] = batch
    for name, wanted in (extra or {}).items():
        if name not in shapes:
            what = f"there is no input '{name}' to make dynamic"
            raise UsageError(what, because=f"the inputs are {', '.join(shapes)}")
        for axis, dim in wanted.items():
            if not 0 <= axis < len(shapes[name]):
                what = f"input '{name}' has no axis {axis}"
                raise UsageError(what, because=f"its example has shape {list(shapes[name])}")
            axes[name][axis] = dim
    return axes


def name_batch(model: onnx.ModelProto, names: Collection[str], batch: str = "batch") -> None:
    """Names the free first axes of these inputs and outputs; exporters call them ``unk__12``, or nothing."""
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.name in names and dims and not dims[0].HasField("dim_value"):
            dims[0].dim_param = batch
