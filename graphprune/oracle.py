"""The masking oracle: is the pruned model the original with the removed slices set to zero?

The reference is the *original* graph with its original sizes, in which the removed slices of all parameters
are zero.  Nodes whose statistic runs over a removed axis (norms, softmax, means) can't be expressed by zeros:
in the reference each of them works on the kept positions alone, between a Gather in front and a scatter back
behind it.  So every cut is checked, exact or not; for the latter the *statement* is that the statistic
now runs over what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.analysis import Analysis, Use
from graphprune.as_read import require_as_read
from graphprune.axes_kept import Keep, Keeps, touches
from graphprune.compare import Difference, compare_outputs, run, session
from graphprune.deaths import Deaths
from graphprune.errors import ValidationError
from graphprune.feasible_inputs import feasible_inputs
from graphprune.foreign import foreign_nodes, is_runnable, runnable
from graphprune.kept_positions import KeptPositions
from graphprune.model import Model
from graphprune.noise import noisy_differences, random_weights
from graphprune.paths import Path, on_path, paths
from graphprune.quantization import zero_points
from graphprune.rewrite.context import RepairContext
from graphprune.rewrite.cut import cut, in_memory, repair_node, slice_parameters, take
from graphprune.rewrite.operands import bypass_layers
from graphprune.rewrite.sizes import CutSizes
from graphprune.shapes.sizes import Interface
from graphprune.tolerance import computed
from graphprune.tolerance import rounding as rounding
from graphprune.unrounded import without_rounding

Removed = npt.NDArray[np.bool_]
#: Operators that are not finite at zero, and the input in question.
_SINGULAR_AT_ZERO = {
    "Div": 1, "Mod": 1, "Reciprocal": 0, "Log": 0, "Pow": 0, "ReduceLogSum": 0, "ReduceLogSumExp": 0,
}  # fmt: skip
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
        statistics: nodes whose statistic now runs over the kept positions, and layers that are left out.
        not_run: nodes that onnxruntime does not know; what is before and behind them was compared.
        parts: how many parts of a large model were compared, of how many that are cut; None: all of it was.
    """

    max_error: float
    scale: float
    runs: list[dict[str, list[int]]]
    exact: bool
    statistics: list[str]
    not_run: list[str] = field(default_factory=list)
    parts: tuple[int, int] | None = None


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
    # What can't be run needs no reference: the pieces before and behind it are compared.
    embedded = [node for node in statistics | dict.fromkeys(_singular_nodes(keeps)) if is_runnable(node)]
    model = analysis.model.clone()
    nodes = dict(zip(analysis.model.ir.graph.all_nodes(), model.ir.graph.all_nodes(), strict=True))
    zeroed = {k for k, use in analysis.uses.items() if use.is_zeroed and use.node not in embedded}
    shifted = _shifted_uses(analysis, keeps, zeroed)
    for points, keys in shifted:
        slice_parameters(analysis, keeps, nodes, partial(zero, points=points), _one_of(keys))
    slice_parameters(analysis, keeps, nodes, zero, _one_of(zeroed.difference(*(keys for _, keys in shifted))))
    slice_parameters(analysis, keeps, nodes, take, lambda use: use.node in embedded)
    sizes = CutSizes(analysis.trace, keeps)
    # Before the others: what they put behind a node reaches those that now read it in place of a layer.
    _silence_blocks(analysis, removed, nodes, sizes)
    for old in embedded:
        repair_node(sizes, keeps, old, nodes[old])
        _embed(sizes, keeps, old, nodes[old])
    names = [f"{node.op_type} '{node.name or node.outputs[0].name}'" for node in statistics]
    names += [
        f"layer '{block.value.name}', in whose place its input stands"
        for block in analysis.blocks
        if removed[block.unit] and block.instead is not None
    ]
    return Reference(model, sorted(names), any(_cuts_runtime_size(keeps, node) for node in embedded))


def _silence_blocks(
    analysis: Analysis, removed: Removed, nodes: Mapping[ir.Node, ir.Node], sizes: CutSizes
) -> None:
    """Removed branches minus themselves; the inputs of removed layers in place of their outputs."""
    for block in analysis.blocks:
        if removed[block.unit] and block.user is not None:
            user, i = nodes[block.user[0]], block.user[1]
            value = user.inputs[i]
            assert value is not None
            context = RepairContext(user, analysis.model.opset, (), (), sizes)
            user.replace_input_with(i, context.add_node("Sub", [value, value], f"silent_{i}"))
    bypass_layers(nodes, Deaths(analysis).bypassed(removed))


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
    for node in keeps.analysis.model.ir.graph.all_nodes():
        index = _SINGULAR_AT_ZERO.get(node.op_type)
        if index is not None and (node, index) not in keeps.analysis.uses:
            masks = [*keeps.of_input(node, index), *keeps.of_output(node, 0)]
            if touches(tuple(masks)):
                found.append(node)
    return found


def _one_of(keys: Collection[tuple[ir.Node, int]]) -> Callable[[Use], bool]:
    return lambda use: (use.node, use.index) in keys


def _shifted_uses(
    analysis: Analysis, keeps: Keeps, keys: Collection[tuple[ir.Node, int]]
) -> list[tuple[npt.NDArray[np.generic], set[tuple[ir.Node, int]]]]:
    """Shrinking quantized constants in which zero is written as another number: uses of equal zero points."""
    found: dict[tuple[bytes, tuple[int, ...]], tuple[npt.NDArray[np.generic], set[tuple[ir.Node, int]]]] = {}
    for node, i in keys:
        use = analysis.uses[node, i]
        tensor = use.value.const_value
        points = zero_points(node, i, tuple(tensor.shape.numpy())) if tensor is not None else None
        if points is not None and touches(keeps.of_use(use)):
            found.setdefault((points.tobytes(), points.shape), (points, set()))[1].add((node, i))
    return list(found.values())


