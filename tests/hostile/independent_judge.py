"""Compares a cut file with the original, whose cut slices are set to zero, by the plan file alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from random_trial import NOT_ZEROS, session, zeroed

from graphprune.plan import Plan

TOLERANCE = 1e-3


def compare(original: Path, pruned: Path, document: dict[str, Any]) -> str:
    """``equal``, ``differs ...``, or why it can't be said."""
    plan = Plan.from_json(document)
    if NOT_ZEROS & {group.kind for group in plan.groups}:
        return "not comparable by zeros"
    model = onnx.load(original)
    try:
        reference = session(zeroed(model, plan), optimize=False)
        feeds = random_feeds(reference)
        expected = reference.run(None, feeds)
    except Exception:  # onnxruntime raises a dozen unrelated classes
        return "not comparable: the original does not run"
    try:
        found = session(onnx.load(pruned), optimize=False).run(None, feeds)
    except Exception as error:
        return f"differs: the result does not run: {str(error).splitlines()[0]}"
    for a, b in zip(expected, found, strict=True):
        if not isinstance(a, np.ndarray) or a.dtype.kind not in "fiub":
            continue
        if a.shape != b.shape:
            return f"differs in shape: {a.shape}, {b.shape}"
        if not np.isfinite(a).all():
            return "not comparable: not finite"
        scale = max(float(np.abs(a).max(initial=0)), 1e-3)
        error = float(np.abs(a.astype(float) - b).max(initial=0))
        if not error <= TOLERANCE * scale:
            return f"differs by {error:.3g} of {scale:.3g}"
    return "equal"


def random_feeds(runner: ort.InferenceSession) -> dict[str, Any]:
    """Small random inputs; symbolic sizes are 2, or the same number for the same name."""
    rng = np.random.default_rng(0)
    sizes: dict[str, int] = {}
    found: dict[str, Any] = {}
    for value in runner.get_inputs():
        shape = [
            d if isinstance(d, int) else sizes.setdefault(str(d), 2 + 3 * bool(len(sizes)))
            for d in value.shape
        ]
        if np.prod([float(n) for n in shape]) > 1e7:
            message = "too large to feed"
            raise ValueError(message)
        kind = value.type.removeprefix("tensor(").removesuffix(")")
        if kind in ("float", "double", "float16"):
            dtype = {"float": "f4", "double": "f8", "float16": "f2"}[kind]
            found[value.name] = rng.standard_normal(shape).astype(dtype)
        elif kind == "bool":
            found[value.name] = np.ones(shape, bool)
        else:
            found[value.name] = rng.integers(0, 5, shape).astype(kind)
    return found
