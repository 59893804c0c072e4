"""TensorFlow and Keras to ONNX through tf2onnx, checked against the source."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from graphprune.converters import parity
from graphprune.converters import source as sources
from graphprune.converters.dynamic import name_batch
from graphprune.converters.quiet import quiet
from graphprune.converters.report import ConversionReport, describe
from graphprune.converters.sample import BATCH, random_feeds
from graphprune.converters.staging import staged

from graphprune.errors import ModelError

KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
OPSET = 18
Function = Callable[[Mapping[str, parity.Array]], Sequence[parity.Array]]


def _erfc(context: Any, node: Any, name: str, arguments: Any) -> Any:
    """``1 - Erf(x)``: ONNX has no Erfc, which is what Keras makes a GELU of."""
    kind = context.get_dtype(node.output[0])
    one = context.make_const(f"{name}__one", np.ones((), onnx.helper.tensor_dtype_to_np_dtype(kind)))
    context.remove_node(name)
    erf = context.make_node("Erf", node.input, name=f"{name}__erf")
    return context.make_node("Sub", [one.output[0], erf.output[0]], name=name, outputs=node.output)


HANDLERS: dict[str, tuple[Callable[..., Any], list[Any]]] = {"Erfc": (_erfc, [])}


def to_onnx(source: str, out: str | Path, *, opset: int | None = None) -> ConversionReport:
    """Converts a SavedModel folder, a ``.keras`` or ``.h5`` file, or a factory's Keras model.

    Args:
        source: a path, or ``module:factory``.
        out: the ONNX file to write.
        opset: ONNX opset version; 18 by default.

    Raises:
        ModelError: TensorFlow or tf2onnx is missing, the source can't be loaded, or the conversion
            fails.
        ValidationError: the file computes something else than the source.
    """
    path = Path(source)
    is_file = path.suffix in KERAS_SUFFIXES
    if is_file and not path.exists():  # said before anybody installs TensorFlow for nothing
        msg = f"there is no file '{source}'"
        raise ModelError(msg)
    require("tensorflow", "tf2onnx")
    if path.is_dir() or is_file:
        with quiet():
            made = _load(path)
    else:
        made = sources.call_factory(sources.load_factory(source), source)
    return export_made(made, Path(out), source=source, opset=opset)


def export_made(made: Any, out: Path, *, source: str, opset: int | None = None) -> ConversionReport:
    """Converts a Keras model or a loaded SavedModel (``serving_default``); see :func:`to_onnx`."""
    require("tensorflow", "tf2onnx")
    model = made[0] if isinstance(made, tuple) else made
    with quiet(), staged(out) as file:
        try:
            proto, function = _translate(model, opset or OPSET)
        except ModelError:
            raise
        except Exception as error:  # tf2onnx and TensorFlow raise classes of many kinds
            what = f"tf2onnx cannot convert '{source}'"
            because = f"{type(error).__name__}: {parity.first_line(error)}"
            raise ModelError(what, because=because) from error
        onnx.save(proto, file)
        feeds = random_feeds(parity.session(file))
        expected, found = function(feeds), parity.run(file, feeds)
        measured = parity.check(expected, found, where=source)
        arrays = {**feeds, **found}
        name_batch(proto, {name for name, array in arrays.items() if array.shape[:1] == (BATCH,)})
        onnx.save(proto, file)
        return describe(
            file,
            source=source,
            out=out,
            framework="tensorflow",
            exporter="tf2onnx",
            parity=measured,
        )


def _translate(model: Any, opset: int) -> tuple[onnx.ModelProto, Function]:
    """The ONNX model, and the source as a function of arrays by input name."""
    import tensorflow as tf
    import tf2onnx

    if hasattr(model, "signatures") and not hasattr(model, "inputs"):
        serving = _serving(model)
        specs = serving.structured_input_signature[1]
        names = sorted(specs)
        signature = [tf.TensorSpec(specs[n].shape, specs[n].dtype, name=n) for n in names]

        @tf.function(input_signature=signature)  # type: ignore[untyped-decorator]
        def positional(*tensors: Any) -> Any:
            return serving(**dict(zip(names, tensors, strict=True)))

        proto, _ = tf2onnx.convert.from_function(
            positional, signature, opset=opset, custom_op_handlers=HANDLERS
        )
        call: Callable[..., Any] = positional
    else:
        inputs = _keras_inputs(model)
        names = [tensor.name for tensor in inputs]

        def call(*tensors: Any) -> Any:
            return model(list(tensors) if len(tensors) > 1 else tensors[0], training=False)

        try:
            proto, _ = tf2onnx.convert.from_keras(model, opset=opset, custom_op_handlers=HANDLERS)
        except KeyError:  # it looks for the outputs of a nested model under their inner names
            signature = [tf.TensorSpec(t.shape, t.dtype, name=t.name) for t in inputs]
            traced = tf.function(call, input_signature=signature)
            proto, _ = tf2onnx.convert.from_function(
                traced, signature, opset=opset, custom_op_handlers=HANDLERS
            )

    given = [value.name for value in proto.graph.input]
    order = names if set(names) == set(given) else given

    def function(feeds: Mapping[str, parity.Array]) -> list[parity.Array]:
        result = call(*(tf.constant(feeds[name]) for name in order))
        return [np.asarray(leaf) for leaf in tf.nest.flatten(result)]

    return proto, function


def _serving(model: Any) -> Any:
    signature = model.signatures.get("serving_default")
    if signature is None:
        what = "the SavedModel has no signature 'serving_default'"
        raise ModelError(what, because=f"it has {sorted(model.signatures)}")
    return signature


def _keras_inputs(model: Any) -> list[Any]:
    inputs = getattr(model, "inputs", None)
    if not inputs:
        what = f"the Keras model {type(model).__name__} has no inputs yet"
        raise ModelError(what, hint="call it once on an example, or build it, in the factory")
    return list(inputs)


def _load(path: Path) -> Any:
    import tensorflow as tf

    try:
        if path.is_dir():
            return tf.saved_model.load(str(path))
        return tf.keras.models.load_model(path, compile=False)
    except Exception as error:
        what = f"TensorFlow cannot load '{path}'"
        raise ModelError(what, because=parity.first_line(error)) from error


def require(*packages: str) -> None:
    """Imports them without their chatter.

    Raises:
        ModelError: one is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for package in packages:
        try:
            with quiet():
                __import__(package)
        except ImportError as error:
            raise sources.missing(package, "tensorflow") from error
