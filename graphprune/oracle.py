"""The masking oracle: is the pruned model the original with the removed slices set to zero?

The reference is the *original* graph with its original sizes, in which the removed slices of all parameters
are zero.  Nodes whose statistic runs over a removed axis (norms, softmax, means) can't be expressed by zeros:
in the reference each of them works on the kept positions alone, between a Gather in front and a scatter back
behind it.  So every cut is checked, exact or not; for the latter the *statement* is that the statistic
now runs over what is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.analysis import Analysis
from graphprune.axes_kept import Keep, Keeps, touches
from graphprune.compare import Difference, compare_outputs, run, session
from graphprune.errors import ValidationError
from graphprune.foreign import foreign_nodes, runnable
from graphprune.model import Model
from graphprune.noise import random_weights
from graphprune.rewrite.context import RepairContext
from graphprune.rewrite.cut import cut, in_memory, repair_node, slice_parameters, take
from graphprune.rewrite.sizes import CutSizes
from graphprune.sample_inputs import sample_inputs
from graphprune.shapes.sizes import Interface

Removed = npt.NDArray[np.bool_]
#: Operators that are not finite at zero, and the input in question.
_SINGULAR_AT_ZERO = {
    "Div": 1, "Mod": 1, "Reciprocal": 0, "Log": 0, "Pow": 0, "ReduceLogSum": 0, "ReduceLogSumExp": 0,
}  # fmt: skip
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


@dataclass(frozen=True)
class Reference:
    """What the pruned model must equal.

    Attributes:
        model: original sizes, removed slices at zero.
        statistics: nodes that work on kept positions only because a statistic runs over the cut.
        as_analysed: positions are held along a runtime size, so only the analysis sizes can be run.
    """

    model: Model
    statistics: list[str]
    as_analysed: bool


def masked_reference(analysis: Analysis, removed: Removed) -> Reference:
    """The original graph with removed slices zeroed."""
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
    return Reference(model, sorted(names), any(_cuts_runtime_size(keeps, node) for node in embedded))


def _cuts_runtime_size(keeps: Keeps, node: ir.Node) -> bool:
    values = [*((v, keeps.of_input(node, i)) for i, v in enumerate(node.inputs) if v is not None)]
    values += [(v, keeps.of_output(node, i)) for i, v in enumerate(node.outputs)]
    trace = keeps.analysis.trace
    return any(
        mask is not None and not value.is_initializer() and trace.is_dynamic(value.name or "", d)
        for value, masks in values
        for d, mask in enumerate(masks)
    )


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


def run_sizes(analysis: Analysis, *, as_analysed: bool) -> list[dict[str, int]]:
    """Two sets of input sizes: the nominal ones, and others, with a batch of two.

    Only those of the analysis when the reference holds positions along a runtime size (batch times heads).
    """
    if as_analysed:
        return [dict(analysis.trace.dims)]
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
    reference = masked_reference(analysis, removed)
    not_run = [f"{n.op_type} '{n.name}'" for n in foreign_nodes(analysis.model.ir.graph)]
    verdict = Verdict(0.0, 0.0, [], not reference.statistics, reference.statistics, not_run)
    original = runnable(analysis.model)
    if not original.ir.graph.outputs:
        message = "no part of the model can be run"
        because = f"onnxruntime does not know {not_run[0]}, and the shape of what it makes is not declared"
        raise ValidationError(message, because=because, hint="--no-verify")
    accepted = rounding(analysis.model) if tolerance is None else tolerance
    sizes = run_sizes(analysis, as_analysed=reference.as_analysed)
    feeds = [sample_inputs(original, s, np.random.default_rng(seed + i)) for i, s in enumerate(sizes)]
    for given, differences in zip(feeds, _differences(reference.model, pruned, feeds), strict=True):
        verdict = replace(
            verdict,
            max_error=max(verdict.max_error, *(d.max_error for d in differences)),
            scale=max(verdict.scale, *(d.scale for d in differences)),
            runs=[*verdict.runs, {name: list(array.shape) for name, array in given.items()}],
        )
        for difference in differences:
            if difference.compared == 0:
                message = f"output '{difference.output}' is not finite on random inputs"
                raise ValidationError(
                    message,
                    because="the pruned model can't be verified on it; nothing was written",
                    hint="--no-verify, if the original is known to be right",
                )
            _require_equal(difference, accepted, "the masked original")
    with random_weights(analysis, seed):
        noisy = masked_reference(analysis, removed).model, cut(analysis, removed)
    for differences in _differences(*noisy, feeds[:1]):
        for difference in differences:
            if difference.compared and np.isfinite(difference.max_error):
                _require_equal(difference, accepted, "the masked original, both with random weights,")
    return verdict


def _differences(
    reference: Model, pruned: Model, feeds: Sequence[Mapping[str, npt.NDArray[np.generic]]]
) -> Iterator[list[Difference]]:
    expected, actual = session(runnable(reference)), session(runnable(pruned))
    for given in feeds:
        yield compare_outputs(run(expected, given), run(actual, given))


def _require_equal(difference: Difference, tolerance: float, what: str) -> None:
    if not difference.within(tolerance):
        message = f"the pruned model differs from {what} by {difference.max_error:.3g}"
        raise ValidationError(
            message,
            where=f"output '{difference.output}', values up to {difference.scale:.3g}",
            because="the cut is not what the plan says; nothing was written",
            hint="please report this model's `graphprune inspect --json`",
        )
