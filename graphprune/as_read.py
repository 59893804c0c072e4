"""Is the model that was analysed still the one in the file?

Reading brings a graph into another form (constants are computed, branches inlined, bodies opened), and the
oracle compares cuts with that form.  So one run of the file itself tells whether that has changed anything.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from graphprune.compare import Difference, Feeds, compare_outputs, run, session
from graphprune.errors import ValidationError
from graphprune.foreign import foreign_nodes
from graphprune.model import Model
from graphprune.runtime import session_options
from graphprune.widened import widened


def require_as_read(model: Model, feeds: Feeds, tolerance: float) -> None:
    """The file that a model was read from gives the same outputs.

    Nothing is asked where there is no file, where onnxruntime can't run it as it is, and about outputs that
    are not finite.

    Args:
        model: in the form in which it was analysed.
        feeds: inputs.
        tolerance: largest accepted difference as a fraction of the outputs' largest magnitude.

    Raises:
        ValidationError: an output differs.
    """
    if model.path is None or foreign_nodes(model.ir.graph) or widened(model) is not model:
        return
    outputs = _outputs_of_file(model.path, feeds)
    finite = {k: v for k, v in outputs.items() if _is_finite(v)}
    if not finite:
        return
    for difference in compare_outputs(finite, run(session(model), feeds)):
        if not difference.within(tolerance):
            raise changed_by_reading(difference, model.path)


def changed_by_reading(difference: Difference, path: Path | None) -> ValidationError:
    """What is said where the file itself gives other values than the model that was read from it."""
    message = "the model was changed by reading it"
    return ValidationError(
        message,
        where=f"output '{difference.output}', values up to {difference.scale:.3g}",
        because=f"'{path}' itself gives values that differ by {difference.max_error:.3g}; "
        "nothing was written",
        hint="please report this model: it shows a mistake in graphprune",
    )


def _outputs_of_file(path: Path, feeds: Feeds) -> dict[str, npt.NDArray[np.generic]]:
    """All outputs of the file as it is; none if onnxruntime can't run it."""
    try:
        runner = ort.InferenceSession(str(path), session_options(), providers=["CPUExecutionProvider"])
        return run(runner, feeds)
    except Exception:  # onnxruntime raises a dozen unrelated classes
        return {}


def _is_finite(array: npt.NDArray[np.generic]) -> bool:
    # An output of strings or a sequence comes as it is.
    is_float = isinstance(array, np.ndarray) and array.dtype.kind == "f"
    return not is_float or bool(np.isfinite(array).all())
