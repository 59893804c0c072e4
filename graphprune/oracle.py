"""The masking oracle: is the pruned model the original with the removed slices set to zero?

The reference is the *original* graph with its original sizes, in which the removed slices of all parameters
are zero.  Nodes whose statistic runs over a removed axis (norms, softmax, means) can't be expressed by zeros:
in the reference each of them works on the kept positions alone, between a Gather in front and a scatter back
behind it.  So every cut is checked, exact or not; for the latter the *statement* is that the statistic
now runs over what is left.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.analysis import Analysis
from graphprune.axes_kept import Keep, Keeps, touches
from graphprune.compare import compare_outputs, run, session
from graphprune.errors import ValidationError
from graphprune.foreign import foreign_nodes, runnable
from graphprune.model import Model
from graphprune.rewrite.context import RepairContext
from graphprune.rewrite.cut import in_memory, repair_node, slice_parameters, take
from graphprune.rewrite.sizes import CutSizes
from graphprune.sample_inputs import sample_inputs
from graphprune.sizes import Interface

Removed = npt.NDArray[np.bool_]
#: Operators that are not finite at zero, and the input in question.
_SINGULAR_AT_ZERO = {"Div": 1, "Mod": 1, "Reciprocal": 0, "Log": 0, "Pow": 0}
#: A few hundred units in the last place: sums of other lengths round differently, layer by layer.
_ROUNDING = {
    ir.DataType.DOUBLE: 1e-10,
    ir.DataType.FLOAT: 1e-4,
    ir.DataType.FLOAT16: 2e-2,
    ir.DataType.BFLOAT16: 1e-1,
}


#: Opset since which Pad takes its amounts as an input.
PADS_AS_INPUT = 11


@dataclass(frozen=True)
class Verdict:
    """Result of the oracle.

    Attributes:
        max_error: largest absolute difference over all outputs and runs.
        scale: largest absolute value of the reference outputs.
        runs: input sizes that were tried.
        exact: no statistic runs over a removed axis.
        statistics: nodes whose statistic now runs over the kept positions.
        not_run: nodes that onnxruntime does not know; what is before and behind them was compared.
    """

    max_error: float
    scale: float
    runs: list[dict[str, list[int]]]
    exact: bool
    statistics: list[str]
    not_run: list[str] = field(default_factory=list)


def masked_reference(analysis: Analysis, removed: Removed) -> tuple[Model, list[str]]:
    """The original graph with removed slices zeroed, and the nodes that work on kept positions only."""
    keeps = Keeps(analysis, removed)
    statistics = {
        node: None
        for axis, _, node in analysis.facts.statistics
        if removed[analysis.algebra.live(axis)].any()
    }
    embedded = statistics | dict.fromkeys(_singular_nodes(keeps))
    model = analysis.model.clone()
    nodes = dict(zip(analysis.model.ir.graph, model.ir.graph, strict=True))
    slice_parameters(analysis, keeps, nodes, zero, lambda use: use.is_zeroed and use.node not in embedded)
    slice_parameters(analysis, keeps, nodes, take, lambda use: use.node in embedded)
    sizes = CutSizes(analysis.trace, keeps)
    for old in embedded:
        repair_node(sizes, keeps, old, nodes[old])
        _embed(sizes, keeps, old, nodes[old])
    names = [f"{node.op_type} '{node.name or node.outputs[0].name}'" for node in statistics]
    return model, sorted(names)


def _singular_nodes(keeps: Keeps) -> list[ir.Node]:
    """Shrinking nodes that would compute 0/0 or log(0) from zeroed slices, and spread it as NaN."""
    found = []
    for node in keeps.analysis.model.ir.graph:
        index = _SINGULAR_AT_ZERO.get(node.op_type)
        if index is not None and (node, index) not in keeps.analysis.uses:
            masks = [*keeps.of_input(node, index), *keeps.of_output(node, 0)]
            if touches(tuple(masks)):
                found.append(node)
    return found


def zero(tensor: ir.TensorProtocol, keep: Keep, name: str) -> ir.TensorProtocol:
    """A tensor with zeros at the removed positions, read when needed."""

    def read() -> ir.TensorProtocol:
        array = tensor.numpy().copy()
        for d, mask in enumerate(keep):
            if mask is not None:
                array[(slice(None),) * d + (~mask,)] = 0
        return ir.tensor(array, dtype=tensor.dtype, name=name)

    shape = ir.Shape(tensor.shape.numpy())
    return ir.LazyTensor(read, dtype=tensor.dtype, shape=shape, cache=in_memory(tensor), name=name)


def _embed(sizes: CutSizes, keeps: Keeps, old: ir.Node, new: ir.Node) -> None:
    """Lets a node of the reference work on kept positions: Gather before, scatter back behind."""
    graph = new.graph
    assert isinstance(graph, ir.Graph)
    context = RepairContext(new, keeps.analysis.model.opset, (), (), sizes)
    for i, value in enumerate(new.inputs):
        if value is None or (old, i) in keeps.analysis.uses:
            continue
        for d, mask in enumerate(keeps.of_input(old, i)):
            if mask is not None:
                index = context.constant(f"kept_{i}_{d}", np.flatnonzero(mask))
                source = new.inputs[i]
                assert source is not None
                new.replace_input_with(
                    i, context.add_node("Gather", [source, index], f"kept_{i}_{d}_in", {"axis": d})
                )
    for i, output in enumerate(new.outputs):
        masks = keeps.of_output(old, i)
        for d, mask in enumerate(masks):
            if mask is not None:
                _scatter_back(graph, context, output, len(masks), d, mask)


def _scatter_back(
    graph: ir.Graph,
    context: RepairContext,
    output: ir.Value,
    rank: int,
    d: int,
    mask: npt.NDArray[np.bool_],
) -> None:
    """Zeros at removed positions: one zero is appended, and a Gather puts everything in place."""
    kept = int(mask.sum())
    pads = [0] * (2 * rank)
    pads[rank + d] = 1
    where = np.where(mask, np.cumsum(mask) - 1, kept)
    users = [(node, i) for node, i in output.uses()]
    if context.opset < PADS_AS_INPUT:
        padded = ir.node("Pad", [output], {"pads": pads})
    else:
        amounts = context.constant(f"pads_{output.name}_{d}", np.array(pads, np.int64))
        padded = ir.node("Pad", [output, amounts])
    padded.outputs[0].name = f"{output.name}/padded_{d}"
    index = context.constant(f"back_{output.name}_{d}", where)
    back = ir.node("Gather", [padded.outputs[0], index], {"axis": d})
    back.outputs[0].name = f"{output.name}/back_{d}"
    graph.insert_after(context.node, [padded, back])
    for node, i in users:
        node.replace_input_with(i, back.outputs[0])


def rounding(model: Model) -> float:
    """Tolerance for the coarsest floating-point type among a model's weights."""
    types = {v.const_value.dtype for v in model.ir.graph.initializers.values() if v.const_value is not None}
    return max((_ROUNDING[t] for t in types if t in _ROUNDING), default=_ROUNDING[ir.DataType.FLOAT])


