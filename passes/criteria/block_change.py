"""How much each residual branch or layer turns its input: the coarse half of CFSP, and depth importance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.blocks import Block
from graphprune.calibration.evidence import Evidence


def angular_changes(evidence: Evidence) -> dict[int, float]:
    """Unit of a block -> mean of ``arccos(cos(x_in, x_out)) / pi`` over positions, from 0 to 1.

    A branch's input is the other operand of its sum, its output the sum.
    """
    ends = {b.unit: ends_of(b) for b in evidence.graph.analysis.blocks}
    ends = {unit: pair for unit, pair in ends.items() if pair[0] is not None}
    wanted = list(dict.fromkeys(v for pair in ends.values() for v in pair if v is not None))
    if not wanted:
        return {}
    session = evidence.exposing(wanted)
    names = [output.name for output in session.get_outputs()]
    read = [value.name for value in session.get_inputs()]
    sums, counts = dict.fromkeys(ends, 0.0), dict.fromkeys(ends, 0)
    axes = {unit: feature_axis_of(evidence, pair[1]) for unit, pair in ends.items()}
    for batch, mask in zip(evidence.batches, evidence.masks, strict=True):
        found = dict(zip(names, session.run(names, {n: batch[n] for n in read}), strict=True)) | batch
        for unit, (source, result) in ends.items():
            assert source is not None
            angles = angles_between(found[source.name or ""], found[result.name or ""], axes[unit])
            if mask is not None and angles.shape[:2] == mask.shape:
                angles = angles[mask]
            sums[unit] += float(angles.sum())
            counts[unit] += angles.size
    return {unit: sums[unit] / max(counts[unit], 1) for unit in ends}


def block_of_node(blocks: Sequence[Block]) -> Mapping[ir.Node, int]:
    """The unit of the smallest block that each node is in."""
    by_size = sorted(blocks, key=lambda block: -len(block.nodes))
    return {node: block.unit for block in by_size for node in block.nodes}


def ends_of(block: Block) -> tuple[ir.Value | None, ir.Value]:
    """What a block is passed by, and what that becomes."""
    if block.user is None:
        return block.instead, block.value
    total, index = block.user
    others = [v for i, v in enumerate(total.inputs) if i != index and v is not None]
    return (others[0] if len(others) == 1 else None), total.outputs[0]


def feature_axis_of(evidence: Evidence, value: ir.Value) -> int:
    """The axis that units live on; the last one if several do."""
    axes = evidence.graph.analysis.axes.get(value.name or "", [])
    held = [d for d, axis in enumerate(axes) if not axis.is_plain]
    return held[-1] if held else -1


def angles_between(
    a: npt.NDArray[np.generic], b: npt.NDArray[np.generic], axis: int
) -> npt.NDArray[np.float64]:
    """``arccos(cos) / pi`` of the vectors along an axis."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    norms = np.linalg.norm(x, axis=axis) * np.linalg.norm(y, axis=axis)
    cosines = np.divide((x * y).sum(axis=axis), norms, out=np.ones_like(norms), where=norms > 0)
    return np.asarray(np.arccos(cosines.clip(-1.0, 1.0)) / np.pi)
