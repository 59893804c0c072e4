"""Mutations that know what an ONNX model holds: ``mutate(model, rng)`` changes it in place and says how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper

Rng = np.random.Generator
Mutation = Callable[[onnx.ModelProto, Rng], str]

NUMBERS = (
    0, 1, 2, 3, -1, -2, 7, 64, 1000, 1 << 16, 10**6, (1 << 31) - 1, 1 << 31, 1 << 32, -(1 << 31), 1 << 40,
    1 << 62, (1 << 63) - 1, -(1 << 63),
)  # fmt: skip
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-30, 1e30, 3.4e38, float("nan"), float("inf"), float("-inf"))
TEXTS = (
    "", "x", "y", "a.w", "NaN", "../../etc/passwd", "/etc/passwd", "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>", "[red]name[/red]", "\x1b[31mred\x1b[0m", "a\nb\r\n\tc", "\x00", "é" * 9,
    "\u202eabc", "n" * 5000, "{}", "%s%n", "'; DROP TABLE", "batch", "SAME_UPPER", "relu", ":", "a:0", "*",
)  # fmt: skip


def pick(rng: Rng, options: Any) -> Any:
    """One of them."""
    return options[int(rng.integers(len(options)))] if len(options) else None


def any_field(model: onnx.ModelProto, rng: Rng) -> str:
    """Changes one field of one message, wherever it is."""
    message, path = model, ""
    while True:
        fields = message.DESCRIPTOR.fields
        present = [d for d, _ in message.ListFields()]
        field = pick(rng, present) if present and rng.integers(5) else pick(rng, fields)
        path += f".{field.name}"
        if field.type == field.TYPE_MESSAGE:
            children = getattr(message, field.name)
            if not field.is_repeated:
                if message.HasField(field.name) and rng.integers(8) == 0:
                    message.ClearField(field.name)
                    return f"clear {path}"
                message = children
                continue
            change = int(rng.integers(12))
            if not len(children) or change == 0:
                children.add()
                return f"add {path}"
            at = int(rng.integers(len(children)))
            if change == 1:
                del children[at]
                return f"delete {path}[{at}]"
            if change == 2:
                children.add().CopyFrom(children[at])
                return f"repeat {path}[{at}]"
            if change == 3 and len(children) > 1:
                other = int(rng.integers(len(children)))
                kept = type(children[at])()
                kept.CopyFrom(children[at])
                children[at].CopyFrom(children[other])
                children[other].CopyFrom(kept)
                return f"swap {path}[{at}], [{other}]"
            message, path = children[at], f"{path}[{at}]"
            continue
        return f"{_scalar(message, field, rng)} {path}"


def _scalar(message: Any, field: Any, rng: Rng) -> str:
    if field.is_repeated:
        values = getattr(message, field.name)
        if len(values) and rng.integers(4) == 0:
            del values[int(rng.integers(len(values)))]
            return "delete from"
        value = _value(field, rng)
        if len(values) and rng.integers(4):
            values[int(rng.integers(len(values)))] = value
            return f"{value!r:.40} into"
        values.append(value)
        return f"append {value!r:.40} to"
    if message.HasField(field.name) and rng.integers(4) == 0:
        message.ClearField(field.name)
        return "clear"
    value = _value(field, rng)
    setattr(message, field.name, value)
    return f"{value!r:.40} as"


def _value(field: Any, rng: Rng) -> Any:
    if field.type == field.TYPE_ENUM:
        return pick(rng, field.enum_type.values).number
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return pick(rng, FLOATS)
    if field.type == field.TYPE_BYTES:
        return pick(rng, TEXTS).encode() if rng.integers(2) else rng.bytes(int(rng.integers(40)))
    if field.type == field.TYPE_STRING:
        return pick(rng, TEXTS)
    number = pick(rng, NUMBERS)
    bits = 32 if field.type == field.TYPE_INT32 else 64
    number = (number + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)
    return number % (1 << 64) if field.type == field.TYPE_UINT64 else number


def dims(model: onnx.ModelProto, rng: Rng) -> str:
    tensor = pick(rng, model.graph.initializer)
    if tensor is None:
        return "nothing"
    if not len(tensor.dims):
        tensor.dims.append(pick(rng, NUMBERS))
    else:
        tensor.dims[int(rng.integers(len(tensor.dims)))] = pick(rng, NUMBERS)
    return f"dims of {tensor.name}: {list(tensor.dims)}"


def transposed(model: onnx.ModelProto, rng: Rng) -> str:
    tensor = pick(rng, [t for t in model.graph.initializer if len(t.dims) > 1])
    if tensor is None:
        return "nothing"
    tensor.dims[:] = list(tensor.dims)[::-1]
    return f"dims of {tensor.name} reversed"


def data_type(model: onnx.ModelProto, rng: Rng) -> str:
    tensor = pick(rng, model.graph.initializer)
    if tensor is None:
        return "nothing"
    tensor.data_type = pick(rng, [*TensorProto.DataType.values(), 99, -1])
    return f"type of {tensor.name}: {tensor.data_type}"


def other_values(model: onnx.ModelProto, rng: Rng) -> str:
    """Numbers of a constant that are still of its type and size."""
    tensor = pick(rng, [t for t in model.graph.initializer if t.raw_data])
    if tensor is None:
        return "nothing"
    if tensor.data_type == TensorProto.INT64:
        values = rng.choice(np.array(NUMBERS, np.int64), len(tensor.raw_data) // 8)
        tensor.raw_data = values.tobytes()
    elif tensor.data_type == TensorProto.FLOAT:
        array = np.frombuffer(tensor.raw_data, np.float32).copy()
        array[rng.integers(len(array))] = pick(rng, FLOATS)
        tensor.raw_data = array.tobytes()
    else:
        tensor.raw_data = rng.bytes(len(tensor.raw_data))
    return f"values of {tensor.name}"


def input_shape(model: onnx.ModelProto, rng: Rng) -> str:
    value = pick(rng, [*model.graph.input, *model.graph.output])
    kind = value.type.tensor_type
    change = int(rng.integers(4))
    if change == 0:
        kind.elem_type = pick(rng, [*TensorProto.DataType.values(), 99])
        return f"type of {value.name}: {kind.elem_type}"
    if change == 1 and len(kind.shape.dim):
        del kind.shape.dim[int(rng.integers(len(kind.shape.dim)))]
        return f"rank of {value.name}"
    if change == 2 or not len(kind.shape.dim):
        kind.shape.dim.add().dim_value = pick(rng, NUMBERS)
        return f"rank of {value.name}"
    dim = pick(rng, kind.shape.dim)
    if rng.integers(3):
        dim.dim_value = pick(rng, NUMBERS)
    else:
        dim.dim_param = pick(rng, TEXTS)
    return f"{dim} in {value.name}".replace("\n", " ")


def swap_inputs(model: onnx.ModelProto, rng: Rng) -> str:
    node = pick(rng, [n for n in model.graph.node if len(n.input)])
    if node is None:
        return "nothing"
    if len(node.input) > 1 and rng.integers(2):
        node.input[0], node.input[1] = node.input[1], node.input[0]
        return f"swapped inputs of {node.name}"
    known = [v for n in model.graph.node for v in n.output] + [t.name for t in model.graph.initializer]
    at = int(rng.integers(len(node.input)))
    node.input[at] = pick(rng, known)  # a cycle, if a later node makes it
    return f"input {at} of {node.name} is {node.input[at]}"


def inputs_missing(model: onnx.ModelProto, rng: Rng) -> str:
    node = pick(rng, [n for n in model.graph.node if len(n.input)])
    if node is None:
        return "nothing"
    at = int(rng.integers(len(node.input)))
    change = int(rng.integers(3))
    if change == 0:
        node.input[at] = ""
    elif change == 1:
        del node.input[at:]
    else:
        node.input.append(pick(rng, [*node.input, "", "nowhere"]))
    return f"inputs of {node.name}: {list(node.input)}"


def same_name(model: onnx.ModelProto, rng: Rng) -> str:
    node, other = pick(rng, model.graph.node), pick(rng, model.graph.node)
    change = int(rng.integers(4))
    if change == 0:
        model.graph.initializer.add().CopyFrom(pick(rng, model.graph.initializer))
        return "an initializer twice"
    if change == 1:
        model.graph.node.add().CopyFrom(node)
        return "a node twice"
    if change == 2:
        model.graph.input.add().CopyFrom(pick(rng, model.graph.input))
        return "an input twice"
    node.output[0] = pick(rng, [*other.output, *other.input])
    return f"{node.name} makes {node.output[0]}"


def removed_initializer(model: onnx.ModelProto, rng: Rng) -> str:
    del model.graph.initializer[int(rng.integers(len(model.graph.initializer)))]
    return "an initializer removed"


def initializer_as_input(model: onnx.ModelProto, rng: Rng) -> str:
    tensor = pick(rng, model.graph.initializer)
    kind = pick(rng, [tensor.data_type, TensorProto.FLOAT, TensorProto.INT64])
    sizes = pick(rng, [list(tensor.dims), [3], None])
    model.graph.input.append(helper.make_tensor_value_info(tensor.name, kind, sizes))
    return f"{tensor.name} is an input too"


def other_operator(model: onnx.ModelProto, rng: Rng) -> str:
    nodes = model.graph.node
    node = pick(rng, nodes)
    change = int(rng.integers(4))
    if change == 0:
        node.domain = pick(rng, ["com.microsoft", "ai.onnx", "ai.onnx.ml", "none", "\x1b[2J"])
    elif change == 1:
        node.op_type = pick(rng, nodes).op_type
    elif change == 2:
        node.op_type = pick(rng, sorted({s.name for s in onnx.defs.get_all_schemas() if not s.domain}))
    else:
        del nodes[int(rng.integers(len(nodes)))]
        return "a node removed"
    return f"{node.name} is {node.domain}::{node.op_type}"


def attribute(model: onnx.ModelProto, rng: Rng) -> str:
    node = pick(rng, [n for n in model.graph.node if len(n.attribute)]) or pick(rng, model.graph.node)
    if not len(node.attribute):
        node.attribute.append(helper.make_attribute("axis", pick(rng, NUMBERS)))
        return f"axis of {node.name}"
    found = pick(rng, node.attribute)
    change = int(rng.integers(5))
    if change == 0:
        found.type = pick(rng, AttributeProto.AttributeType.values())
    elif change == 1:
        found.name = pick(rng, [*TEXTS, "axis", "axes", "perm", "group"])
    elif change == 2:
        found.ref_attr_name = pick(rng, TEXTS)
    elif found.type == AttributeProto.INTS:
        found.ints[:] = [pick(rng, NUMBERS) for _ in range(int(rng.integers(len(found.ints) + 2)))]
    else:
        found.i, found.f = pick(rng, NUMBERS), pick(rng, FLOATS)
    return f"attribute {found.name[:40]} of {node.name}"


def opset(model: onnx.ModelProto, rng: Rng) -> str:
    entry = pick(rng, model.opset_import)
    if entry is None or rng.integers(4) == 0:
        entry = model.opset_import.add(domain=pick(rng, ["", "ai.onnx", "com.microsoft", "x"]))
    entry.version = pick(rng, [*range(30), *NUMBERS])
    if rng.integers(6) == 0:
        model.ir_version = pick(rng, NUMBERS)
    return f"opset {entry.domain}={entry.version}, ir {model.ir_version}"


def external_entry(model: onnx.ModelProto, rng: Rng) -> str:
    """A tensor in a file, with an entry that is not right; ``data`` is what the trial calls that file."""
    external = [t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL]
    tensor = pick(rng, external or model.graph.initializer)
    entries = {e.key: e.value for e in tensor.external_data} or {"location": "model.data"}
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    places = [
        "/etc/passwd", "../outside.data", "..", ".", "", "link.data", "hard.data",
        "folder/../../outside.data", "missing.data", "model.onnx", "//etc/passwd", "C:\\x", "a\x00b", "~/x",
        "file:///etc/passwd", "folder", "link/outside.data", "é" * 300, "/dev/zero", "/proc/self/mem",
        "\ud7ff", "pipe",
    ]  # fmt: skip
    change = int(rng.integers(4))
    if change == 0:
        entries["location"] = pick(rng, places)
    elif change == 1:
        entries["offset"] = str(pick(rng, [*NUMBERS, "x", "1e3", "", " 4", "0x10", "\u0661"]))
    elif change == 2:
        entries["length"] = str(pick(rng, [*NUMBERS, "x", "", "-0", "9" * 5000]))
    else:
        entries[pick(rng, ["checksum", "basepath", "location", "", "x"])] = pick(rng, TEXTS)
    del tensor.external_data[:]
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return f"external {tensor.name}: {str(entries)[:100]}"


MUTATIONS: tuple[Mutation, ...] = (
    any_field, any_field, any_field, any_field, any_field, any_field, dims, transposed, data_type,
    other_values, other_values, input_shape, input_shape, swap_inputs, swap_inputs, inputs_missing, same_name,
    removed_initializer, initializer_as_input, other_operator, other_operator, attribute, attribute,
    attribute, opset, external_entry,
)  # fmt: skip


def mutate(model: onnx.ModelProto, rng: Rng) -> str:
    """One mutation; what it needs may be missing after another one, then nothing happens."""
    change = MUTATIONS[int(rng.integers(len(MUTATIONS)))]
    try:
        return change(model, rng)
    except (
        AttributeError,
        IndexError,
        TypeError,
        ValueError,
    ) as error:  # an emptied model, a number too large
        return f"nothing by {change.__name__}: {error}"
