"""The law of a coupling rule: cut then operate = operate then cut.

A few nodes are analysed with inputs whose axes are all removable and outputs that nothing protects: the
worst that can happen to them inside a network. Random units are removed, and the cut nodes on cut inputs
are compared with the original nodes on inputs and parameters whose removed slices hold zeros (or, for
``zero=False``, anything), evaluated by onnx's reference implementation. The original side is made here
from nothing but the axes, so no code of the rewriter is used to judge the rewriter.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from contrib_reference import evaluate_contrib, is_contrib
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from graphprune.algebra import Axis
from graphprune.analysis import Analysis
from graphprune.model import load
from graphprune.oracle import masked_reference
from graphprune.rewrite import cut
from graphprune.shapes.fold_shapes import prepare

Array = np.ndarray[Any, Any]
Feeds = dict[str, Array]


class LawBroken(AssertionError):
    """Cutting before and after the operator gives different results."""


@dataclass
class OpenAnalysis(Analysis):
    """Every axis of every input may shrink, outputs included.

    Attributes:
        plain: inputs that can't shrink.
        zero: whether removed slices of the inputs hold zeros.
    """

    plain: frozenset[str] = frozenset()
    zero: bool = True

    def run(self) -> OpenAnalysis:
        for value in self.model.ir.graph.inputs:
            name = value.name or ""
            if name not in self.trace.shapes:
                continue
            shape = self.trace.shapes[name]
            fresh = [self.algebra.fresh(n, zero=self.zero) for n in shape]
            self.axes[name] = [self.algebra.plain(n) for n in shape] if name in self.plain else fresh
        for node in self.model.ir.graph:
            self._visit(node)
        self.protect()
        return self


@dataclass(frozen=True)
class Case:
    """Some nodes and their inputs.

    Attributes:
        name: what is special about it.
        inputs: ``x[2,3]`` float, ``i:int64[4]<3`` integers below 3, ``m:bool[2]``, ``*w[3]`` a
            parameter, ``!x[2]`` an input that can't shrink; separated by blanks.
        nodes: in the syntax of onnx.parser, separated by semicolons.
        opset: of the default domain.
        constants: small integer or float constants by name.
        outputs: names; by default every output that no other node reads.
        laws: whether the law is tried with zeros ("zero") and with anything ("any").
        finite: False where the original divides zero by zero in removed slices.
    """

    name: str
    inputs: str
    nodes: str
    opset: int = 21
    constants: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    laws: tuple[str, ...] = ("zero", "any")
    finite: bool = True

    @property
    def op_type(self) -> str:
        """The operator that the case is about."""
        return self.name.split()[0]


def case(name: str, inputs: str, nodes: str, opset: int = 21, **options: Any) -> Case:
    """A case; unknown keywords are constants."""
    known = {k: options.pop(k) for k in ("outputs", "laws", "finite") if k in options}
    return Case(name, inputs, nodes, opset, options, **known)


@dataclass(frozen=True)
class _Input:
    name: str
    dtype: str
    shape: tuple[int, ...]
    below: int
    marker: str

    @classmethod
    def parse(cls, text: str) -> _Input:
        marker = text[0] if text[0] in "*!" else ""
        head, _, rest = text[len(marker) :].partition("[")
        name, _, dtype = head.partition(":")
        sizes, _, below = rest.partition("]")
        shape = tuple(int(s) for s in sizes.split(",") if s)
        return cls(name, dtype or "float32", shape, int(below[1:] or 0) if below else 0, marker)

    def random(self, rng: np.random.Generator) -> Array:
        if self.dtype == "bool":
            return rng.integers(0, 2, self.shape).astype(bool)
        if self.dtype.startswith(("int", "uint")):
            return rng.integers(0, self.below or 5, self.shape).astype(self.dtype)
        # Away from zero, so that a forgotten slice shows.
        drawn = rng.uniform(0.3, 1.5, self.shape) * rng.choice([-1.0, 1.0], self.shape)
        return np.asarray(drawn).astype(self.dtype)


def _constant(value: Any) -> Array:
    if isinstance(value, np.ndarray):
        return value
    floats = np.asarray(value).dtype.kind == "f"
    return np.asarray(value, np.float32 if floats else np.int64)


def build(case: Case) -> tuple[onnx.ModelProto, Feeds]:
    """The model of a case, and random inputs."""
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    inputs = [_Input.parse(text) for text in case.inputs.split()]
    arrays = {i.name: i.random(rng) for i in inputs}
    parameters = {i.name for i in inputs if i.marker == "*"}
    nodes = [onnx.parser.parse_node(text.strip()) for text in case.nodes.split(";") if text.strip()]
    for number, node in enumerate(nodes):
        node.name = f"n{number}"
    read = {name for node in nodes for name in node.input}
    outputs = case.outputs or tuple(o for n in nodes for o in n.output if o and o not in read)
    graph = helper.make_graph(
        nodes,
        "case",
        [
            helper.make_tensor_value_info(i.name, helper.np_dtype_to_tensor_dtype(np.dtype(i.dtype)), i.shape)
            for i in inputs
            if i.name not in parameters
        ],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(arrays[n], n) for n in sorted(parameters)]
        + [numpy_helper.from_array(_constant(v), n) for n, v in case.constants.items()],
    )
    opsets = [helper.make_opsetid("", case.opset)]
    if any(is_contrib(node) for node in nodes):
        opsets.append(helper.make_opsetid("com.microsoft", 1))
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    feeds = {n: a for n, a in arrays.items() if n not in parameters}
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    if not all(o.type.tensor_type.HasField("shape") for o in inferred.graph.output):
        results = evaluate(model, feeds)
        del model.graph.output[:]
        for name, array in zip(outputs, results, strict=True):
            dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
            model.graph.output.append(helper.make_tensor_value_info(name, dtype, array.shape))
        return model, feeds
    return inferred, feeds


def analyse(case: Case, *, zero: bool = True) -> tuple[OpenAnalysis, Feeds]:
    """The open analysis of a case, and random inputs."""
    proto, feeds = build(case)
    model, trace = prepare(load(proto))
    plain = frozenset(i.name for i in map(_Input.parse, case.inputs.split()) if i.marker == "!")
    return OpenAnalysis(model, trace, plain=plain, zero=zero).run(), feeds


# onnx's reference implementation is wrong for these: grouped ConvTranspose, windows at the border,
# BatchNormalization before opset 14, negative pads, Mean that broadcasts its first operand, Resize of some
# axes, Softmax before opset 13, GatherElements with fewer rows, OneHot, LRN (of as many channels as the batch
# is long). It has no GlobalLpPool, and its AveragePool takes seconds.
_WRONG_IN_REFERENCE = {
    "ConvTranspose", "MaxPool", "LpPool", "BatchNormalization", "Pad", "Mean", "Resize", "Upsample",
    "GlobalLpPool", "AveragePool", "GatherElements", "OneHot", "MaxRoiPool", "LRN",
}  # fmt: skip
# It knows neither activations nor lengths of sequences, while onnxruntime has no batch-first layout.
_RECURRENT = {"LSTM", "GRU", "RNN"}

#: Operator set that onnxruntime accepts.
NEWEST_IN_RUNTIME = 25


def evaluate(proto: onnx.ModelProto, feeds: Feeds) -> list[Array]:
    """All outputs, by onnx's reference implementation, or by onnxruntime where that is wrong."""
    if any(is_contrib(node) for node in proto.graph.node):
        return evaluate_contrib(proto, feeds)
    opset = proto.opset_import[0].version
    old_softmax = {"Softmax", "LogSoftmax", "Hardmax"} if opset < 13 else set()
    wrong = _WRONG_IN_REFERENCE | old_softmax
    time_first = [n for n in proto.graph.node if n.op_type in _RECURRENT and not _is_batch_first(n)]
    if opset <= NEWEST_IN_RUNTIME and (time_first or any(n.op_type in wrong for n in proto.graph.node)):
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        known = onnx.ModelProto()
        known.CopyFrom(proto)
        known.ir_version = min(proto.ir_version, 10)
        session = ort.InferenceSession(known.SerializeToString(), options)
        return list(session.run(None, feeds))
    with np.errstate(all="ignore"):
        return [np.asarray(r) for r in ReferenceEvaluator(proto).run(None, feeds)]


