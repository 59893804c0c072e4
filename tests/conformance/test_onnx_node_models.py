"""The law on ONNX's own node test models: every operator that has a rule, in every form ONNX tests.

Each model is taken with its own input data; all inputs but the first become constants, so that shapes,
indices, weights and axes are what exporters make of them. What is left out is counted by reason, and the
counts are pinned: a rule that blocks more than before, or a check that is silently skipped, is noticed.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx_models import CASES
from rule_law import LawBroken, OpenAnalysis, check_removal, evaluate, removals

from graphprune.errors import ModelError
from graphprune.model import load
from graphprune.rules import RULES
from graphprune.shapes.fold_shapes import prepare

# Removed slices of these hold 0/0 or log(0), or the model counts positions: what a whole network checks
# by the kept slices alone.
NOT_FINITE = {"Div", "Log", "Reciprocal", "Pow", "LpNormalization", "Mod", "ReduceLogSum", "Acosh"}
# A random mask, and single positions along a statistic (NaN).
NOT_JUDGED = {"Dropout", "MeanVarianceNormalization"}


def main_op(model: onnx.ModelProto) -> str | None:
    """The operator a model is about, if a rule covers it."""
    node = model.graph.node[0]
    opset = next((o.version for o in model.opset_import if o.domain == node.domain), 1)
    return node.op_type if RULES.find(node.domain, node.op_type, opset) else None


BY_OP: dict[str, list[Any]] = {}
for _case in CASES:
    _op = main_op(_case.model) if _case.data_sets else None
    if _op is not None:
        BY_OP.setdefault(_op, []).append(_case)

OUTCOMES: Counter[str] = Counter()
DONE: set[str] = set()


def with_constants(case: Any) -> tuple[onnx.ModelProto, dict[str, np.ndarray]] | None:
    """The model with all inputs but the first as initializers; None for data that is no array."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    arrays = case.data_sets[0][0]
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


def outcome(case: Any, op_type: str) -> Iterator[str]:
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
    except Exception:
        yield "neither runtime can run it"
        return
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
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
    DONE.add(op_type)


def test_counts() -> None:
    """How many removals were judged, and how many models were left out for which reason."""
    if set(BY_OP) - DONE:
        pytest.skip("not all operators were run")
    assert dict(OUTCOMES) == {
        "law": 605,
        "statistic": 94,
        "nothing can be removed": 172,
        "data is no plain array": 125,  # bfloat16, float8, 4-bit integers, strings
        "not judged": 13,
        "neither runtime can run it": 2,
    }
