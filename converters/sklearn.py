"""Fitted scikit-learn estimators to ONNX through skl2onnx, checked against the source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from graphprune.converters import parity
from graphprune.converters import source as sources
from graphprune.converters.dynamic import name_batch
from graphprune.converters.example import split_made
from graphprune.converters.quiet import quiet
from graphprune.converters.report import ConversionReport, describe
from graphprune.converters.staging import staged

from graphprune.errors import ModelError, ValidationError

OPSET = 18
SAMPLES = 64
# A margin between two probabilities below which rounding may turn the label.
UNDECIDED = 1e-4


def export_made(
    made: Any, out: Path, *, source: str, opset: int | None = None, inputs: Any = None
) -> ConversionReport:
    """Converts a fitted estimator or Pipeline.

    Classifiers give their labels and, as one plain tensor, their probabilities.

    Args:
        made: the estimator, or ``(estimator, example_inputs)``; without an example, samples are
            drawn from a standard normal distribution.
        out: the ONNX file to write.
        source: what to call the model in messages.
        opset: ONNX opset version; 18 by default.
        inputs: example inputs ``[samples, features]``, before any that the source brings.

    Raises:
        ModelError: skl2onnx is missing, the estimator is not fitted, or it can't be converted.
        ValidationError: the file computes something else than the estimator.
    """
    _require()
    import skl2onnx
    from skl2onnx.common.data_types import FloatTensorType

    estimator, given = split_made(made, inputs)
    features = getattr(estimator, "n_features_in_", None)
    if not hasattr(estimator, "predict") or features is None:
        what = f"'{source}' is not a fitted estimator but a {type(estimator).__name__}"
        raise ModelError(what, hint="a factory that returns the estimator after fit()")
    samples = _samples(given, int(features), source)
    classifies = hasattr(estimator, "classes_")
    with quiet(), staged(out) as file:
        try:
            proto = skl2onnx.to_onnx(
                estimator,
                initial_types=[("X", FloatTensorType([None, int(features)]))],
                # Without this, probabilities are a list of dictionaries.
                options={"zipmap": False} if classifies else None,
                target_opset={"": opset or OPSET, "ai.onnx.ml": 3},
            )
        except Exception as error:  # skl2onnx raises classes of many kinds
            what = f"skl2onnx cannot convert '{source}'"
            because = f"{type(error).__name__}: {parity.first_line(error)}"
            raise ModelError(what, because=because) from error
        _whole_rows(proto, estimator)
        onnx.save(proto, file)
        measured = _compare(estimator, samples, parity.run(file, {"X": samples}), source)
        name_batch(proto, {value.name for value in (*proto.graph.input, *proto.graph.output)})
        onnx.save(proto, file)
        return describe(
            file, source=source, out=out, framework="sklearn", exporter="skl2onnx", parity=measured
        )


def _whole_rows(proto: onnx.ModelProto, estimator: Any) -> None:
    """Several targets stay side by side; skl2onnx reshapes a network's outputs to one column."""
    last_step = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
    targets = getattr(last_step, "n_outputs_", 1)
    if hasattr(estimator, "classes_") or targets == 1:
        return
    last = next(node for node in proto.graph.node if proto.graph.output[0].name in node.output)
    if last.op_type == "Reshape":
        shape = next(tensor for tensor in proto.graph.initializer if tensor.name == last.input[1])
        shape.CopyFrom(onnx.numpy_helper.from_array(np.array([-1, targets]), shape.name))
        del proto.graph.output[0].type.tensor_type.shape.dim[:]
        for size in ("batch", targets):
            dim = proto.graph.output[0].type.tensor_type.shape.dim.add()
            setattr(dim, "dim_param" if isinstance(size, str) else "dim_value", size)


def _compare(
    estimator: Any, samples: parity.Array, found: Mapping[str, parity.Array], source: str
) -> parity.Parity:
    """Numbers agree to rounding, and labels wherever rounding doesn't decide."""
    if not hasattr(estimator, "predict_proba"):
        labels, (name, got) = estimator.predict(samples), next(iter(found.items()))
        if labels.dtype.kind in "fiub":
            expected = labels[:, None] if labels.ndim == 1 and got.ndim == 2 else labels
            return parity.check([expected], {name: got}, where=source)
        _same_labels(labels, got, np.ones(len(labels), np.bool_), source)
        return parity.Parity(0.0, 0.0)
    (_, got), (name, scores) = found.items()
    expected = np.asarray(estimator.predict_proba(samples))
    measured = parity.check([expected], {name: scores}, where=source)
    ordered = np.sort(expected, axis=-1)
    decided = ordered[:, -1] - ordered[:, -2] > UNDECIDED
    _same_labels(np.asarray(estimator.predict(samples)), got, decided, source)
    return measured


def _same_labels(want: parity.Array, got: parity.Array, decided: parity.Array, source: str) -> None:
    wrong = int(np.sum(want[decided].astype(str) != got[decided].astype(str)))
    if wrong:
        what = "the labels of the converted model are not those of the source"
        raise ValidationError(what, where=source, because=f"{wrong} of {int(decided.sum())} differ")


def _samples(given: Any, features: int, source: str) -> parity.Array:
    if given is None:
        return np.random.default_rng(0).standard_normal((SAMPLES, features)).astype(np.float32)
    if isinstance(given, Mapping):
        given = next(iter(given.values()))
    samples = np.asarray(given[0] if isinstance(given, tuple) else given, np.float32)
    if samples.ndim != 2 or samples.shape[1] != features:
        what = f"the example inputs have shape {list(samples.shape)}"
        raise ModelError(what, where=source, because=f"the estimator wants [samples, {features}]")
    return samples


def _require() -> None:
    for package in ("sklearn", "skl2onnx"):
        try:
            with quiet():
                __import__(package)
        except ImportError as error:
            raise sources.missing(package, "sklearn") from error