def _is_batch_first(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "layout" and attribute.i for attribute in node.attribute)


# ---- removals -----------------------------------------------------------------------------------


def all_axes(analysis: Analysis) -> Iterator[Axis]:
    uses = [use.axes for use in analysis.uses.values()]
    for axes in [*analysis.axes.values(), *uses, analysis.facts.inside]:
        yield from axes


def free_units(analysis: Analysis) -> list[int]:
    """Units that may be removed."""
    live = [np.unique(analysis.algebra.live(axis)) for axis in all_axes(analysis)]
    return sorted(set(np.concatenate([np.zeros(1, np.int32), *live]).tolist()) - {0})


def removals(analysis: Analysis, rng: np.random.Generator, count: int = 6) -> Iterator[Array]:
    """Single units and random sets of units, such that no axis becomes empty."""
    free = np.array(free_units(analysis), np.int64)
    if not len(free):
        return
    singles = rng.permutation(free)[:count]
    picks = [[unit] for unit in singles] + [
        free[rng.random(len(free)) < share] for share in (0.15, 0.3, 0.3, 0.5, 0.7)
    ]
    for pick in picks:
        removed = np.zeros(len(analysis.algebra), bool)
        removed[np.asarray(pick, np.int64)] = True
        for axis in all_axes(analysis):
            rows = analysis.algebra.live(axis)
            if len(rows) and removed[rows].any(axis=1).all():
                removed[rows[rng.integers(len(rows))]] = False
        for axis, least, _ in analysis.facts.minimums:
            rows = analysis.algebra.live(axis)
            gone = rng.permutation(np.flatnonzero(removed[rows].any(axis=1)))
            removed[rows[gone[: max(least - len(rows) + len(gone), 0)]]] = False
        if removed.any() and all(
            not a.size or analysis.algebra.alive(a, removed).any() for a in all_axes(analysis)
        ):
            yield removed


