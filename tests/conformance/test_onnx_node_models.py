"""The law on ONNX's own node test models: every operator that has a rule, in every form ONNX tests.

Each model is taken with its own input data; all inputs but the first become constants, so that shapes,
indices, weights and axes are what exporters make of them. What is left out is counted by reason, and the
counts are pinned: a rule that blocks more than before, or a check that is silently skipped, is noticed.
"""

from __future__ import annotations

import warnings
import zlib
from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from rule_law import LawBroken, OpenAnalysis, check_removal, evaluate, removals

from graphprune.errors import ModelError
from graphprune.fold_shapes import prepare
from graphprune.model import load
from graphprune.rules import RULES

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from onnx.backend.test.case.node import collect_testcases

    MODELS = [c for c in collect_testcases(None) if "_expanded" not in c.name and c.data_sets]

# Removed slices of these hold 0/0 or log(0), or the model counts positions: what a whole network checks
# by the kept slices alone.
NOT_FINITE = {"Div", "Log", "Reciprocal", "Pow", "LpNormalization", "Mod", "ReduceLogSum", "Acosh"}
# A random mask, and single positions along a statistic (NaN).
NOT_JUDGED = {"Dropout", "MeanVarianceNormalization"}


def main_op(model: onnx.ModelProto) -> str | None:
    """The operator a model is about, if a rule covers it."""
    if len(model.graph.node) != 1:
        return None
    node = model.graph.node[0]
    opset = next((o.version for o in model.opset_import if o.domain == node.domain), 1)
    return node.op_type if RULES.find(node.domain, node.op_type, opset) else None


BY_OP: dict[str, list] = {}
for _model in MODELS:
    _op = main_op(_model.model)
    if _op is not None:
        BY_OP.setdefault(_op, []).append(_model)

OUTCOMES: Counter[str] = Counter()


def with_constants(case: object) -> tuple[onnx.ModelProto, dict[str, np.ndarray]] | None:
    """The model with all inputs but the first as initializers; None for data that is no array."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)  # type: ignore[attr-defined]
    arrays = case.data_sets[0][0]  # type: ignore[attr-defined]
    names = [i.name for i in model.graph.input]
    if any(not isinstance(a, (np.ndarray, np.generic)) for a in arrays) or not names:
        return None
    feeds = {n: np.asarray(a) for n, a in zip(names, arrays, strict=True)}
    if any(a.dtype.kind not in "fiub" for a in feeds.values()):
        return None
    first = model.graph.input[0]
    del model.graph.input[:]
    model.graph.input.append(first)
    model.graph.initializer.extend(numpy_helper.from_array(feeds[n], n) for n in names[1:])
    return model, {first.name: feeds[first.name]}


def outcome(case: object, op_type: str) -> Iterator[str]:
    """What became of a model: "law", "statistic" per checked removal set, or why it was left out."""
    prepared = with_constants(case)
    if prepared is None:
        yield "data is no plain array"
        return
    model, feeds = prepared
    try:
        ready, trace = prepare(load(model))
    except ModelError:
        yield "not a model that graphprune reads"
        return
    if not ready.ir.graph.num_nodes():
        yield "nothing but constants"
        return
    analysis = OpenAnalysis(ready, trace).run()
    outputs = [o.name for o in ready.ir.graph.outputs]
    if not all(name in analysis.axes for name in outputs):
        yield "an output of unknown shape"
        return
    try:
        with np.errstate(all="ignore"):
            evaluate(ready.to_proto(), feeds)
    except Exception:  # noqa: BLE001 - whatever the runtimes can't do themselves
        yield "neither runtime can run it"
        return
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))  # type: ignore[attr-defined]
    tried = Counter(
        "law" if check_removal(analysis, feeds, removed, finite=op_type not in NOT_FINITE) else "statistic"
        for removed in removals(analysis, rng, 2)
    )
    yield from (tried or ["nothing can be removed"])


@pytest.mark.parametrize("op_type", sorted(BY_OP))
@pytest.mark.filterwarnings("ignore")
def test_law_on_node_models(op_type: str) -> None:
    for case in BY_OP[op_type]:
        if op_type in NOT_JUDGED:
            OUTCOMES["not judged"] += 1
            continue
        try:
            OUTCOMES.update(outcome(case, op_type))
        except LawBroken as error:
            message = f"{case.name}: {error}"
            raise LawBroken(message) from error


def test_counts() -> None:
    assert dict(OUTCOMES) == {}
