"""One-operator models with inputs, for the torch functions of the ONNX operators."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Array = np.ndarray[Any, Any]
INT = np.int64
SEEDS = count()


@dataclass(frozen=True)
class Case:
    """A model and what it is fed.

    Attributes:
        name: of the test.
        model: with one operator, or one with bodies.
        feeds: the floating inputs.
        has_gradient: are its outputs smooth functions of these?
    """

    name: str
    model: onnx.ModelProto
    feeds: dict[str, Array]
    has_gradient: bool = True


CASES: dict[str, Case] = {}


def f(*shape: int, low: float | None = None, high: float = 1.0) -> Array:
    """Random numbers: normal, or between two bounds."""
    rng = np.random.default_rng(next(SEEDS))
    drawn = rng.standard_normal(shape) if low is None else rng.uniform(low, high, shape)
    return drawn.astype(np.float32)


def i(*numbers: Any) -> Array:
    """Integers."""
    return np.array(numbers, INT)


class Fixed:
    """A floating constant of the model."""

    def __init__(self, numbers: Any) -> None:
        self.array = np.asarray(numbers, np.float32)


def case(
    op: str,
    *inputs: Any,
    opset: int = 18,
    outputs: int = 1,
    name: str = "",
    smooth: bool = True,
    **attributes: Any,
) -> None:
    """Enters a case; floats are fed, integers and `Fixed` are constants, None is absent."""
    names, feeds, constants = [], {}, []
    for index, given in enumerate(inputs):
        names.append("" if given is None else f"in{index}")
        if isinstance(given, Fixed):
            constants.append(numpy_helper.from_array(given.array, names[-1]))
        elif given is not None and given.dtype == np.float32:
            feeds[names[-1]] = given
        elif given is not None:
            constants.append(numpy_helper.from_array(given, names[-1]))
    made = [f"out{index}" for index in range(outputs)]
    node = helper.make_node(op, names, made, **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, a.shape) for n, a in feeds.items()],
        [helper.make_empty_tensor_value_info(n) for n in made],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    inferred = onnx.shape_inference.infer_shapes(model)
    for output in inferred.graph.output:  # inference knows no type for what was a function before
        output.type.tensor_type.elem_type = output.type.tensor_type.elem_type or onnx.TensorProto.FLOAT
    for output, known in zip(model.graph.output, inferred.graph.output, strict=True):
        output.type.CopyFrom(known.type)
        output.type.tensor_type.ClearField("shape")
    enter(
        "-".join([op, *([name] if name else []), *([str(opset)] if opset != 18 else [])]),
        model,
        feeds,
        smooth,
    )


def enter(name: str, model: onnx.ModelProto, feeds: dict[str, Array], smooth: bool = True) -> None:
    assert name not in CASES, name
    CASES[name] = Case(name, model, feeds, smooth)


def text(name: str, source: str, feeds: dict[str, Array], constants: dict[str, Array] | None = None) -> None:
    """Enters a model written in ONNX's text form."""
    model = onnx.parser.parse_model(source)
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in (constants or {}).items())
    enter(name, model, feeds)


# Elementwise
for op in ("Asinh", "Atan", "Cos", "Cosh", "Erf", "Exp", "HardSwish", "LeakyRelu", "Mish", "Neg", "Relu",
           "Selu", "Sigmoid", "Sin", "Sinh", "Softplus", "Softsign", "Tan", "Tanh", "Elu", "Celu", "Abs",
           "ThresholdedRelu"):  # fmt: skip
    case(op, f(3, 4))
for op in ("Log", "Sqrt", "Reciprocal"):
    case(op, f(3, 4, low=0.5, high=2.0))
for op in ("Acos", "Asin", "Atanh"):
    case(op, f(3, 4, low=-0.8, high=0.8))
case("Acosh", f(3, 4, low=1.5, high=3.0))
for op in ("Ceil", "Floor", "Round", "Sign"):
    case(op, f(3, 4), smooth=False)
case("Sign", np.array([np.nan, -2, 0], np.float32), name="no-number", smooth=False)
for op in ("Add", "Sub", "Mul"):
    case(op, f(2, 3, 4), f(3, 1))
