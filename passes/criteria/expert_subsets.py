"""The output of a mixture of experts with some of them left out.

A dropped expert's logit is minus infinity, so that TopK and softmax choose and weigh among the rest (Lu et
al. 2024, "Not all experts are equal").  Only the layer itself runs, on the original's tokens, with the mask
as an input.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from math import comb

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from graphprune.passes.criteria.routers import Router

from graphprune.analysis import touched
from graphprune.calibration.evidence import Evidence
from graphprune.calibration.pieces import opened, part_of

Scores = npt.NDArray[np.float64]
Tensor = npt.NDArray[np.generic]
#: Tokens that are looked at.
TOKENS = 2048
#: As many subsets are tried one by one.
SUBSETS = 100
#: Rounds of the elimination; with more experts several go in one.
ROUNDS = 16
#: Samples per run.
_PIECE = 4


class MaskedLayer:
    """Runs one mixture of experts with some of them left out.

    Args:
        evidence: the model and its samples.
        router: of the mixture; its experts come together somewhere.
        tokens: how many are looked at, about.
    """

    def __init__(self, evidence: Evidence, router: Router, tokens: int = TOKENS) -> None:
        assert router.result is not None
        self.experts = len(router.units)
        self._name = router.logits.name or ""
        landed = evidence.landing(router.result).value
        self._collect(evidence, router, landed, tokens)
        nodes, inputs = _between(evidence, router.source, router.result)
        ordered = [n for n in evidence.graph.model.ir.graph if n in nodes]
        kinds = {v.name or "": int(v.dtype or ir.DataType.FLOAT) for v in inputs}
        proto = part_of(evidence.graph.model, ordered, kinds, [router.result.name or ""])
        producer = router.logits.producer()
        assert producer is not None
        dtype = router.logits.dtype or ir.DataType.FLOAT
        self._dtype = dtype.numpy()
        _mask_logits(proto.graph, self._name, int(dtype))
        self._session = opened(proto, f"{producer.op_type} '{producer.name}'", evidence.threads)
        self._inputs = list(kinds)

    def _collect(self, evidence: Evidence, router: Router, landed: ir.Value, tokens: int) -> None:
        assert router.result is not None
        whole = evidence.exposing([router.source, router.result, landed])
        names = [output.name for output in whole.get_outputs()]
        read = [value.name for value in whole.get_inputs()]
        self._stored: list[dict[str, Tensor]] = []
        self._dense: list[npt.NDArray[np.float64]] = []
        sums = []
        for part in evidence.samples.batches(_PIECE):
            found = dict(zip(names, whole.run(names, {n: part[n] for n in read}), strict=True)) | part
            result = found[router.result.name or ""]
            self._stored.append({**part, router.source.name or "": found[router.source.name or ""]})
            self._dense.append(np.asarray(result, np.float64))
            sums.append(np.asarray(found[landed.name or ""], np.float64).reshape(-1, result.shape[-1]))
            tokens -= result.size // result.shape[-1]
            if tokens <= 0:
                break
        stream = np.concatenate(sums)
        self.energy = max(float(stream.var(axis=0).sum()), np.finfo(float).tiny)

    def error(self, kept: Iterable[int]) -> float:
        """Squared error of the output per token, relative to the variance of the sum it is added to."""
        mask = np.full(self.experts, np.finfo(self._dtype).min / 4, self._dtype)
        mask[list(kept)] = 0
        total, tokens = 0.0, 0
        for stored, dense in zip(self._stored, self._dense, strict=True):
            feeds = {name: stored[name] for name in self._inputs} | {f"{self._name}/mask": mask}
            found = np.asarray(self._session.run(None, feeds)[0], np.float64)
            total += float(np.square(found - dense).sum())
            tokens += found.size // found.shape[-1]
        return total / max(tokens, 1) / self.energy


def eliminated(evidence: Evidence, router: Router) -> Scores | str:
    """What each expert adds to the layer's error when the least important go first, one after another."""
    if router.result is None:
        return "the experts' outputs come together nowhere"
    layer = MaskedLayer(evidence, router)
    kept = list(range(layer.experts))
    scores, before, floor = np.zeros(layer.experts), 0.0, 0.0
    while len(kept) > max(router.group.least, 1):
        errors = np.array([layer.error(k for k in kept if k != e) for e in kept])
        goes = max(1, layer.experts // ROUNDS)
        gone = [kept[i] for i in np.argsort(errors, kind="stable")[:goes]]
        gone = gone[: len(kept) - max(router.group.least, 1)]
        kept = [k for k in kept if k not in gone]
        after = layer.error(kept) if len(gone) > 1 else float(errors.min())
        for e in gone:
            floor = max(floor, (after - before) / len(gone))
            scores[e] = floor
        before = max(before, after)
    # Those that have to stay are never asked about; they come last in any order.
    scores[kept] = floor * 2 + np.finfo(float).tiny
    return scores


def best_subset(layer: MaskedLayer, keep: int) -> tuple[int, ...]:
    """The experts to keep: the best of all subsets if these are few, by elimination otherwise."""
    if comb(layer.experts, keep) <= SUBSETS:
        return min(combinations(range(layer.experts), keep), key=layer.error)
    kept = tuple(range(layer.experts))
    while len(kept) > keep:
        fewer = [tuple(k for k in kept if k != e) for e in kept]
        kept = min(fewer, key=layer.error)
    return kept


def _between(evidence: Evidence, source: ir.Value, result: ir.Value) -> tuple[set[ir.Node], set[ir.Value]]:
    """Nodes that make ``result`` of ``source`` and of the model's inputs, and what they read."""
    nodes: set[ir.Node] = set()
    inputs: set[ir.Value] = set()
    todo = [result]
    own = set(evidence.graph.model.ir.graph.inputs)
    while todo:
        value = todo.pop()
        node = value.producer()
        if value is source or value in own:
            inputs.add(value)
        elif node is not None and node not in nodes:
            nodes.add(node)
            todo += touched(node)
    return nodes, inputs


def _mask_logits(graph: onnx.GraphProto, name: str, dtype: int) -> None:
    """All that reads the logits reads them with a mask added, which is an input."""
    for i, node in enumerate(graph.node):
        if name in node.output:
            node.output[list(node.output).index(name)] = f"{name}/raw"
            add = onnx.helper.make_node("Add", [f"{name}/raw", f"{name}/mask"], [name])
            graph.node.insert(i + 1, add)
            break
    graph.input.append(onnx.helper.make_tensor_value_info(f"{name}/mask", dtype, None))
