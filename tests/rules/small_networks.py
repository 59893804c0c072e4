"""Builds, cuts and verifies small networks written in the syntax of onnx.parser."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from graphprune.analysis import Analysis
from graphprune.check import validate
from graphprune.groups import Group, find_groups
from graphprune.model import load
from graphprune.oracle import verify
from graphprune.rewrite import cut
from graphprune.shapes.fold_shapes import prepare


def analysis_of(text: str, opset: int = 21, **constants: object) -> Analysis:
    """The analysis of a graph; lists of shape-like numbers become integers, tuples random weights."""
    rng = np.random.default_rng(1)
    opsets = f'"" : {opset}, "custom" : 1, "com.microsoft" : 1'
    model = onnx.parser.parse_model(f"<ir_version: 10, opset_import: [{opsets}]>" + text)
    for name, value in constants.items():
        array = np.asarray(value)
        if isinstance(value, tuple):
            array = rng.standard_normal(value).astype(np.float32)
        elif array.dtype == np.float64:
            array = array.astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    prepared, trace = prepare(load(model))
    return Analysis(prepared, trace).run()


def groups(analysis: Analysis) -> dict[str, Group]:
    return {g.id: g for g in find_groups(analysis)}


def prune(analysis: Analysis, *ids: str, keep: int = 1) -> None:
    """Removes all but ``keep`` units of some groups (of all if none is named), and verifies."""
    found = groups(analysis)
    removed = np.zeros(len(analysis.algebra), bool)
    for name in ids or [i for i, g in found.items() if g.prunable]:
        assert found[name].prunable, found[name].reason
        removed[found[name].units[:-keep]] = True
    assert removed.any()
    pruned = cut(analysis, removed)
    validate(pruned)
    verify(analysis, removed, pruned)


def reason(analysis: Analysis, name: str) -> str:
    group = groups(analysis)[name]
    assert not group.prunable
    return str(group.reason)