case("Div", f(2, 3), f(3, low=0.5, high=2.0))
case("Mod", f(2, 3), Fixed([0.7]), fmod=1)
case("Pow", f(2, 3, low=0.5, high=2.0), f(3))
case("Pow", f(2, 3), Fixed(2.0), name="square")
case("Pow", f(2, 3), Fixed([[3.0]]), name="cube")
for op in ("Max", "Min", "Sum", "Mean"):
    case(op, f(2, 3), f(3), f(2, 1))
case("Clip", f(3, 4), Fixed(-0.5), Fixed(0.7))
case("Clip", f(3, 4), None, f(), name="upper")
case("Clip", f(3, 4), Fixed(-0.2), name="lower")
case("Clip", f(3, 4), opset=9, min=-0.5)
case("LeakyRelu", f(3, 4), name="alpha", alpha=0.3)
case("PRelu", f(2, 3, 4), f(3, 1))
case("Elu", f(3, 4), name="alpha", alpha=0.5)
case("HardSigmoid", f(3, 4), alpha=0.3, beta=0.4)
case("Gelu", f(3, 4), opset=20)
case("Gelu", f(3, 4), opset=20, name="tanh", approximate="tanh")
case("Swish", f(3, 4), opset=24, alpha=0.7)
case("Dropout", f(3, 4))
# Logic, types
for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"):
    case(op, f(2, 3), f(3), smooth=False)