def run_sizes(analysis: Analysis) -> list[dict[str, int]]:
    """Two sets of input sizes: the nominal ones, and others, with a batch of two."""
    nominal = dict(analysis.trace.nominal_dims)
    other = dict(analysis.trace.dims)
    for dim in Interface(analysis.model.ir).dims:
        if dim.role == "batch" and nominal[dim.name] == 1:
            other[dim.name] = 2
    return [nominal] if other == nominal else [other, nominal]


def verify(
    analysis: Analysis,
    removed: Removed,
    pruned: Model,
    *,
    seed: int = 0,
    tolerance: float | None = None,
) -> Verdict:
    """Runs the oracle under the analysis sizes and under the nominal ones.

    Args:
        analysis: of the original.
        removed: the removed units.
        pruned: the model to check.
        seed: of the random inputs.
        tolerance: largest accepted difference as a fraction of the outputs' largest magnitude; None:
            what the rounding of the model's own number type allows.

    Raises:
        ValidationError: the outputs differ, or one of the models does not run.
    """
    reference, statistics = masked_reference(analysis, removed)
    not_run = [f"{n.op_type} '{n.name}'" for n in foreign_nodes(analysis.model.ir.graph)]
    verdict = Verdict(0.0, 0.0, [], not statistics, statistics, not_run)
    original = runnable(analysis.model)
    if not original.ir.graph.outputs:
        message = "no part of the model can be run"
        because = f"onnxruntime does not know {not_run[0]}, and the shape of what it makes is not declared"
        raise ValidationError(message, because=because, hint="--no-verify")
    expected, actual = session(runnable(reference)), session(runnable(pruned))
    accepted = rounding(analysis.model) if tolerance is None else tolerance
    for number, dims in enumerate(run_sizes(analysis)):
        feeds = sample_inputs(original, dims, np.random.default_rng(seed + number))
        differences = compare_outputs(run(expected, feeds), run(actual, feeds))
        shapes = {name: list(array.shape) for name, array in feeds.items()}
        verdict = replace(
            verdict,
            max_error=max(verdict.max_error, *(d.max_error for d in differences)),
            scale=max(verdict.scale, *(d.scale for d in differences)),
            runs=[*verdict.runs, shapes],
        )
        for difference in differences:
            if not np.isfinite(difference.scale) or difference.compared == 0:
                message = f"output '{difference.output}' is not finite on random inputs"
                raise ValidationError(
                    message,
                    because="the pruned model can't be verified on it; nothing was written",
                    hint="--no-verify, if the original is known to be right",
                )
            if not difference.within(accepted):
                message = f"the pruned model differs from the masked original by {difference.max_error:.3g}"
                raise ValidationError(
                    message,
                    where=f"output '{difference.output}', values up to {difference.scale:.3g}",
                    because="the cut is not what the plan says; nothing was written",
                    hint="please report this model's `graphprune inspect --json`",
                )
    return verdict
