"""JAX functions, Flax and Equinox modules to ONNX through jax2onnx, checked against the source."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from graphprune.converters import parity
from graphprune.converters import source as sources
from graphprune.converters.dynamic import Axes, resolve
from graphprune.converters.example import CHECKED_BATCH, arguments_of, find_inputs, resized, split_made
from graphprune.converters.quiet import quiet
from graphprune.converters.report import ConversionReport, describe
from graphprune.converters.staging import staged

from graphprune.errors import ModelError

Function = Callable[..., Any]


def export_made(
    made: Any,
    out: Path,
    *,
    source: str,
    factory: Any = None,
    dynamic: Axes | None = None,
    batch: str | None = "batch",
    opset: int | None = None,
    inputs: Any = None,
) -> ConversionReport:
    """Exports what a factory made: a Flax or Equinox module or a function, with example inputs.

    Args:
        made: the model, or ``(model, example_inputs)``. An Equinox module takes one sample, as
            usual there; it is mapped over the first axis of its example inputs.
        out: the ONNX file to write.
        source: what to call the model in messages.
        factory: where example inputs may be an attribute.
        dynamic: further symbolic axes, ``{input: {axis: name}}``.
        batch: name of the symbolic first axis; None keeps it fixed.
        opset: ONNX opset version; None leaves the choice to jax2onnx.
        inputs: example inputs, before any that the source brings.

    Raises:
        ModelError: jax2onnx is missing, or the model can't run or be exported.
        ValidationError: the file computes something else than the model.
        UsageError: ``dynamic`` names what does not exist.
    """
    _require()
    import jax
    import jax2onnx

    model, given = split_made(made, inputs)
    inference, mapped = _inference(model, source)
    function, arrays = _bind(inference, find_inputs(model, factory, given, what="JAX model"))
    if mapped:
        function = jax.vmap(function)
    axes = resolve({name: array.shape for name, array in arrays.items()}, dynamic, batch)
    checked = resized(arrays, axes, batch, CHECKED_BATCH)
    with quiet():
        try:
            leaves = jax.tree_util.tree_leaves_with_path(function(*checked.values()))
        except Exception as error:  # user code
            what = "the model can't run on its example inputs at another batch size"
            hint = "example inputs whose first axis is the batch"
            raise ModelError(what, where=source, because=_said(error), hint=hint) from error
        specs = [_spec(array, axes[name]) for name, array in arrays.items()]
        with staged(out) as file:
            try:
                proto = jax2onnx.to_onnx(
                    function,
                    specs,
                    input_names=list(arrays),
                    output_names=[_output_name(path) for path, _ in leaves],
                    enable_double_precision=bool(jax.config.jax_enable_x64),
                    **({} if opset is None else {"opset": opset}),
                )
            except Exception as error:  # jax and jax2onnx raise classes of many kinds
                what = f"jax2onnx cannot convert '{source}'"
                raise ModelError(what, because=_said(error)) from error
            onnx.save(proto, file)
            found = parity.run(file, checked)
            measured = parity.check([np.asarray(leaf) for _, leaf in leaves], found, where=source)
            return describe(
                file, source=source, out=out, framework="jax", exporter="jax2onnx", parity=measured
            )


def _inference(model: Any, source: str) -> tuple[Function, bool]:
    """The model as it is after training, and whether it takes one sample at a time."""
    packages = {cls.__module__.partition(".")[0] for cls in type(model).__mro__}
    if not callable(model):
        what = f"'{source}' is not a JAX model but a {type(model).__name__}"
        raise ModelError(what, hint="a factory that returns a Flax or Equinox module or a function")
    if "equinox" in packages:
        import equinox

        return equinox.nn.inference_mode(model), True
    if "flax" in packages:
        if hasattr(model, "eval"):
            model.eval()
        elif getattr(model, "scope", None) is None:
            what = f"the Flax module {type(model).__name__} holds no parameters"
            raise ModelError(what, where=source, hint="let the factory return module.bind(variables)")
    return model, False


def _bind(call: Function, inputs: Any) -> tuple[Function, dict[str, parity.Array]]:
    """``call`` as a function of arrays alone, and the arrays by the names of its parameters."""
    import jax

    args, kwargs = arguments_of(inputs)
    signature = inspect.signature(call)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        what, where = "the example inputs do not fit", f"{_called(call)}{signature}"
        raise ModelError(what, where=where, because=str(error)) from error
    # A flat list of (parameter, place within *args or **kwargs, value).
    slots: dict[str, tuple[str, Any]] = {}
    for name, value in bound.arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            slots.update({f"{name}_{i}": (name, i) for i in range(len(value))})
        elif kind is inspect.Parameter.VAR_KEYWORD:
            slots.update({key: (name, key) for key in value})
        elif isinstance(value, (list, tuple, Mapping)):
            what = f"the example input '{name}' is a {type(value).__name__}"
            raise ModelError(what, because="only arrays can be inputs of the exported model")
        else:
            slots[name] = (name, None)
    values = {
        slot: bound.arguments[name] if at is None else bound.arguments[name][at]
        for slot, (name, at) in slots.items()
    }
    names = [slot for slot, value in values.items() if isinstance(value, (np.ndarray, jax.Array))]
    if not names:
        what = "the example inputs hold no array"
        raise ModelError(what, where=f"{_called(call)}{signature}")

    def function(*arrays: Any) -> Any:
        filled = {**values, **dict(zip(names, arrays, strict=True))}
        arguments = inspect.BoundArguments(signature, bound.arguments.copy())
        for name, value in bound.arguments.items():
            kind = signature.parameters[name].kind
            own = {at: filled[slot] for slot, (owner, at) in slots.items() if owner == name}
            if kind is inspect.Parameter.VAR_POSITIONAL:
                arguments.arguments[name] = tuple(own[i] for i in range(len(value)))
            elif kind is inspect.Parameter.VAR_KEYWORD:
                arguments.arguments[name] = own
            else:
                arguments.arguments[name] = own[None]
        return call(*arguments.args, **arguments.kwargs)

    # JAX computes in float32 unless told otherwise, whatever numpy's type is.
    return function, {name: np.asarray(jax.numpy.asarray(values[name])) for name in names}


def _spec(array: parity.Array, symbolic: Mapping[int, str]) -> Any:
    import jax

    shape = tuple(symbolic.get(axis, size) for axis, size in enumerate(array.shape))
    return jax.ShapeDtypeStruct(shape, array.dtype)


def _output_name(path: tuple[Any, ...]) -> str:
    """``output``, ``output_0`` ..., or the keys of a mapping."""
    keys = [str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path]
    named = bool(path) and not hasattr(path[0], "idx")
    return "_".join(keys if named else ["output", *keys])


def _called(call: Function) -> str:
    return getattr(call, "__name__", type(call).__name__)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {parity.first_line(error)}"


def _require() -> None:
    for package in ("jax", "jax2onnx"):
        try:
            with quiet():
                __import__(package)
        except ImportError as error:
            raise sources.missing(package, "jax") from error