def zero(
    tensor: ir.TensorProtocol, keep: Keep, name: str, points: npt.NDArray[np.generic] | None = None
) -> ir.TensorProtocol:
    """A tensor with zeros (or what stands for zero) at the removed positions, read when needed."""

    def read() -> ir.TensorProtocol:
        array = tensor.numpy().copy()
        for d, mask in enumerate(keep):
            if mask is not None:
                gone = (slice(None),) * d + (~mask,)
                array[gone] = 0 if points is None else points[gone]
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
        counted = keeps.analysis.facts.indexes.get(output.name or "")
        if counted is not None and (mask := keeps.of(counted)) is not None:
            _count_as_before(graph, context, output, mask)
        masks = keeps.of_output(old, i)
        for d, mask in enumerate(masks):
            if mask is not None:
                _scatter_back(graph, context, output, len(masks), d, mask)


def _count_as_before(
    graph: ir.Graph, context: RepairContext, output: ir.Value, mask: npt.NDArray[np.bool_]
) -> None:
    """Positions among the kept ones as positions in the original."""
    dtype = output.dtype.numpy() if output.dtype is not None else np.dtype(np.int64)
    numbers = context.constant(f"positions_{output.name}", np.flatnonzero(mask).astype(dtype))
    users = [(node, i) for node, i in output.uses()]
    original = ir.node("Gather", [numbers, output])
    original.outputs[0].name = f"{output.name}/positions"
    graph.insert_after(context.node, [original])
    for node, i in users:
        node.replace_input_with(i, original.outputs[0])


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
    name, output.name = output.name, f"{output.name}/kept_{d}"  # the whole tensor is known by the name
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
    whole = back.outputs[0]
    whole.name, whole.type, whole.shape = name, output.type, output.shape
    output.shape = None
    graph.insert_after(context.node, [padded, back])
    for node, i in users:
        node.replace_input_with(i, whole)
    for i, value in enumerate(graph.outputs):
        if value is output:
            graph.outputs[i] = whole


def run_sizes(analysis: Analysis, *, as_analysed: bool) -> list[dict[str, int]]:
    """Two sets of input sizes: the nominal ones, and others, with a batch of two.

    Only those of the analysis when the reference holds positions along a runtime size (batch times heads).
    """
    if as_analysed:
        return [dict(analysis.trace.dims)]
    nominal = dict(analysis.trace.nominal_dims)
    other = dict(analysis.trace.dims)
    for dim in Interface(analysis.model.ir).dims:
        # A batch that is traced as 1 is one that the model can't leave.
        if dim.role == "batch" and nominal[dim.name] == 1 and other[dim.name] != 1:
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
    kept = KeptPositions(Keeps(analysis, removed))
    ends = [value.name or "" for value in (*original.ir.graph.inputs, *original.ir.graph.outputs)]
    as_analysed = reference.as_analysed or any(map(kept.is_runtime_size, ends))
    sizes = run_sizes(analysis, as_analysed=as_analysed)
    feeds = feasible_inputs(original, sizes, seed)
    require_as_read(analysis.model, feeds[0], computed(analysis.model))
    pair, accepted = without_rounding((reference.model, pruned), accepted)
    for given, differences in zip(feeds, _differences(*pair, feeds, kept), strict=True):
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
            require_equal(difference, accepted, "the masked original")
    with random_weights(analysis, seed):
        noisy = masked_reference(analysis, removed).model, cut(analysis, removed)
    noisy, _ = without_rounding(noisy, accepted)
    for difference in noisy_differences(noisy, feeds[0], kept, accepted):
        require_equal(difference, accepted, "the masked original, both with random weights,")
    for models in (pair, noisy):
        for path in paths(analysis.model):
            _compare_on_path(models, path, kept, kept.whole(feeds[0]), accepted)
    return verdict


def _compare_on_path(
    pair: Sequence[Model],
    path: Path,
    kept: KeptPositions,
    given: Mapping[str, npt.NDArray[np.generic]],
    accepted: float,
) -> None:
    """The same where the inputs alone would not lead, if the reference can go there."""
    try:
        expected = kept.kept(run(session(runnable(on_path(pair[0], path))), given))
    except ValidationError:  # a branch for other sizes
        return
    actual = run(session(runnable(on_path(pair[1], path))), kept.kept(given))
    for difference in compare_outputs(expected, actual):
        if difference.compared and np.isfinite(difference.max_error):
            require_equal(difference, accepted, "the masked original, on another path,")


def _differences(
    reference: Model,
    pruned: Model,
    feeds: Sequence[Mapping[str, npt.NDArray[np.generic]]],
    kept: KeptPositions,
) -> Iterator[list[Difference]]:
    expected, actual = session(runnable(reference)), session(runnable(pruned))
    for given in feeds:
        whole = kept.whole(given)
        yield compare_outputs(kept.kept(run(expected, whole)), run(actual, kept.kept(whole)))


def require_equal(difference: Difference, tolerance: float, what: str) -> None:
    """Raises ValidationError if a difference is larger than rounding allows."""
    if not difference.within(tolerance):
        message = f"the pruned model differs from {what} by {difference.max_error:.3g}"
        raise ValidationError(
            message,
            where=f"output '{difference.output}', values up to {difference.scale:.3g}",
            because="the cut is not what the plan says; nothing was written",
            hint="please report this model's `graphprune inspect --json`",
        )