# ---- the two sides ------------------------------------------------------------------------------


def masks(analysis: Analysis, axes: Sequence[Axis], removed: Array) -> list[Array]:
    return [analysis.algebra.alive(axis, removed) for axis in axes]


def kept(array: Array, keep: Sequence[Array]) -> Array:
    """The kept positions of an array."""
    return np.ascontiguousarray(array[np.ix_(*keep)]) if keep else array


def zeroed(array: Array, keep: Sequence[Array], points: Array | None = None) -> Array:
    """An array with zeros (of a quantized one: zero points) at the removed positions."""
    array = array.copy()
    for d, mask in enumerate(keep):
        where = (slice(None),) * d + (~mask,)
        array[where] = np.zeros((), array.dtype) if points is None else points[where]
    return array


# Quantized inputs of an operator: where their zero point is, and the axis that a vector of them runs along.
_ZERO_POINTS = {
    ("DequantizeLinear", 0): (2, None), ("ConvInteger", 0): (2, 1), ("ConvInteger", 1): (3, 0),
    ("MatMulInteger", 0): (2, -2), ("MatMulInteger", 1): (3, -1), ("QLinearConv", 0): (2, 1),
    ("QLinearConv", 3): (5, 0), ("QLinearMatMul", 0): (2, -2), ("QLinearMatMul", 3): (5, -1),
    ("QLinearAdd", 3): (5, None), ("QLinearMul", 3): (5, None), ("QGemm", 3): (5, -1),
    ("MatMulIntegerToFloat", 1): (5, -1), ("DynamicQuantizeMatMul", 1): (3, -1), ("QAttention", 1): (7, -1),
}  # fmt: skip


def zero_points(proto: onnx.ModelProto, node: onnx.NodeProto, i: int, shape: tuple[int, ...]) -> Array | None:
    """The zero points of a quantized constant, if they are constant, as an array like it."""
    at, along = _ZERO_POINTS.get((node.op_type, i), (None, None))
    name = node.input[at] if at is not None and at < len(node.input) else ""
    found = [numpy_helper.to_array(t) for t in proto.graph.initializer if t.name == name and name]
    if not found:
        return None
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    axis, block = attributes.get("axis", 1) if along is None else along, attributes.get("block_size", 0)
    axis = -2 if attributes.get("transB") else axis
    points = found[0]
    if block and points.ndim == len(shape):
        points = np.repeat(points, block, axis)[tuple(slice(n) for n in shape)]
    elif points.ndim == 1 and points.size > 1:
        points = np.moveaxis(points.reshape(-1, *[1] * (len(shape) - 1)), 0, axis)
    return np.broadcast_to(points.reshape(()) if points.size == 1 else points, shape)


