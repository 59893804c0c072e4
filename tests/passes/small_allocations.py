"""Small networks to allocate in, and every cut of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import onnx
from graphprune.passes.allocators import Allocation, Limits
from graphprune.passes.allocators.tables import Choice, Tables
from networks import NETWORKS, build, graph_of

from graphprune.graph import DependencyGraph, analyze
from graphprune.model import load
from graphprune.selection import Selection


def apart() -> onnx.ModelProto:
    """Three layers whose hidden channels meet nowhere: the width between them can't shrink."""
    body = """
        h = MatMul(x, up1) r = Relu(h) a = MatMul(r, down1) s = Add(x, a)
        i = MatMul(s, up2) q = Relu(i) b = MatMul(q, down2) t = Add(s, b)
        j = MatMul(t, up3) p = Relu(j) c = MatMul(p, down3) y = Add(t, c)"""
    weights = {"up1": (4, 7), "down1": (7, 4), "up2": (4, 9), "down2": (9, 4), "up3": (4, 5), "down3": (5, 4)}
    return build("(float[n, 4] x) => (float[n, 4] y)", body, weights)


def bottleneck() -> onnx.ModelProto:
    """Chained layers: each width meets the next one."""
    body = """
        h = MatMul(x, a) r = Relu(h) i = MatMul(r, b) s = Relu(i)
        j = MatMul(s, c) t = Relu(j) y = MatMul(t, d)"""
    weights = {"a": (6, 8), "b": (8, 5), "c": (5, 9), "d": (9, 3)}
    return build("(float[n, 6] x) => (float[n, 3] y)", body, weights)


@cache
def small_graph(name: str) -> DependencyGraph:
    """The graph of one of these networks, or of a shared one."""
    own = {"apart": apart, "bottleneck": bottleneck}
    return analyze(load(own[name]())) if name in own else graph_of(name)


def small_allocation(name: str, seed: int = 0, limits: Limits | None = None, **options: Any) -> Allocation:
    """Random scores that add up, and half the multiply-adds as target unless told otherwise."""
    graph = small_graph(name)
    kinds = options.pop("kinds", None)
    scores = np.random.default_rng(seed).random(len(graph.analysis.algebra)) ** 2
    given = {"targets": {"macs": 0.5}, "additive": True, **options}
    return Allocation(Selection(kinds).choose(graph), scores, limits or Limits(0.0), graph, **given)


def every_choice(tables: Tables) -> Iterator[Choice]:
    """All cuts along the tables."""
    for places in product(*(range(n) for n in tables.lengths)):
        yield np.array(places, np.int64)


def optimum(tables: Tables) -> float:
    """The least estimated error of all cuts that meet the targets."""
    return min(tables.error(choice) for choice in every_choice(tables) if tables.meets(choice))


__all__ = ["NETWORKS", "every_choice", "optimum", "small_allocation", "small_graph"]