case("IsNaN", f(2, 3), smooth=False)
case("IsInf", f(2, 3), smooth=False, detect_negative=0, opset=20)
case("Where", np.array([[True], [False]]), f(2, 3), f(3))
case("Cast", f(2, 3), to=onnx.TensorProto.FLOAT)
case("Cast", f(2, 3) * 3, name="to-integers", to=onnx.TensorProto.INT64, smooth=False)
case("Identity", f(2, 3))
# Shape
case("Shape", f(2, 3, 4), start=1, end=-1, smooth=False)
case("Size", f(2, 3), smooth=False)
case("EyeLike", f(3, 4), k=1, smooth=False)
# Movement
case("Reshape", f(2, 3, 4), i(0, -1, 2))
case("Flatten", f(2, 3, 4), axis=2)
case("Flatten", f(2, 3, 4), name="from-end", axis=-1)
case("Transpose", f(2, 3, 4))
case("Transpose", f(2, 3, 4), name="perm", perm=[1, 2, 0])
case("Squeeze", f(2, 1, 3, 1), i(-1))
case("Squeeze", f(2, 1, 3, 1), opset=11, axes=[1])
case("Squeeze", f(2, 1, 3, 1), name="all")
case("Unsqueeze", f(2, 3), i(0, -1))
case("Unsqueeze", f(2, 3), opset=11, axes=[2, 0])
case("Concat", f(2, 3), f(2, 1), axis=-1)
case("Split", f(7, 2), i(3, 4), outputs=2)
case("Split", f(7, 2), outputs=3, num_outputs=3, name="uneven")
case("Split", f(2, 6), opset=11, outputs=2, axis=1, split=[2, 4])
case("Expand", f(3, 1), i(2, 1, 4))
case("Tile", f(2, 3), i(2, 2))
case("Slice", f(5, 6), i(1, -1), i(9, -100), i(0, 1), i(2, -2))
case("Slice", f(5, 6), i(-3), i(-1), i(-1), name="from-end")
case("Slice", f(5, 6), i(3), i(1), i(0), name="empty", smooth=False)
case("Slice", f(5, 6), opset=9, starts=[1], ends=[4], axes=[1])
case("Slice", f(5, 6), i(4), i(0), i(0), i(-3), name="backwards")
case("Pad", f(2, 3), i(1, 0, 0, 2), Fixed(0.5))
case("Pad", f(1, 1, 4, 5), i(1, 2, 1, 0), None, i(2, -1), name="reflect", mode="reflect")
case("Pad", f(4, 5), i(2, 1, 0, 3), name="edge", mode="edge")
case("Pad", f(4, 5), i(2, 1, 0, 3), name="wrap", mode="wrap", opset=19)
case("Pad", f(4, 5), i(-1, 1, 0, -2), name="cut")
case("Pad", f(4, 5), opset=9, pads=[0, 1, 2, 0], value=1.0)
case("Trilu", f(3, 4), i(1).reshape(()))
case("Trilu", f(3, 4), name="lower", upper=0)
case("DepthToSpace", f(1, 8, 2, 3), blocksize=2)
case("DepthToSpace", f(1, 8, 2, 3), name="crd", blocksize=2, mode="CRD")
case("SpaceToDepth", f(1, 2, 4, 6), blocksize=2)
# Contraction
case("MatMul", f(2, 1, 3, 4), f(5, 4, 2))
case("MatMul", f(4), f(2, 4, 3), name="vector")
case("Gemm", f(4, 2), f(3, 4), f(3), transA=1, transB=1, alpha=0.5, beta=2.0)
case("Gemm", f(2, 4), f(4, 3), name="plain")
case("Gemm", f(2, 4), f(4, 3), f(1), name="number")
case("Einsum", f(2, 3, 4), f(4, 3), equation="bij, ji -> bi")
case("Einsum", f(2, 3, 4), f(5, 4), name="ellipsis", equation="...i,ji->...j")
# Reductions
for op in ("L1", "L2", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"):
    case(f"Reduce{op}", f(2, 3, 4), i(-1, 0), keepdims=0)
    case(f"Reduce{op}", f(2, 3, 4), opset=11, axes=[1])
case("ReduceLogSum", f(2, 3, low=0.5, high=2.0), i(1))
case("ReduceMean", f(2, 3), name="all")
case("ReduceSum", f(2, 3), i(), name="noop", noop_with_empty_axes=1)
case("ArgMax", f(3, 4), axis=1, keepdims=0, smooth=False)
case("ArgMin", f(3, 4), axis=0, select_last_index=1, smooth=False)
case("CumSum", f(3, 4), i(1).reshape(()))
case("CumSum", f(3, 4), i(-2).reshape(()), name="backwards", exclusive=1, reverse=1)
case("CumSum", np.array([1, np.inf, 2], np.float32), i(0).reshape(()), name="infinite", exclusive=1,
     smooth=False)  # fmt: skip
case("ArgMin", np.array([3, 0, 5], np.uint8), name="unsigned", smooth=False)
case("ArgMin", np.array([3, -(2**31), 5], np.int32), name="least", smooth=False)
# What is done to each number is done without axes to sum over, too.
for op in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"):
    sign = 1 if op == "LogSum" else -1
    case(f"Reduce{op}", np.array(3 * sign, np.float32), name="number")
    case(f"Reduce{op}", np.array([3, 2], np.float32) * sign, name="each", noop_with_empty_axes=1)
for op in ("Softmax", "LogSoftmax"):
    case(op, f(2, 3, 4), axis=1)
    case(op, f(2, 3, 4), opset=11)
# Norms
case(
    "BatchNormalization",
    f(2, 3, 4),
    f(3),
    f(3),
    Fixed([0.5, -1.0, 0.0]),
    Fixed([0.5, 2.0, 1.0]),
    epsilon=1e-3,
)
case("InstanceNormalization", f(2, 3, 5), f(3), f(3))
case("GroupNormalization", f(2, 4, 3), f(2), f(2), num_groups=2)
case("GroupNormalization", f(2, 4, 3), f(4), f(4), num_groups=2, opset=21)
case("LayerNormalization", f(2, 3, 4), f(4), f(4))
case("LayerNormalization", f(2, 3, 4), f(3, 4), name="axes", axis=1, outputs=3)
case("LayerNormalization", f(2, 3, 4), f(1), f(4), name="broadcast")
case("RMSNormalization", f(2, 3, 4), f(3, 4), axis=1, opset=23)
case("LRN", f(1, 6, 2, 2), size=3, alpha=0.5, bias=1.5)
case("LpNormalization", f(2, 3, 4), axis=1)
case("MeanVarianceNormalization", f(2, 3, 2, 2))
# Windows
case("Conv", f(2, 4, 5, 6), f(6, 2, 3, 3), f(6), group=2, strides=[2, 1], pads=[1, 1, 1, 1])
case("Conv", f(1, 2, 6), f(3, 2, 3), name="asymmetric", pads=[2, 0], dilations=[2])
case("Conv", f(1, 2, 5, 6), f(3, 2, 2, 3), name="same-upper", auto_pad="SAME_UPPER", strides=[2, 2])
case("Conv", f(1, 2, 5, 6), f(3, 2, 2, 3), name="same-lower", auto_pad="SAME_LOWER")
case("Conv", f(1, 1, 3, 4, 3), f(2, 1, 2, 2, 2), name="volume", auto_pad="VALID")
case("ConvTranspose", f(1, 4, 3, 4), f(4, 3, 3, 2), f(6), group=2, strides=[2, 3], pads=[1, 0, 0, 1])
case("ConvTranspose", f(1, 2, 3), f(2, 3, 3), name="padded", strides=[2], output_padding=[1], dilations=[2])
case("ConvTranspose", f(1, 2, 3), f(2, 3, 3), name="shape", strides=[2], output_shape=[6])
case("ConvTranspose", f(1, 2, 3), f(2, 3, 4), f(3), name="same", strides=[3], auto_pad="SAME_UPPER")
case("Col2Im", f(1, 2 * 4, 6), i(3, 4), i(2, 2), opset=18)
case("Col2Im", f(1, 2 * 4, 4), i(4, 3), i(2, 2), name="strides", strides=[2, 2], pads=[0, 1, 0, 1], opset=18)
case("MaxPool", f(2, 2, 6, 7), kernel_shape=[3, 2], strides=[2, 2], pads=[1, 1, 0, 0])
case("MaxPool", f(1, 2, 6), name="ceil", kernel_shape=[3], strides=[2], ceil_mode=1)
case("MaxPool", f(1, 2, 7), name="dilated", kernel_shape=[2], dilations=[3], pads=[1, 1])
case("MaxPool", f(1, 2, 7), name="same", kernel_shape=[2], strides=[2], auto_pad="SAME_LOWER")
case("AveragePool", f(1, 2, 6, 6), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
case("AveragePool", f(1, 2, 6), name="counted", kernel_shape=[3], pads=[2, 0], count_include_pad=1)
case("AveragePool", f(1, 2, 6), name="uncounted", kernel_shape=[3], strides=[2], pads=[0, 1])
case("AveragePool", f(1, 2, 6), name="ceil", kernel_shape=[3], strides=[2], ceil_mode=1)
case("AveragePool", f(1, 2, 6, 6), name="ceil-counted", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1,
     pads=[1, 1, 0, 0], count_include_pad=1)  # fmt: skip
case("GlobalAveragePool", f(2, 3, 4, 5))
case("GlobalMaxPool", f(2, 3, 4, 5))
case("LpPool", f(1, 2, 6), kernel_shape=[3], strides=[2], p=3)
# Indexing
case("Gather", f(5, 3), i([0, -1], [2, 0]))
case("Gather", f(2, 5, 3), i(-2, 1), name="axis", axis=1)
case("Gather", f(2, 5, 3), i(-2).reshape(()), name="number", axis=-2)
case("GatherElements", f(3, 4), i([0, -1], [2, 1], [0, 0]), axis=1)
case("GatherND", f(3, 4, 2), i([0, -1], [2, 1]))
case("GatherND", f(2, 4, 3), i([[3], [0]], [[-1], [1]]), name="batch", batch_dims=1)
case("ScatterElements", f(3, 4), i([0, -1], [2, 1]), f(2, 2), axis=1)
for reduction in ("add", "mul", "max", "min"):
    case("ScatterElements", f(3, 4), i([0, 0], [2, 1]), f(2, 2), axis=1, name=reduction, reduction=reduction)
    case("ScatterND", f(4, 3), i([1], [1], [-1]), f(3, 3), name=reduction, reduction=reduction)
case("ScatterND", f(4, 3), i([0], [-1]), f(2, 3))
case("Scatter", f(3, 4), i([0, 1], [2, 0]), f(2, 2), opset=9)
case("OneHot", i(0, -1, 2), i(4), f(2), axis=0)
case("TopK", f(3, 5), i(2), outputs=2, axis=-1)
case("TopK", f(5, 2), i(3), outputs=2, name="smallest", axis=0, largest=0)
case("NonZero", np.array([[1.0, 0.0], [2.0, 3.0]], np.float32), smooth=False)
case("Compress", f(3, 4), np.array([True, False, True]), axis=0)
case("ReverseSequence", f(4, 3, 2), i(2, 4, 1), batch_axis=1, time_axis=0)
case("GridSample", f(1, 2, 4, 5), f(1, 3, 2, 2, low=-1.1, high=1.1), opset=20)
case("GridSample", f(1, 2, 4, 5), f(1, 3, 2, 2, low=-1.1, high=1.1), name="bilinear", mode="bilinear",
     padding_mode="border", align_corners=1)  # fmt: skip
case("GridSample", f(1, 2, 4, 5), f(1, 3, 2, 2, low=-0.5, high=0.5), opset=20, name="cubic", mode="cubic")
# Resize
SCALES, UP = Fixed([1.0, 1.0, 1.7, 0.6]), Fixed([1.0, 1.0, 2.0, 3.0])
case("Resize", f(1, 2, 4, 5), None, UP)
for where in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"):
    for mode in ("nearest", "linear", "cubic"):
        case("Resize", f(1, 2, 4, 5), None, None, i(1, 2, 7, 3), name=f"{mode}-{where}", mode=mode,
             coordinate_transformation_mode=where)  # fmt: skip
for nearest in ("round_prefer_ceil", "floor", "ceil"):
    case("Resize", f(1, 2, 4, 5), None, SCALES, name=nearest, nearest_mode=nearest,
         coordinate_transformation_mode="asymmetric")  # fmt: skip
case(
    "Resize",
    f(1, 1, 4, 5),
    None,
    SCALES,
    name="excluded",
    mode="cubic",
    exclude_outside=1,
    cubic_coeff_a=-0.5,
)
case("Resize", f(1, 2, 4, 5), None, None, i(3, 8), opset=19, name="axes", axes=[3, 2], mode="linear")
case("Resize", f(1, 2, 4, 5), UP, opset=10, mode="linear")
case("Upsample", f(1, 2, 4, 5), UP, opset=9)
# Sizes are products in single precision: 10 * 0.7 is 7, though the float32 next to 0.7 is below it.
LINE = np.arange(10, dtype=np.float32)
for scale in (0.7, 2.3):
    case("Resize", LINE, None, Fixed([scale]), name=f"by-{scale}")
    case("Resize", LINE, Fixed([scale]), opset=10, name=f"by-{scale}")
    case("Upsample", LINE, Fixed([scale]), opset=9, name=f"by-{scale}") if scale > 1 else None
# Attention
case("Attention", f(1, 4, 3, 6), f(1, 2, 5, 6), f(1, 2, 5, 6), opset=23)
case("Attention", f(2, 3, 8), f(2, 3, 4), f(2, 3, 4), opset=23, name="flat", q_num_heads=4, kv_num_heads=2,
     is_causal=1, scale=0.3)  # fmt: skip
case("Attention", f(1, 2, 3, 4), f(1, 2, 3, 4), f(1, 2, 3, 4), f(3, 5), f(1, 2, 2, 4), f(1, 2, 2, 4),
     opset=23, name="cache", outputs=3)  # fmt: skip
case("Attention", f(1, 2, 3, 4), f(1, 2, 3, 4), f(1, 2, 3, 4), np.tril(np.ones((3, 3), bool)), opset=23,
     name="boolean")  # fmt: skip
case("Attention", f(1, 2, 3, 4), f(1, 2, 3, 4), f(1, 2, 3, 4), f(3, 3), opset=24, name="softcap", softcap=1.5)
for mode in (0, 3):
    case("Attention", f(1, 2, 3, 4), f(1, 2, 3, 4), f(1, 2, 3, 4), f(3, 3), None, None, opset=23, outputs=4,
         name=f"scores-{mode}", qk_matmul_output_mode=mode, is_causal=1)  # fmt: skip
case("RotaryEmbedding", f(2, 2, 3, 4), f(5, 2), f(5, 2), i([0, 1, 2], [2, 3, 4]), opset=23)
case("RotaryEmbedding", f(2, 3, 12), f(2, 3, 2), f(2, 3, 2), opset=23, name="flat", num_heads=2,
     rotary_embedding_dim=4, interleaved=1)  # fmt: skip
# Recurrent
for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
    outputs = 3 if op == "LSTM" else 2
    case(op, f(3, 2, 4), f(1, gates * 3, 4), f(1, gates * 3, 3), hidden_size=3, outputs=outputs)
    case(op, f(3, 2, 4), f(1, gates * 3, 4), f(1, gates * 3, 3), f(1, 2 * gates * 3), None, f(1, 2, 3),
         *([f(1, 2, 3), f(1, 9)] if op == "LSTM" else []), hidden_size=3, outputs=outputs, name="states",
         direction="reverse")  # fmt: skip
    case(op, f(3, 2, 4), f(2, gates * 3, 4), f(2, gates * 3, 3), f(2, 2 * gates * 3), hidden_size=3,
         outputs=outputs, name="both", direction="bidirectional")  # fmt: skip
case("GRU", f(3, 2, 4), f(1, 9, 4), f(1, 9, 3), f(1, 18), hidden_size=3, outputs=2, name="after",
     linear_before_reset=1)  # fmt: skip
case("RNN", f(3, 2, 4), f(1, 3, 4), f(1, 3, 3), hidden_size=3, outputs=1, name="relu", activations=["Relu"])
# Made of sizes and known at run time only
HEAD = '<ir_version: 10, opset_import: ["" : 18]>'
text("ConstantOfShape", HEAD + """
g (float[n, 3] x) => (float[a, b] y) {
  s = Shape(x)
  k = ConstantOfShape<value: tensor = float[1] {0.5}>(s)
  y = Mul(x, k)
}""", {"x": f(2, 3)})  # fmt: skip
text("Range", HEAD + """
g (float[n, 3] x) => (float[a, b] y) {
  s = Shape<start: int = 0, end: int = 1>(x)
  n = Squeeze(s)
  r = Range(zero, n, one)
  c = Cast<to: int = 1>(r)
  u = Unsqueeze(c, last)
  y = Mul(x, u)
}""", {"x": f(4, 3)}, {"zero": np.array(0), "one": np.array(1), "last": np.array([1])})  # fmt: skip
text("And-Or-Xor-Not", HEAD + """
g (float[n, 3] x, float[n, 3] z) => (float[a, b] y) {
  p = Greater(x, z)
  q = Less(x, zero)
  a = And(p, q)
  o = Or(p, a)
  e = Xor(o, q)
  w = Not(e)
  y = Where(w, x, z)
}""", {"x": f(4, 3), "z": f(4, 3)}, {"zero": np.zeros((), np.float32)})  # fmt: skip
text("If", HEAD + """
g (float[3] x, float[3] w) => (float[n] y) {
  s = ReduceSum<keepdims: int = 0>(x)
  c = Greater(s, zero)
  y = If (c) <then_branch = t () => (float[n] a) { a = Mul(x, w) },
              else_branch = e () => (float[n] b) { l = CastLike(x, w)  b = Add(l, w) }>
}""", {"x": f(3), "w": f(3)}, {"zero": np.zeros((), np.float32)})  # fmt: skip
text("Loop", HEAD + """
g (float[3] x, float[3] w) => (float[3] y, float[k, 3] all) {
  y, all = Loop (trips, , x) <body = b (int64 i, bool c, float[3] h) => (bool d, float[3] o, float[3] r) {
    d = Identity(c)
    m = Mul(h, w)
    o = Tanh(m)
    r = Add(m, x)
  }>
}""", {"x": f(3), "w": f(3)}, {"trips": np.array(3)})  # fmt: skip
text("Scan", HEAD + """
g (float[3] h0, float[4, 3] x, float[3] w) => (float[3] y, float[3, 4] all) {
  y, all = Scan <num_scan_inputs: int = 1, scan_input_directions: ints = [1], scan_output_axes: ints = [1],
                 scan_output_directions: ints = [1],
                 body = b (float[3] h, float[3] t) => (float[3] o, float[3] r) {
    m = Mul(h, w)
    o = Add(m, t)
    r = Tanh(o)
  }> (h0, x)
}""", {"h0": f(3), "x": f(4, 3), "w": f(3)})  # fmt: skip
text("Constant", HEAD + """
g (float[2] x) => (float[2] y, float[2] k) {
  k = Constant<value = float[2] {0.5, -1.0}>()
  y = Mul(x, k)
}""", {"x": f(2)})  # fmt: skip