def zeroed_model(analysis: Analysis, removed: Array) -> onnx.ModelProto:
    """The original with zeros in the removed slices of each use of each parameter."""
    proto = analysis.model.to_proto()
    nodes = {node.output[0]: node for node in proto.graph.node}
    for (node, i), use in analysis.uses.items():
        keep = masks(analysis, use.axes, removed)
        if not use.is_zeroed or all(m.all() for m in keep):
            continue
        array = use.value.const_value.numpy()
        array = zeroed(array, keep, zero_points(proto, nodes[node.outputs[0].name], i, array.shape))
        name = f"{use.key}/zeroed"
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
        nodes[node.outputs[0].name].input[i] = name
    return proto


def touches_statistic(analysis: Analysis, removed: Array) -> bool:
    return any(removed[analysis.algebra.live(a)].any() for a, _, _ in analysis.facts.statistics)


def close(actual: Array, expected: Array) -> bool:
    if actual.shape != expected.shape:
        return False
    if expected.dtype.kind not in "fc":
        return bool(np.array_equal(actual, expected))
    scale = 20 if expected.dtype == np.float16 else 1
    return bool(np.allclose(actual, expected, rtol=2e-4 * scale, atol=2e-5 * scale, equal_nan=True))


def check_removal(analysis: OpenAnalysis, feeds: Feeds, removed: Array, *, finite: bool = True) -> bool:
    """The law for one set of removed units; False where a statistic runs over one of them.

    Raises:
        LawBroken: it does not hold.
    """
    names = [output.name for output in analysis.model.ir.graph.outputs]
    keep_in = {name: masks(analysis, analysis.axes[name], removed) for name in feeds}
    if analysis.zero:
        feeds = {name: zeroed(array, keep_in[name]) for name, array in feeds.items()}
    cut_feeds = {name: kept(array, keep_in[name]) for name, array in feeds.items()}
    exact = not touches_statistic(analysis, removed)
    if exact:
        reference = zeroed_model(analysis, removed)
    elif not analysis.zero:
        return False  # nothing is stated about it
    else:
        reference = masked_reference(analysis, removed).model.to_proto()
        for output in reference.graph.output:  # they keep the cut size, unlike in a whole network
            output.type.tensor_type.ClearField("shape")
    expected = dict(zip(names, evaluate(reference, feeds), strict=True))
    try:
        pruned = cut(analysis, removed).to_proto()
        if _is_valid(analysis.model.to_proto()):
            onnx.checker.check_model(pruned, full_check=True)
        actual = dict(zip(names, evaluate(pruned, cut_feeds), strict=True))
    except Exception as error:
        message = f"the cut model does not run: {type(error).__name__}: {error}"
        raise LawBroken(message) from error
    for name in names:
        axes = analysis.axes[name]
        keep = masks(analysis, axes, removed)
        # The oracle's reference writes an output behind a statistic with kept positions only.
        whole = expected[name].shape == tuple(axis.size for axis in axes)
        wanted = kept(expected[name], keep) if whole else expected[name]
        if not close(actual[name], wanted):
            message = f"'{name}': {actual[name]!r} instead of {wanted!r}"
            raise LawBroken(message)
        if finite and exact:
            _check_zeros(name, expected[name], axes, keep)
    return exact


def _is_valid(proto: onnx.ModelProto) -> bool:
    """Some operators (GroupNormalization 18, MeanVarianceNormalization) never pass the checker."""
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True


def _check_zeros(name: str, array: Array, axes: Sequence[Axis], keep: Sequence[Array]) -> None:
    """Where a rule says that a removed slice is zero, it is."""
    for d, (axis, mask) in enumerate(zip(axes, keep, strict=True)):
        if axis.zero and not axis.is_plain and array[(slice(None),) * d + (~mask,)].any():
            message = f"axis {d} of '{name}' is said to be zero where it is removed, and is not"
            raise LawBroken(message)


def check_case(case: Case, count: int = 6) -> int:
    """The law of a case; returns how many removals it was tried for."""
    tried = 0
    for law in case.laws:
        analysis, feeds = analyse(case, zero=law == "zero")
        rng = np.random.default_rng(zlib.crc32(case.name.encode()) + 1)
        for removed in removals(analysis, rng, count):
            check_removal(analysis, feeds, removed, finite=case.finite)
            tried += 1
    return tried
