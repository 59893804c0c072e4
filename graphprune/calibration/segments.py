"""Runs a model piece by piece over all samples, and keeps only what later pieces read.

Between two pieces weights may change: that is what makes layer-by-layer compensation as cheap as one run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from graphprune.analysis import touched
from graphprune.calibration.pieces import is_fixed, session_over
from graphprune.calibration.shelf import ROOM, Room, Shelf
from graphprune.model import Model

Tensor = npt.NDArray[np.generic]
Feeds = Mapping[str, Tensor]
#: Nodes that read no more than a shape; they run as early as they can, so that their input can go.
_SIZES = frozenset({"Shape", "Size"})
#: They make lists of tensors, wherever no type says so.
_LISTS = frozenset({
    "SplitToSequence", "SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceErase", "SequenceMap",
    "Optional",
})  # fmt: skip


class Segments:
    """A model on its way through the samples.

    Args:
        model: may change between two calls, as far as it has not run.
        batches: feeds of the model's inputs; each runs apart.
        threads: of onnxruntime; 0 leaves it to onnxruntime.
        room: bytes of tensors that stay in memory.
    """

    def __init__(self, model: Model, batches: Sequence[Feeds], threads: int = 0, room: int = ROOM) -> None:
        self._model, self._graph = model, model.ir.graph
        self._threads = threads
        self._done: set[ir.Node] = set()
        self._values = {v.name: v for v in self._graph.inputs}
        self._values |= {v.name: v for n in self._graph for v in n.outputs}
        inputs = {v.name for v in self._graph.inputs}
        defaults = {
            v.name or "": v.const_value.numpy() for v in self._graph.inputs if v.const_value is not None
        }
        shared = Room(room)
        self._store = [Shelf(shared) for _ in batches]
        for shelf, batch in zip(self._store, batches, strict=True):
            dict.update(shelf, defaults | {k: v for k, v in batch.items() if k in inputs})
        self._given = inputs
        self._ends = {v.name for v in self._graph.outputs}
        self._order = {node: i for i, node in enumerate(self._graph)}
        # Nodes of the main graph that read a value, themselves or in a body.
        self._users: dict[ir.Value, list[ir.Node]] = {}
        for node in self._graph:
            for value in touched(node):
                self._users.setdefault(value, []).append(node)

    def __len__(self) -> int:
        return len(self._store)

    def values(self, name: str) -> list[Tensor]:
        """A tensor that was asked for last, or that later pieces read: one array per batch."""
        return [store[name] for store in self._store]

    def pending(self, values: Iterable[ir.Value]) -> set[ir.Node]:
        """Nodes that have to run for these values."""
        found: set[ir.Node] = set()
        todo = [v.producer() for v in values]
        while todo:
            node = todo.pop()
            if node is None or node in found or node in self._done:
                continue
            found.add(node)
            todo += [value.producer() for value in touched(node) if value.graph is self._graph]
        return found

    def advance(
        self,
        wanted: Collection[ir.Value],
        look: Callable[[int, Feeds], None] | None = None,
        keep: Collection[ir.Value] = (),
    ) -> None:
        """Computes these values for all batches.

        Args:
            wanted: what to compute.
            look: is shown each batch's values right behind its run, by number; of them only those of ``keep``
                are kept, and what later nodes read.
            keep: see above.

        Raises:
            ModelError: onnxruntime refuses a piece.
        """
        self._forget(wanted)
        nodes = self.pending(wanted)
        if not nodes:
            return
        self._with_sizes(nodes)
        ordered = sorted(nodes, key=lambda n: self._order[n])
        made = {v for n in ordered for v in n.outputs if v.name}
        fleeting = {n for n in nodes if _makes_lists(n)}  # not kept: they run again for each reader
        made -= {v for n in fleeting for v in n.outputs}
        done = self._done | nodes - fleeting

        def later(value: ir.Value) -> bool:
            return any(user not in done for user in self._users.get(value, ()))

        asked = set(wanted)
        outputs = [v for v in made if v in asked or later(v)]
        outputs.sort(key=lambda v: v.name or "")
        fleeing = set() if look is None else {v for v in outputs if v not in keep and not later(v)}
        for b, (store, found) in enumerate(zip(self._store, self._run(ordered, made, outputs), strict=True)):
            if look is not None:
                look(b, {**store, **{v.name or "": a for v, a in zip(outputs, found, strict=True)}})
            for value, array in zip(outputs, found, strict=True):
                if value not in fleeing:
                    store[value.name or ""] = array
        self._done = done

    def state(self) -> dict[str, Tensor]:
        """What has been run, and what is kept of it, to go on from in another process."""
        found: dict[str, Tensor] = {
            "done": np.array(sorted(self._order[node] for node in self._done), np.int64)
        }
        for b, store in enumerate(self._store):
            found |= {f"{b}/{name}": array for name, array in store.items() if name not in self._given}
        return found

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from such a state."""
        nodes = list(self._order)
        self._done = {nodes[i] for i in state["done"].tolist()}
        for key, array in state.items():
            if key != "done":
                number, _, name = key.partition("/")
                self._store[int(number)][name] = array

    def probe(self, value: ir.Value) -> Iterator[Tensor]:
        """A value, one array per batch; what makes it counts as not run, so that it may still change.

        Raises:
            ModelError: onnxruntime refuses a piece.
        """
        ordered = sorted(self.pending([value]), key=lambda n: self._order[n])
        if not ordered:
            yield from self.values(value.name or "")
            return
        made = {v for n in ordered for v in n.outputs if v.name}
        for (found,) in self._run(ordered, made, [value]):
            yield found

    def _run(
        self, ordered: Sequence[ir.Node], made: Collection[ir.Value], outputs: Sequence[ir.Value]
    ) -> Iterator[list[Tensor]]:
        """Batch by batch, some values of what these nodes make."""
        read = {v.name or "": None for n in ordered for v in touched(n) if v not in made and not is_fixed(v)}
        inputs = [name for name in read if name in self._store[0]]
        names = [v.name or "" for v in outputs]
        kinds = {n: onnx.helper.np_dtype_to_tensor_dtype(self._store[0][n].dtype) for n in inputs}
        session = session_over(self._model, ordered, kinds, names, self._threads)
        for store in self._store:
            yield session.run(names, {name: store[name] for name in inputs})

    def _with_sizes(self, nodes: set[ir.Node]) -> None:
        ready = {v for n in nodes for v in n.outputs}
        for value in ready:
            nodes.update(n for n, _ in value.uses() if n.op_type in _SIZES and n.graph is self._graph)

    def _forget(self, wanted: Collection[ir.Value]) -> None:
        names = {v.name for v in wanted}
        for name in list(self._store[0]) if self._store else []:
            value = self._values.get(name)
            if name in names or value is None or any(n not in self._done for n in self._users.get(value, ())):
                continue
            if name in self._ends:
                continue  # nothing reads it, but it may be asked for again
            for store in self._store:
                if name not in self._given:  # what the caller holds anyway takes no room
                    del store[name]


def _makes_lists(node: ir.Node) -> bool:
    lists = (ir.SequenceType, ir.OptionalType)
    return node.op_type in _LISTS or any(isinstance(v.type, lists) for v in node.outputs)
