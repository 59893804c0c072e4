"""Random inputs for an ONNX file whose source has no example of its own."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
from graphprune.converters.parity import Array

from graphprune.errors import ModelError

BATCH, IMAGE, LENGTH = 3, 64, 16
DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


def random_feeds(session: ort.InferenceSession) -> dict[str, Array]:
    """One array per input: floats in 0..1, integers 0 or 1, masks all ones.

    Symbolic axes: the first is the batch of three, further ones of a 4-d input are image sides of
    64, others sequences of 16; an axis name has one size everywhere.

    Raises:
        ModelError: an input is not a tensor of a plain type.
    """
    rng = np.random.default_rng(0)
    sizes: dict[str, int] = {}
    feeds: dict[str, Array] = {}
    for value in session.get_inputs():
        if value.type not in DTYPES:
            what = f"input '{value.name}' is a {value.type}"
            raise ModelError(what, because="the conversion can't be checked with such an input")
        shape = []
        for axis, dim in enumerate(value.shape):
            guess = BATCH if axis == 0 else IMAGE if len(value.shape) == 4 else LENGTH
            shape.append(dim if isinstance(dim, int) else sizes.setdefault(str(dim), guess))
        dtype = DTYPES[value.type]
        if np.issubdtype(dtype, np.floating):
            feeds[value.name] = rng.random(shape).astype(dtype)
        elif dtype is np.bool_ or "mask" in value.name:
            feeds[value.name] = np.ones(shape, dtype)
        else:
            feeds[value.name] = rng.integers(0, 2, shape).astype(dtype)
    return feeds
