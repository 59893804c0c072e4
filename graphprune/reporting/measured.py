"""Measures both models for the report, and finds the layers of one in the other."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import networkx as nx

from graphprune.amounts import several
from graphprune.model import Model
from graphprune.profiling.report import LayerTime as Timed
from graphprune.reporting.latency import Latencies, LayerTime


def measured(
    source: Model,
    pruned: Model,
    output: Path | None,
    dims: Mapping[str, int] | None = None,
    setup: Mapping[str, Any] | None = None,
) -> Latencies:
    """Latency of both, their runs in alternation.

    Args:
        source: the original.
        pruned: the pruned model.
        output: the file that it was written to, if it was.
        dims: sizes for symbolic dimensions.
        setup: provider, threads, batch and machine, as :func:`~graphprune.profile.profile` takes them.

    Raises:
        ModelError: one of them does not run.
    """
    from graphprune.profile import profile

    with _file(source, source.path) as first, _file(pruned, output) as second:
        found = profile([first, second], dims=dict(dims or {}), **(setup or {}))
    (pair,) = found.relative
    before, after = found.runs
    how = f"on {before.device} ({before.provider}), batch {before.batch}, "
    threads = before.threads
    how += "as many threads as the runtime takes" if threads is None else several(threads, "thread")
    return Latencies(
        before.latency_ms.p50, after.latency_ms.p50, (pair.paired_ratio, pair.low, pair.high), how,
        matched(before.layers, after.layers),
    )  # fmt: skip


@contextmanager
def _file(model: Model, path: Path | None) -> Iterator[Path]:
    if path is not None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="graphprune-") as folder:
        written = Path(folder) / "model.onnx"
        model.save(written, durable=False)
        yield written


def matched(before: Sequence[Timed], after: Sequence[Timed]) -> list[LayerTime]:
    """Layers of both models that compute the same nodes, as one.

    The runtime may fuse other nodes after the cut: what overlaps is put together.
    """
    overlaps: nx.Graph[object] = nx.Graph()
    for side, layers in enumerate((before, after)):
        for i, layer in enumerate(layers):
            overlaps.add_node((side, i))
            # What the runtime made up has no node in the file, and is known by its own name.
            for name in layer.origins or (f"{layer.name} of the runtime",):
                overlaps.add_edge((side, i), name)
    found = []
    for part in nx.connected_components(overlaps):
        sides: list[list[Timed]] = [
            [layers[i] for i in sorted(v[1] for v in part if isinstance(v, tuple) and v[0] == side)]
            for side, layers in enumerate((before, after))
        ]
        slowest = max(sides[0] or sides[1], key=lambda layer: layer.ms)
        found.append(
            LayerTime(
                name=slowest.origins[0] if slowest.origins else slowest.name,
                op_type=slowest.op_type,
                before=sum(layer.ms for layer in sides[0]) if sides[0] else None,
                after=sum(layer.ms for layer in sides[1]) if sides[1] else None,
            )
        )
    return found
