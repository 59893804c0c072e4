"""The trained weights in the ONNX file, and the proof that it computes what was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from graphprune.converters.recovery.answers import Asked

from graphprune.compare import compare_outputs
from graphprune.errors import ValidationError
from graphprune.model import Model
from graphprune.unrounded import rounds

Array = npt.NDArray[np.generic]
#: Accepted difference between torch and onnxruntime, as a fraction of the largest output.
_ROUNDING = 1e-3
#: The same where the file's numbers have few digits, or activations are rounded to 8 bits.
_FEW_DIGITS = {ir.DataType.FLOAT16: 2e-2, ir.DataType.BFLOAT16: 1e-1}
_QUANTIZED = 1e-1


def recovered(
    module: Any, model: Model, feeds: Mapping[str, Array], names: Sequence[str], threads: int
) -> Model:
    """A copy of ``model`` with the weights of ``module``.

    Raises:
        ValidationError: onnxruntime does not run it, it gives no finite numbers, or others than torch.
    """
    result: Model = module.write_back(model)
    require_same(module, result, feeds, names, threads)
    return result


def require_same(
    module: Any, model: Model, feeds: Mapping[str, Array], names: Sequence[str], threads: int
) -> None:
    """Torch and onnxruntime compute the same from the same numbers.

    Raises:
        ValidationError: they don't.
    """
    found = Asked(model, names, threads)(feeds)
    with torch.no_grad():
        trained = {n: t.float().cpu().numpy() for n, t in module(dict(feeds), fetch=names).items()}
    for name, array in found.items():
        if not np.isfinite(array.astype(np.float64)).all() and np.isfinite(trained[name]).all():
            message = f"output '{name}' is not finite in onnxruntime, and it is in torch"
            because = "the file's numbers have too few digits for it"
            raise ValidationError(message, because=because, hint="a smaller --lr")
    accepted = tolerance(model)
    for difference in compare_outputs(trained, found):
        if not difference.within(accepted):
            message = f"torch and onnxruntime differ by {difference.max_error:.3g}"
            where = f"output '{difference.output}', values up to {difference.scale:.3g}"
            raise ValidationError(message, where=where, hint="please report it")


def tolerance(model: Model) -> float:
    """How far torch and onnxruntime may be apart in a model of these types."""
    types = {v.dtype for v in model.ir.graph.initializers.values()}
    few = max((t for kind, t in _FEW_DIGITS.items() if kind in types), default=_ROUNDING)
    return max(few, _QUANTIZED) if rounds(model) else few
