"""The law on ONNX's own test models: every operator, in every form that ONNX tests.

These are the node tests (one node each, and most functions once more written out in other operators) and the
small stored models.  Each is taken with its own input data; all inputs but the first become constants, so
that shapes, indices, weights and axes are what exporters make of them.  What became of each model, or why it
was left out, is counted, and the counts are pinned in ``outcomes.txt`` (``GRAPHPRUNE_UPDATE_GOLDEN=1`` in one
process writes it anew): a rule that blocks more than before, or a check that is silently skipped, is noticed.
"""

from __future__ import annotations

import os
import zlib
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx_models import CASES, EXPANDED, OTHERS, STORED
from rule_law import LawBroken, OpenAnalysis, check_removal, evaluate, removals

from graphprune.errors import GraphPruneError
from graphprune.model import load
from graphprune.rules import RULES
from graphprune.shapes.fold_shapes import prepare

PINNED = Path(__file__).with_name("outcomes.txt")
UPDATE = "GRAPHPRUNE_UPDATE_GOLDEN"

# Removed slices of these hold 0/0 or log(0), or the model counts positions: what a whole network checks
# by the kept slices alone.
NOT_FINITE = {
    "Div", "Log", "Reciprocal", "Pow", "LpNormalization", "Mod", "ReduceLogSum", "ReduceLogSumExp", "Acosh",
    "LogSoftmax", "Where", "Range", "Celu", "Sqrt",
}  # fmt: skip
# A random mask, and single positions along a statistic (NaN).
NOT_JUDGED = {"Dropout", "MeanVarianceNormalization", "Bernoulli", "RandomUniformLike", "RandomNormalLike"}


def subjects() -> dict[str, list[Any]]:
    """All cases, by what they are about."""
    found: dict[str, list[Any]] = {}
    for case in CASES + OTHERS:
        node = case.model.graph.node[0]
        found.setdefault(node.domain + "::" * bool(node.domain) + node.op_type, []).append(case)
    for case in EXPANDED:
        found.setdefault(f"{case.name.split('_')[1]} written out", []).append(case)
    for case in STORED:
        kind, name = case.name.split("/")
        words = name.removeprefix("test_").removeprefix("operator_").split("_")
        found.setdefault(f"{kind} {words[0]}", []).append(case)
    return found


SUBJECTS = subjects()
OUTCOMES: dict[str, Counter[str]] = {}


def with_constants(case: Any) -> tuple[onnx.ModelProto, dict[str, np.ndarray]] | None:
    """The model with all inputs but the first as initializers; None for data that is no array."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    arrays = case.data_sets[0][0]
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in stored]
    if any(not isinstance(a, (np.ndarray, np.generic)) for a in arrays) or not inputs:
        return None
    feeds = {i.name: np.asarray(a) for i, a in zip(inputs, arrays, strict=True)}
    if any(a.dtype.kind not in "fiub" for a in feeds.values()):
        return None
    first = inputs[0]
    del model.graph.input[:]
    model.graph.input.append(first)
    others = [i.name for i in inputs[1:]]
    model.graph.initializer.extend(numpy_helper.from_array(feeds[n], n) for n in others)
    model.ir_version = max(model.ir_version, 4)  # initializers need not be inputs
    return model, {first.name: feeds[first.name]}


def outcome(case: Any) -> str:
    """What a model was judged by: "law" or, where a norm runs over all, "statistic"; or why it was not."""
    opset = {o.domain: o.version for o in case.model.opset_import}
    nodes = case.model.graph.node
    if not case.data_sets:
        return "no data"
    if not any(RULES.find(n.domain, n.op_type, opset.get(n.domain, 1)) for n in nodes):
        return "no operator with a rule"
    if NOT_JUDGED & {node.op_type for node in nodes}:
        return "not judged"
    prepared = with_constants(case)
    if prepared is None:
        return "data is no plain array"
    model, feeds = prepared
    try:
        ready, trace = prepare(load(model))
    except GraphPruneError:
        return "not a model that graphprune reads"
    if not ready.ir.graph.num_nodes():
        return "nothing but constants"
    analysis = OpenAnalysis(ready, trace).run()
    if not all(o.name in analysis.axes for o in ready.ir.graph.outputs):
        return "an output of unknown shape"
    try:
        with np.errstate(all="ignore"):
            evaluate(ready.to_proto(), feeds)
    except Exception:
        return "neither runtime can run it"
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    # Of what is written out as well, the operator itself is tried more often.
    most = 2 if len(nodes) > 1 else 4
    is_finite = not NOT_FINITE & {node.op_type for node in ready.ir.graph.all_nodes()}
    exact = [
        check_removal(analysis, feeds, removed, finite=is_finite)
        for removed in islice(removals(analysis, rng, 2), most)
    ]
    if not exact:
        return "nothing can be removed"
    return "law" if any(exact) else "statistic"


def pinned() -> dict[str, dict[str, int]]:
    """What ``outcomes.txt`` says."""
    found = {}
    for line in PINNED.read_text(encoding="utf-8").splitlines():
        subject, _, counts = line.partition(": ")
        pairs = (item.rsplit(" ", 1) for item in counts.split(", "))
        found[subject] = {what: int(number) for what, number in pairs}
    return found


@pytest.mark.parametrize("subject", sorted(SUBJECTS))
@pytest.mark.filterwarnings("ignore")
def test_law_on_node_models(subject: str) -> None:
    found: Counter[str] = Counter()
    for case in SUBJECTS[subject]:
        try:
            found[outcome(case)] += 1
        except LawBroken as error:
            message = f"{case.name}: {error}"
            raise LawBroken(message) from error
    OUTCOMES[subject] = found
    if UPDATE not in os.environ:
        assert dict(found) == pinned()[subject]


def test_counts() -> None:
    """Every model is counted, and so many are judged in all."""
    if UPDATE in os.environ:
        lines = [
            f"{subject}: {', '.join(f'{what} {n}' for what, n in sorted(counts.items()))}\n"
            for subject, counts in sorted(OUTCOMES.items())
        ]
        PINNED.write_text("".join(lines), encoding="utf-8")
    assert pinned().keys() == SUBJECTS.keys()
    assert sum(len(cases) for cases in SUBJECTS.values()) == 2024
    total: Counter[str] = Counter()
    for counts in pinned().values():
        total.update(counts)
    assert dict(total) == {
        "law": 1247,
        "nothing can be removed": 239,
        "data is no plain array": 222,  # bfloat16, float8, 4-bit integers, strings, sequences
        "no operator with a rule": 193,
        "statistic": 86,
        "not judged": 16,
        "neither runtime can run it": 14,  # forms before opset 7 that none knows any more
        "an output of unknown shape": 7,
    }
